"""Describe the columns of a table's run, from its encoding and the measured importance. No torch here."""

import json
from pathlib import Path
from typing import Any

from dlrun.errors import printable, some
from dlrun.output.console import number
from dlrun.paths import read_whole

IMPORTANCE = "importance.json"  # written by dl-runs importance


def described(folder: Path, encoding: dict[str, Any]) -> dict[str, str]:
    """Return a line of text for each column: its kind, its statistics over the train split, its importance."""
    worse = importance_of(folder)
    lines = {}
    for name, kind in encoding["columns"].items():
        numbers = [entry for entry in encoding["numbers"] if entry["column"] == name]
        category = next((entry for entry in encoding["categories"] if entry["column"] == name), None)
        text = _of_category(category["levels"]) if category else _of_numbers(kind, numbers)
        lines[printable(name)] = text + (f"; worse by {number(worse[name])} if shuffled" if name in worse else "")
    return lines


def _of_category(levels: list[str | None]) -> str:
    known = [printable(level) for level in levels if level is not None]
    return f"category of {len(known):,} levels: {some(known, 8)}" + ("; some missing" if None in levels else "")


def _of_numbers(kind: str, entries: list[dict[str, Any]]) -> str:
    values = [entry for entry in entries if entry["part"] != "missing"]
    gaps = f"; missing ones are {number(values[0]['fill'])}" if len(values) < len(entries) else ""
    if kind in ("number", "boolean"):
        return f"{kind}: mean {number(values[0]['mean'])}, deviation {number(values[0]['std'])}{gaps}"
    return f"date: {', '.join(entry['part'] for entry in values)}" + ("; some missing" if gaps else "")


def importance_of(folder: Path) -> dict[str, float]:
    """Return how much worse the run's metric gets when a column is shuffled; empty if it was not measured."""
    try:
        worse_by = json.loads(read_whole(folder / IMPORTANCE))["worse_by"]
        return {str(name): float(entry["mean"]) for name, entry in worse_by.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
