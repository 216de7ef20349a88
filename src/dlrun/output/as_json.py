"""JSON as it is written and printed: no NaN, and letters as they are. No torch here."""

import json
import math
import sys


def finite(value: object) -> object:
    """As JSON can have it: None in the place of nan and inf."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


def as_json(value: object, indent: int | None = None) -> str:
    """Letters as they are, escaped where UTF-8 or the terminal does not have them."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        for encoding in ("utf-8", getattr(sys.stdout, "encoding", None) or "utf-8"):
            text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text
