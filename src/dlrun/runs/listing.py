"""List runs in a table, filtered and sorted, from their summaries alone. No torch here."""

from fnmatch import fnmatchcase
from operator import itemgetter
from pathlib import Path

from dlrun.errors import UserError, counted, nearest, printable_cell
from dlrun.output.as_json import as_json as line
from dlrun.output.console import number, table
from dlrun.output.folders import STARTED, all_runs, read_summary, status_of
from dlrun.paths import open_plain, read_whole

COLUMNS = ("run", "status", "data", "model", "best", "test", "seconds")
WORDS = ("status", "data", "model")  # the columns with words
FACTS = ("status", "data", "model", "task", "optimizer", "schedule", "experiment", "seed", "device", "precision")


def list_runs(base: Path, filters: list[str], sort: str, reverse: bool, limit: int | None) -> list[dict]:
    """Return a row of facts for each run under `base` that passes the filters; by default the newest is last.

    filters: KEY=PATTERN with patterns separated by commas; KEY is one of FACTS, or a config key that the run's command
    line set. sort: a column, `started`, or a metric of summary.json. limit: the number of last rows, taken before rows
    are reversed. Raises UserError if there are no runs.
    """
    folders = all_runs(base)
    if not folders:
        raise UserError(
            f"there is no run under {base.resolve()}\n  expected one; --output-dir DIR names another folder"
        )
    wanted = [_filter(text) for text in filters]
    rows = [facts(folder) for folder in folders]
    rows = [row for row in rows if all(_passes(row, key, patterns) for key, patterns in wanted)]
    if sort != "started":
        rows = _sorted(rows, sort)
    rows = rows[-limit:] if limit else rows
    return rows[::-1] if reverse else rows


def facts(folder: Path, summary: dict | None = None) -> dict:
    """Return the facts of a run that a row of the table shows. summary: that of the folder, if it was read already."""
    summary = read_summary(folder) if summary is None else summary
    best, test = summary.get("best"), summary.get("test")
    best, test = best if isinstance(best, dict) else {}, test if isinstance(test, dict) else {}
    metrics = {name: value for name, value in test.items() if isinstance(value, int | float)}
    metric = str(best.get("metric", ""))
    tested = metric.replace("val/", "test/", 1)
    if tested not in metrics:
        tested = next(iter(metrics), "")
    return {
        "run": str(folder),
        **{name: summary.get(name) for name in FACTS},
        "status": status(folder, summary),
        "best": best.get("value"),
        "test": metrics.get(tested),
        "seconds": summary.get("seconds"),
        "metrics": {metric: best.get("value"), **metrics} if metric else metrics,
        "shown": (metric, tested),
    }


def status(folder: Path, summary: dict) -> str:
    """Return the status of a run: the summary's, or `killed` if it is `running` and its process is gone."""
    recorded = status_of(summary)
    if recorded == "running" and not is_locked(folder / ".lock"):
        return "killed"
    return recorded if isinstance(recorded, str) else "no summary"


def is_locked(path: Path) -> bool:
    """Whether a process holds this lock. True if the system cannot tell."""
    try:
        import fcntl

        with open_plain(path) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except (ImportError, OSError):
        return True
    return False


def _filter(text: str) -> tuple[str, list[str]]:
    key, equals, patterns = text.partition("=")
    if not equals or not key or not patterns:
        raise UserError(f"{text}: expected a filter KEY=PATTERN, such as model=lenet, data=mnist,cifar* or seed=0")
    if key not in FACTS and "." not in key and key != "run":
        raise UserError(
            f"{text}: runs have no {key!r}{nearest(key, FACTS)}\n"
            f"  expected one of: run, {', '.join(FACTS)}; or a config key that was set, such as optimizer.lr=0.1"
        )
    return key, patterns.split(",")


def _passes(row: dict, key: str, patterns: list[str]) -> bool:
    if "." in key:
        value = _overridden(Path(row["run"]), key)
    else:
        value = "null" if row[key] is None else str(row[key])
    return value is not None and any(fnmatchcase(value, pattern) for pattern in patterns)


def _overridden(folder: Path, key: str) -> str | None:
    """Return the value that the run's command line set for a key, or None.

    The file is read line by line, since parsing YAML takes ten times as long.
    """
    try:
        lines = read_whole(folder / STARTED).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    words = [line.removeprefix("- ").strip("'\"").lstrip("+") for line in lines]
    return next((word.partition("=")[2] for word in reversed(words) if word.startswith(key + "=")), None)


def _sorted(rows: list[dict], sort: str) -> list[dict]:
    """Sort rows in ascending order; rows without a value come first."""
    known = [*COLUMNS, *FACTS, *dict.fromkeys(name for row in rows for name in row["metrics"])]
    if sort not in known:
        names = ", ".join(dict.fromkeys(["started", *known]))
        raise UserError(f"--sort {sort}: no such column{nearest(sort, known)}\n  expected one of: {names}")

    pairs = [(row[sort] if sort in row else row["metrics"].get(sort), row) for row in rows]
    empty = [row for value, row in pairs if value is None]
    words = [pair for pair in pairs if isinstance(pair[0], str)]
    numbers = [pair for pair in pairs if isinstance(pair[0], int | float)]
    ranked = sorted(words, key=itemgetter(0)) + sorted(numbers, key=itemgetter(0))
    return empty + [row for _, row in ranked]


def as_table(rows: list[dict], total: int) -> str:
    """Format rows as aligned columns.

    Facts that all runs share are stated once, above the table. The head has the metrics' names; if runs have different
    metrics, each value has its name.
    """
    if not rows:
        return f"none of {counted(total, 'run')} passes the filters"
    names = [{row["shown"][i] for row in rows if row["shown"][i]} for i in (0, 1)]
    heads = [
        next(iter(metrics)) if len(metrics) == 1 else column
        for metrics, column in zip(names, ("best", "test"), strict=True)
    ]
    common = [name for name in WORDS if len(rows) > 1 and rows[0][name] and len({str(row[name]) for row in rows}) == 1]
    words = [name for name in WORDS if name not in common]
    cells = [["run", *words, *heads, "seconds"]]
    for row in rows:
        metrics = []
        for i, column in enumerate(("best", "test")):
            text = number(row[column]) if isinstance(row[column], int | float) else "-"
            is_named = len(names[i]) > 1 and text != "-"
            metrics.append(f"{row['shown'][i].partition('/')[2]} {text}" if is_named else text)
        seconds = f"{row['seconds']:.1f}" if isinstance(row["seconds"], int | float) else "-"
        facts = [str(row[name]) if row[name] is not None else "-" for name in words]
        cells.append([row["run"], *facts, *metrics, seconds])
    shared = printable_cell(" ".join(f"{name}={rows[0][name]}" for name in common))
    above = f"all runs with {shared}\n\n" if common else ""
    return above + table(cells, words=1 + len(words))


def as_json(rows: list[dict]) -> list[str]:
    """Format each row as a line of JSON."""
    return [line({key: value for key, value in row.items() if key != "shown"}) for row in rows]
