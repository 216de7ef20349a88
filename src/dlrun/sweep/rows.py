"""Read a job's metrics.jsonl and summary.json: the newest row, metrics and their directions, best values."""

from pathlib import Path

from dlrun.output.folders import read_summary
from dlrun.output.rows import epoch_row, epoch_rows
from dlrun.paths import open_plain


def last_row(folder: Path) -> dict:
    """Return the newest epoch's row, read from the end of the file, or {}."""
    try:
        with open_plain(folder / "metrics.jsonl") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - 16_384))
            lines = file.read().splitlines()
    except OSError:
        return {}
    return next((row for line in reversed(lines) if (row := epoch_row(line))), {})


def measured(folder: Path) -> tuple[dict[str, str], str | None] | None:
    """Return a run's metrics, each with "max" or "min", and the one that chooses its best epoch. None if unknown."""
    done = read_summary(folder)
    goal, scores = done.get("goal"), done.get("scores")
    scores = {k: v for k, v in scores.items() if v in ("max", "min")} if isinstance(scores, dict) else {}
    return (scores, goal if isinstance(goal, str) and goal in scores else None) if scores else None


def best_so_far(rows: list[dict], name: str, mode: str) -> float | None:
    """Return the best value of a metric over epochs, or None."""
    values = [row[name] for row in rows if is_number(row.get(name))]
    return (max if mode == "max" else min)(values, default=None)


def best_value(folder: Path, name: str) -> float | None:
    """Return a metric of the epoch whose weights were kept, or a number of the summary such as "parameters"."""
    done = read_summary(folder)
    best = best_of(done)
    if best.get("metric") == name:
        return best["value"]
    if is_number(done.get(name)):
        return done[name]
    rows = epoch_rows(folder)
    row = next((row for row in rows if row["epoch"] == best.get("epoch")), rows[-1] if rows else {})
    return row[name] if is_number(row.get(name)) else None


def best_of(done: dict) -> dict:
    """Return the metric and value of a summary's best epoch, or {}."""
    best = done.get("best")
    if not isinstance(best, dict) or "value" not in best:
        return {}
    metric, value = best.get("metric"), best["value"]
    is_whole = isinstance(metric, str) and metric.isprintable() and (value is None or is_number(value))
    return best if is_whole else {}


def is_number(value: object) -> bool:
    """Whether a value can be a metric. Excludes huge integers: one in a file may have thousands of digits."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
