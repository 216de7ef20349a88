"""Read metrics.jsonl. Imports no torch."""

import json
from pathlib import Path

from dlrun.paths import read_whole


def parse_row(line: bytes | str) -> dict[str, int | float | None]:
    """Parse a line of metrics; None stands for a non-finite number. Raises ValueError for any other content."""
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("too many nested lists") from None
    if not isinstance(row, dict):
        raise ValueError(f"expected a row of numbers, found {type(row).__name__}")
    for name, value in row.items():
        is_number = isinstance(value, float | None) or type(value) is int and abs(value) < 2**63
        if not is_number:
            raise ValueError(f"{name}: expected a number, found {str(value)[:40]}")
    return row


def is_of_tensor(name: str) -> bool:
    """Whether a metric is the gradient norm of one tensor. Other metrics may have a slash in their names, too."""
    return name.startswith(("grad/", "clipped/"))


def is_epoch(row: dict) -> bool:
    """Whether a row belongs to an epoch, not to the steps between two log lines."""
    return type(row.get("epoch")) is int and not any(name.startswith("step/") for name in row)


def epoch_row(line: bytes) -> dict | None:
    """Parse a line of metrics. None if it is not whole, is damaged, or is not that of an epoch."""
    try:
        row = parse_row(line)
    except ValueError:
        return None
    return row if is_epoch(row) else None


def epoch_rows(folder: Path) -> list[dict]:
    """Return the rows of the epochs. Damaged lines are skipped, such as the last one while it is being written."""
    try:
        lines = read_whole(folder / "metrics.jsonl").splitlines()
    except OSError:
        return []
    return [row for line in lines if (row := epoch_row(line))]
