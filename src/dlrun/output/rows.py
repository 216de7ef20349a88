"""metrics.jsonl, read back. No torch here."""

import json
from pathlib import Path

from dlrun.paths import read_whole


def parse_row(line: bytes | str) -> dict[str, int | float | None]:
    """A row of metrics; None where a number was not finite. Raises ValueError for anything else, whatever it is."""
    try:
        row = json.loads(line)
    except RecursionError:
        raise ValueError("lists in lists without end") from None
    if not isinstance(row, dict):
        raise ValueError(f"expected a row of numbers, found {type(row).__name__}")
    for name, value in row.items():
        is_number = isinstance(value, float | None) or type(value) is int and abs(value) < 2**63
        if not is_number:
            raise ValueError(f"{name}: expected a number, found {str(value)[:40]}")
    return row


def is_epoch(row: dict) -> bool:
    """Whether a row is of an epoch, not of the last steps."""
    return type(row.get("epoch")) is int and not any(name.startswith("step/") for name in row)


def epoch_rows(folder: Path) -> list[dict]:
    """The rows of epochs, up to the first line that is damaged: the last may be half written, while the run goes on."""
    rows = []
    try:
        for line in read_whole(folder / "metrics.jsonl").splitlines():
            rows.append(parse_row(line))
    except (OSError, ValueError):
        pass
    return [row for row in rows if is_epoch(row)]
