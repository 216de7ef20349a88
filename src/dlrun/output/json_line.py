"""The one line that `dl-run --json` prints on standard output at its end; all else goes to standard error. No torch."""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.output.as_json import as_json, finite
from dlrun.output.folders import read_summary, status_of
from dlrun.output.rows import epoch_rows
from dlrun.paths import read_whole

FLAG = "--json"


@dataclass
class Ending:
    """The state of a command at its end.

    folder: of the run or the sweep. error: the message of a user error. measured: by find_lr, find_batch or time.
    """

    folder: Path | None = None
    error: str | None = None
    measured: dict[str, object] = field(default_factory=dict)


ENDING = Ending()  # of this process, which runs one command


@contextmanager
def one_json_line() -> Iterator[None]:
    """Send what the block prints to standard error, also what its child processes print; then print the line."""
    out, ENDING.folder, ENDING.error, ENDING.measured = sys.stdout, None, None, {}
    sys.stdout.flush()
    code = 1  # a bug, which ends in a traceback
    descriptor = _swap(None)
    try:
        with redirect_stdout(sys.stderr):
            yield
        code = 0
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else int(leave.code is not None)
        raise
    finally:
        _swap(descriptor)
        with suppress(OSError, ValueError):  # whoever reads it has gone
            out.write(as_json(finite(ending(code))) + "\n")
            out.flush()


def note_error(message: str) -> None:
    """Keep why this command fails, for the line. One of several processes of a run leaves it to their launcher."""
    ENDING.error = message
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):  # torch's launcher reads it (ProcessFailure)
        with suppress(OSError), open(file, "w", encoding="utf-8") as out:
            json.dump({"message": message, "timestamp": int(time.time())}, out)


def _swap(descriptor: int | None) -> int | None:
    """Point file descriptor 1 to standard error, or back to `descriptor`. Returns a copy of the old one."""
    with suppress(OSError):  # one of the streams is closed
        if descriptor is None:
            saved = os.dup(1)
            os.dup2(2, 1)
            return saved
        os.dup2(descriptor, 1)
        os.close(descriptor)
    return None


def ending(code: int) -> dict[str, object]:
    """Return the content of the line: how the command ended, and the results of its run or sweep."""
    folder = ENDING.folder
    line: dict[str, object] = {"folder": None, "status": _word(code), "exit_code": code, "error": ENDING.error}
    line["metrics"] = {}
    if folder is not None:
        line["folder"] = str(folder.resolve())
    if ENDING.measured or folder is None:
        return line | ({"measured": ENDING.measured} if ENDING.measured else {})
    if os.path.isfile(folder / "sweep.json"):
        return line | _of_sweep(folder)
    return line | _of_run(folder, code)


def _word(code: int) -> str:
    return {0: "finished", 2: "refused"}.get(code, "stopped" if code > 128 else "failed")


def _of_run(folder: Path, code: int) -> dict[str, object]:
    summary = read_summary(folder)
    status, test = status_of(summary), summary.get("test")
    metrics = test if isinstance(test, dict) else {}
    known = summary if status == "finished" else summary | _so_far(folder, summary)
    return {
        **({"status": status} if code == 1 and status in ("diverged", "failed") else {}),
        **{name: known.get(name) for name in ("goal", "best", "stopped_by", "epochs", "steps", "seconds")},
        "metrics": {name: value for name, value in metrics.items() if isinstance(value, int | float | None)},
    }


def _so_far(folder: Path, summary: dict) -> dict[str, object]:
    """What a run that has not finished has reached: its epochs, and the best of them, by their rows."""
    rows, goal, scores = epoch_rows(folder), str(summary.get("goal")), summary.get("scores")
    found: dict[str, object] = {"stopped_by": None, "best": None}
    if rows:
        found |= {"epochs": rows[-1]["epoch"], "steps": rows[-1].get("step")}
    measured = [row for row in rows if row.get(goal) is not None]
    if measured and isinstance(scores, dict):
        sign = 1 if scores.get(goal) == "max" else -1
        best = max(measured, key=lambda row: (sign * row[goal], -(row.get("val/loss") or 0)))
        found["best"] = {"epoch": best["epoch"], "metric": goal, "value": best[goal]}
    last = resumed if isinstance(resumed := summary.get("resumed"), dict) else summary
    return found | {
        name: last[name] for name in ("steps", "seconds") if name in last
    }  # with those of a part of an epoch


def _of_sweep(folder: Path) -> dict[str, object]:
    try:
        results = json.loads(read_whole(folder / "results.json"))
        statuses = [job["status"] for job in results["jobs"]]
        best = [{**each, "folder": str(folder.resolve() / str(each["job"]))} for each in results["best"]]
        goals = results["goals"]
        errors = [f"job {job['number']}: {job['error']}" for job in results["jobs"] if job.get("error")]
    except (OSError, ValueError, KeyError, TypeError):  # it ended before the first report
        return {"jobs": {}}
    return {
        "goals": goals,
        "best": best,
        "first_failure": next(iter(errors), None),
        "jobs": {status: statuses.count(status) for status in dict.fromkeys(statuses)},
    }
