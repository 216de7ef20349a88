"""The folder of a run: its log, metrics, curves, checkpoints and summary."""

import json
import math
import os
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy

from dlrun.checkpoint import Checkpoints
from dlrun.errors import UserError
from dlrun.folders import write_whole


class Run:
    """Writes what a run leaves behind. rows: the epochs' rows of metrics so far."""

    def __init__(self, folder: Path, facts: dict) -> None:
        self.folder, self.facts = folder, facts
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.log_file = open(folder / "run.log", "a", encoding="utf-8", buffering=1)
        self.metrics_path = folder / "metrics.jsonl"
        self.metrics_file, self.num_rows, self.rows = None, 0, []
        self.writer, self.purge_step, self.purged = None, None, []
        self.started, self.is_heard = time.time(), True

    def say(self, text: str) -> None:
        """A line in the log and on the terminal (above the bar, if there is one), as long as somebody listens there."""
        self.log_file.write(text + "\n")
        if sys.stdout is None or not self.is_heard:
            return
        try:
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(text, file=sys.stdout)
            else:
                sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except (OSError, ValueError):  # a closed pipe, a full disk, a closed file: the run is worth more
            self.is_heard = False
            with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())  # for what is left in the buffer

    def go_back(self, num_rows: int, step: int, is_mid_epoch: bool) -> None:
        """Forget what was logged after a checkpoint: it will be logged again, the same.

        TensorBoard forgets from a step on. In mid-epoch that is the checkpoint's own (the epoch may have ended there
        since), whose row of the last steps is then drawn anew.
        """
        lines = (
            self.metrics_path.read_bytes().splitlines(keepends=True)[:num_rows] if self.metrics_path.exists() else []
        )
        if len(lines) < num_rows or any(not line.endswith(b"\n") for line in lines):
            raise UserError(
                f"{self.metrics_path} was changed after the checkpoint: it has {len(lines)} of {num_rows} lines\n"
                f"  expected all of them, each whole\n"
                f"  restore it, or start a new run with init={self.checkpoints.folder / 'last.ckpt'}"
            )
        write_whole(self.metrics_path, b"".join(lines).decode())
        rows = [{k: math.nan if v is None else v for k, v in json.loads(line).items()} for line in lines]
        self.num_rows, self.purge_step = num_rows, step if is_mid_epoch else step + 1
        self.rows = [row for row in rows if not any(key.startswith("step/") for key in row)]
        self.purged = [row for row in rows if row["step"] >= self.purge_step]

    def log(self, row: dict, step: int, pictures: dict | None = None) -> None:
        """A row of metrics: a line of metrics.jsonl and points of TensorBoard's curves."""
        if self.metrics_file is None:
            self.metrics_file = open(self.metrics_path, "a", encoding="utf-8", buffering=1)
        self.metrics_file.write(json.dumps(finite(row)) + "\n")
        self.num_rows += 1
        if not any(key.startswith("step/") for key in row):
            self.rows.append(row)
        board = self.tensorboard()
        self._draw(row)
        for name, picture in (pictures or {}).items():
            board.add_image(name, picture, step)

    def _draw(self, row: dict) -> None:
        for name, value in row.items():
            if math.isfinite(value) and ("/" in name or name.endswith("lr")):
                self.writer.add_scalar(name, value, row["step"])

    def tensorboard(self) -> object:
        """The writer of TensorBoard's events, made when it is first needed: a third of a second."""
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.purge_step)
            config = self.folder / ".hydra" / "config.yaml"
            if self.purge_step is None and config.exists():
                self.writer.add_text("config", "```yaml\n" + config.read_text(encoding="utf-8") + "```")
            for row in self.purged:
                self._draw(row)
        return self.writer

    def sync(self) -> None:
        """Everything logged so far is with the system: a checkpoint may be written that counts on it."""
        if self.metrics_file is not None:
            os.fsync(self.metrics_file.fileno())
        if self.writer is not None:
            self.writer.flush()

    def summarise(self, status: str, **results: object) -> None:
        """summary.json: what the run is and what came of it."""
        self.facts.update(results)
        text = json.dumps(finite({"status": status, **self.facts}), indent=2, allow_nan=False)
        write_whole(self.folder / "summary.json", text + "\n")

    def plot(self, name: str, figure: object, step: int) -> None:
        """A figure as plots/<name>.png, and among TensorBoard's pictures."""
        (self.folder / "plots").mkdir(exist_ok=True)
        figure.savefig(self.folder / "plots" / f"{name}.png")
        pixels = numpy.asarray(figure.canvas.buffer_rgba())[..., :3]
        self.tensorboard().add_image(f"plots/{name}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        with ExitStack() as files:  # each of them, whatever becomes of the others
            for file in (self.log_file, self.metrics_file, self.writer):
                if file is not None:
                    files.callback(file.close)


class Silent:
    """In the place of a Run, for a process whose run another one writes down. Checkpoints can be read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoints, self.rows, self.num_rows = folder, Checkpoints(folder / "checkpoints"), [], 0

    def _nothing(self, *args: object, **keys: object) -> None: ...

    say = go_back = log = sync = summarise = plot = close = _nothing


def finite(value: object) -> object:
    """As JSON can have it: None in the place of nan and inf."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items()}
    return [finite(each) for each in value] if isinstance(value, list | tuple) else value


def git_commit() -> str | None:
    """The commit of the working folder, with a plus where something in it is not committed."""
    try:
        git = ["git", "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        found = subprocess.run(git, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
