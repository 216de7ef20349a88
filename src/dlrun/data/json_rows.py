"""Read lists of samples from JSON and JSON Lines, as the rows of a table whose first row names the columns.

A list of objects, [{"path": "cats/1.jpg", "label": "cat"}, ...]; a mapping, {"cats/1.jpg": "cat", ...}; or an object
per line.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from dlrun.errors import DataError

LINES = (".jsonl", ".ndjson")
SUFFIXES = (".json", *LINES)
EXPECTED = (
    'expected a list of objects such as {"path": "cats/1.jpg", "label": "cat"}, a mapping such as '
    '{"cats/1.jpg": "cat"}, or in a .jsonl an object per line'
)


def is_json(path: Path) -> bool:
    """Whether a file's name ends like those of JSON or JSON Lines."""
    return path.name.lower().endswith(SUFFIXES)


def json_rows(path: Path, text: str) -> list[tuple[int, list[str]]]:
    """Return a first row of names, then the objects: each with its number, of its line in JSON Lines. Raises DataError.

    Values that are no text, number, true or false are left out, as are null.
    """
    if path.name.lower().endswith(LINES):
        lines = [(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()]
        objects = [(i, _object(path, f"line {i}", _parsed(path, line, f", line {i}"))) for i, line in lines]
    else:
        content = _parsed(path, text, "")
        if isinstance(content, dict) and all(isinstance(value, str | int | float) for value in content.values()):
            content = [{"path": key, "label": value} for key, value in content.items()]
        if not isinstance(content, list):
            kind = "an object with lists or objects in it" if isinstance(content, dict) else "neither list nor mapping"
            raise DataError(f"{path} is {kind}\n  {EXPECTED}")
        objects = [(i, _object(path, f"entry {i}", each)) for i, each in enumerate(content, 1)]
    names = list(dict.fromkeys(name for _, each in objects for name in each))
    return [(0, names), *((i, [each.get(name, "") for name in names]) for i, each in objects)] if objects else []


def _parsed(path: Path, text: str, where: str) -> object:
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        place = where or f", line {error.lineno}"
        raise DataError(f"{path}{place}: {error.msg} (column {error.colno})\n  {EXPECTED}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}{where}: {str(error)[:200]}\n  {EXPECTED}") from None


def _without_repeats(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)[:100]!r} is there twice")
    return found


def _object(path: Path, where: str, content: object) -> dict[str, str]:
    if not isinstance(content, dict):
        raise DataError(f"{path}, {where}: it is no object: {json.dumps(content)[:60]}\n  {EXPECTED}")
    return {
        str(name): value if isinstance(value, str) else json.dumps(value)
        for name, value in content.items()
        if isinstance(value, str | int | float)
    }
