"""Valid, readable JSON: no NaN, and no escapes for letters of other alphabets. Imports no torch."""

import json
import math
import sys
from typing import overload


@overload
def finite(value: dict) -> dict: ...


@overload
def finite(value: object) -> object: ...


def finite(value: object) -> object:
    """Copy nested values with None instead of nan and inf, which JSON lacks."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


def one_line(row: dict[str, float]) -> str:
    """Numbers by name as a line of JSON."""
    try:
        return STRICT.encode(row)
    except ValueError:  # a number is not finite
        return STRICT.encode(finite(row))


STRICT = json.JSONEncoder(allow_nan=False)


def as_json(value: object, indent: int | None = None) -> str:
    """A value as JSON text. Letters are escaped only if UTF-8 or the terminal cannot encode them."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    try:
        for encoding in ("utf-8", getattr(sys.stdout, "encoding", None) or "utf-8"):
            text.encode(encoding)
    except UnicodeEncodeError:
        return json.dumps(value, indent=indent)
    return text
