"""The process of a tracker: it follows a run's files and sends new rows to the tracker. No torch here."""

import json
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

from filelock import FileLock

from dlrun.config.build import build
from dlrun.config.check import check_section
from dlrun.config.saved import plain, read_config
from dlrun.errors import check_state
from dlrun.output.folders import best_weights
from dlrun.output.rows import parse_row
from dlrun.output.tracking import FOLDER
from dlrun.output.written import write_whole
from dlrun.paths import open_plain, read_whole
from dlrun.runs.compare import flatten
from dlrun.runs.live import LiveRun, stamp
from dlrun.system.cpus import copy_nice
from dlrun.tracking.trackers import Tracked, Tracker

EVERY = 1.0  # seconds between two looks at the files
DESTINATION = ("project", "entity", "experiment", "uri")  # keys that say where a tracker sends to
MOST = 100  # rows that are sent at once, and missing there if the process is killed meanwhile


def main() -> None:
    """Run `python -m dlrun.tracking.follow FOLDER NAME`."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    with FileLock(folder / FOLDER / f"{name}.lock"):  # the tracker of an earlier session may still be sending
        config = plain(read_config(folder)[0])
        check_section("tracker", config["tracker"])
        tracker: Tracker = build(config["tracker"][name])
        tracker.reach()  # before it is nice, so that short runs on busy cores are told, too
        run = LiveRun(folder)
        run.read_facts()
        if run.is_running:
            os.nice(19)  # the run has precedence: on busy cores it keeps 98 % of its time
            copy_nice()
        follow(folder, name, tracker, config)


def follow(folder: Path, name: str, tracker: Tracker, config: dict[str, Any]) -> None:
    """Send what is new until the run ends, then its results. Raises whatever the tracker raises.

    Rows count as sent before they are sent: after a kill up to MOST may be missing, but no point is there twice.
    """
    destination = {key: value for key, value in config["tracker"][name].items() if key in DESTINATION}
    run, position = LiveRun(folder), _Position(folder / FOLDER / f"{name}.json", destination)
    run.read_facts()
    ended = list(stamp(folder / "summary.json") or ())
    if not run.is_running and position.ended == ended:
        return  # another process has sent it all meanwhile
    base = Path(config["output_dir"]).expanduser()
    flat = {key: value for key, value in flatten(config).items() if not key.startswith("tracker")}
    identity = str(run.summary.get("id") or folder.name)
    position.run_id = tracker.start(Tracked(folder, identity, folder.name, flat, base), position.run_id)
    position.write()
    last, lines = 0, _Lines(folder / "metrics.jsonl")
    while True:
        run.read_facts()
        new = lines.read()  # after the facts: all rows are there before the summary states that the run is over
        for first in range(0, len(new), MOST):
            points = [position.unsent(parse_row(line)) for line in new[first : first + MOST]]
            position.write()
            if points := [(step, metrics) for step, metrics in points if metrics]:
                last = points[-1][0]
                tracker.log(points)
        if not run.is_running:
            break
        time.sleep(EVERY)
    status = str(run.facts["status"])
    last = max(last, int(run.summary.get("steps") or 0))
    images = sorted(path for kind in ("*.png", "*.gif") for path in (folder / "plots").glob(kind))
    is_whole = status == "finished"
    files = _files(folder) if is_whole and tracker.artifacts else []
    tracker.finish(_results(run), images if is_whole else [], files, last, status)
    position.ended = list(stamp(folder / "summary.json") or ())
    position.write()


def _files(folder: Path) -> list[Path]:
    """Return a finished run's best checkpoint, config and summary."""
    paths = [best_weights(folder), folder / ".hydra" / "config.yaml", folder / "summary.json"]
    return [path for path in paths if path.is_file()]


class _Position:
    """What a tracker has of a run.

    steps: of each metric, the last step that was sent. A resumed run writes the rows after its checkpoint again, at
    other steps if it logs more or less often; only later steps are new. run_id: of the run in the tracker. ended: stamp
    of the summary. destination: where they were sent. If a resumed run names another one, all of it is sent there.
    """

    def __init__(self, path: Path, destination: dict[str, Any]) -> None:
        self.path, self.destination = path, destination
        self.steps, self.run_id, self.ended = dict[str, int](), None, list[int]()
        if path.exists():
            saved = json.loads(read_whole(path))
            check_state(saved, {"steps": dict, "key": str | None, "ended": list, "place": dict})
            if saved["place"] == destination:
                self.steps = {str(name): int(step) for name, step in saved["steps"].items()}
                self.run_id, self.ended = saved["key"], saved["ended"]

    run_id: str | None

    def write(self) -> None:
        facts = {"steps": self.steps, "key": self.run_id, "ended": self.ended, "place": self.destination}
        write_whole(self.path, json.dumps(facts))

    def unsent(self, row: dict[str, Any]) -> tuple[int, dict[str, float]]:
        """Return the step of a row and its metrics that were not sent yet. They count as sent."""
        step = int(row["step"] or 0)
        new = {name: value for name, value in _metrics(row).items() if step > self.steps.get(name, -1)}
        self.steps |= dict.fromkeys(new, step)
        return step, new


class _Lines:
    """The lines of a file that grows, or that a resumed run replaces."""

    def __init__(self, path: Path) -> None:
        self.path, self.inode, self.offset = path, 0, 0

    def read(self) -> list[bytes]:
        """Return the whole lines that are new; all lines of a file that was replaced."""
        try:
            with open_plain(self.path) as file:
                now = os.fstat(file.fileno())
                if now.st_ino != self.inode or now.st_size < self.offset:
                    self.inode, self.offset = now.st_ino, 0
                file.seek(self.offset)
                text = file.read()
        except FileNotFoundError:
            return []
        text = text[: text.rfind(b"\n") + 1]  # the last line may still be being written
        self.offset += len(text)
        return text.splitlines()


def _metrics(row: dict[str, Any]) -> dict[str, float]:
    """The finite values of a row, which are all that a tracker takes."""
    return {key: float(v) for key, v in row.items() if key != "step" and v is not None and math.isfinite(v)}


def _results(run: LiveRun) -> dict[str, Any]:
    """Return the test metrics, the best epoch and the time of a run."""
    best, seconds = run.summary.get("best"), run.summary.get("seconds")
    results = {name: value for name, value in run.facts["metrics"].items() if str(name).startswith("test/")}
    if isinstance(best, dict) and isinstance(best.get("value"), int | float):
        results |= {f"best/{str(best.get('metric')).partition('/')[2]}": best["value"], "best/epoch": best.get("epoch")}
    return results | ({"time/total_seconds": seconds} if isinstance(seconds, int | float) else {})
