"""What a job has said so far: the epochs' rows of its metrics.jsonl, and what it optimises."""

from pathlib import Path

from dlrun.output.folders import open_plain, read_summary, read_whole
from dlrun.output.rows import is_epoch, parse_row


def epoch_rows(folder: Path) -> list[dict]:
    """The rows of whole epochs; a last line that is not yet whole is left for later."""
    try:
        text = read_whole(folder / "metrics.jsonl").decode("utf-8", "replace")
    except OSError:
        return []
    return [row for line in text.splitlines() if (row := _epoch_row(line))]


def last_row(folder: Path) -> dict:
    """The newest epoch's row, from the end of the file; empty where there is none."""
    try:
        with open_plain(folder / "metrics.jsonl") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 16_384))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return {}
    return next((row for line in reversed(lines) if (row := _epoch_row(line))), {})


def _epoch_row(line: str) -> dict | None:
    try:
        row = parse_row(line)
    except ValueError:
        return None
    return row if is_epoch(row) else None


def said(folder: Path) -> tuple[dict[str, str], str | None] | None:
    """What a run measures, each with which is better, "max" or "min", and the one that it chooses its best epoch by."""
    done = read_summary(folder)
    goal, scores = done.get("goal"), done.get("scores")
    return (scores, goal if goal in scores else None) if isinstance(scores, dict) else None


def best_so_far(rows: list[dict], name: str, mode: str) -> float | None:
    values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
    return (max if mode == "max" else min)(values, default=None)


def kept_value(folder: Path, name: str) -> float | None:
    """A metric of the epoch whose weights were kept, or a number of the summary, as "parameters"."""
    done = read_summary(folder)
    best = done.get("best") or {}
    if best.get("metric") == name:
        return best["value"]
    if isinstance(done.get(name), int | float):
        return done[name]
    rows = epoch_rows(folder)
    row = next((row for row in rows if row["epoch"] == best.get("epoch")), rows[-1] if rows else {})
    return row.get(name)
