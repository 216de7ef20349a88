"""Trackers run in processes of their own, which follow the run's files: a run waits for them only at its end. No torch.

metrics.jsonl is the queue between the run and its trackers. The rows that a tracker has received are counted in
tracking/<name>.json, so that a resumed run continues there without doubled points.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from dlrun.errors import UserError
from dlrun.system.cpus import set_nice_of_group

FOLDER = "tracking"  # in the run's folder: the count of rows that each tracker has received, and its output
WAIT = 2.0  # seconds that a run's end waits for its trackers; their key wait_seconds sets another number
SAFE = "import sys; sys.path[:] = [path for path in sys.path if path]; from dlrun.tracking.follow import main; main()"
NAMES = ("trackio", "wandb", "mlflow")


def require_installed(names: Iterable[str], install: Callable[[str], str]) -> None:
    """Raise UserError if a tracker's package is missing. install: returns the pip command for an extra."""
    for name in names:
        if name in NAMES and find_spec(name) is None:
            raise UserError(f"tracker={name}: {name} is not installed\n  expected: {install(name)}")


def require_apart(names: Iterable[str], folder: str | Path | None, base: str) -> None:
    """Raise UserError if W&B would write into a run's folder: its links there would keep the run from being resumed.

    folder: of the run; None for a new one in base, the output_dir.
    """
    if folder is None or "wandb" not in names:
        return
    own, theirs = (Path(os.path.expanduser(path)).resolve() for path in (folder, os.path.join(base, "wandb")))
    if own == theirs or own in theirs.parents:
        what = "is this folder" if own == theirs else "is in this folder"
        raise UserError(
            f"run_dir={folder} with tracker=wandb: W&B writes into {theirs}, which {what}\n"
            "  expected a run's folder apart from it: another run_dir or output_dir"
        )


class Tracking:
    """The trackers of a run: a process for each, which outlives the run until it has sent everything.

    waits: the seconds that the run's end waits for each of them.
    """

    def __init__(self, folder: Path, waits: Mapping[str, float]) -> None:
        self.folder, self.waits, self.processes = folder / FOLDER, waits, dict[str, subprocess.Popen[bytes]]()
        for name in waits:
            self.folder.mkdir(exist_ok=True)
            with open(self.folder / f"{name}.log", "ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, "-c", SAFE, str(folder.resolve()), name],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=os.environ | {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"},
                    start_new_session=True,  # Ctrl-C reaches it through the run's end only
                )

    def close(self) -> list[str]:
        """Wait a moment for the trackers. Return a line for each that failed, and one for those still sending."""
        began, lines, late = time.monotonic(), [], []
        for process in self.processes.values():
            set_nice_of_group(0, process.pid)  # the run, which had precedence, is over
        for name, process in sorted(self.processes.items(), key=lambda each: -self.waits[each[0]]):
            log = self.folder / f"{name}.log"
            try:
                code = process.wait(max(0.0, began + self.waits[name] - time.monotonic()))
            except subprocess.TimeoutExpired:
                late.append(name)
                process.returncode = 0  # it is meant to outlive this process
                continue
            if code:
                lines.append(f"tracker={name} failed: {_last_line(log)}\n  the run is not affected; all of it: {log}")
        self.processes.clear()
        if late:
            logs = self.folder / (f"{late[0]}.log" if len(late) == 1 else "*.log")
            still = "is still sending and ends by itself" if len(late) == 1 else "still send and end by themselves"
            lines.append(f"tracker={','.join(late)} {still}; output: {logs}")
        return lines


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")
