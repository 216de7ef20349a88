"""The folder of a run: its log, metrics, curves, checkpoints and summary."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from secrets import token_hex

import numpy

from dlrun.errors import UserError, columns, printable
from dlrun.output import drawing, plots, video
from dlrun.output.as_json import as_json, finite
from dlrun.output.checkpoint import Checkpoints
from dlrun.output.folders import write_whole
from dlrun.output.rows import parse_row
from dlrun.output.terminal import silence
from dlrun.overrides import pasteable
from dlrun.paths import read_whole

IN_SUMMARY = 2500  # numbers of a matrix, at most


class Run:
    """Writes what a run leaves behind. rows: the epochs' rows of metrics so far; windows: those of the last steps.

    axis: the column of the rows that curves are drawn over, step or samples; a clock's time is of that. before: the
    summary of a run that is resumed. id: ties the checkpoints to their run. Nothing is written before the first call
    of `say`, `log` or `resume`.
    """

    def __init__(self, folder: Path, facts: dict, axis: str = "step", before: dict | None = None) -> None:
        self.folder, self.facts, self.axis, self.id = folder, facts, axis, token_hex(8)
        self.end = before if before and before.get("status") == "finished" else None
        self.checkpoints, self.log_file = Checkpoints(folder / "checkpoints"), None
        self.metrics_path = folder / "metrics.jsonl"
        self.metrics_file, self.num_rows, self.rows, self.windows, self.kept = None, 0, [], [], []
        self.writer, self.purge_step, self.purged = None, None, []
        self.started, self.is_heard = time.time(), True
        self.pictures, self.unsynced = folder / "pictures", []
        self.figures, self.films = {}, {}

    def say(self, text: str, fit: Callable[[int], str] | None = None) -> None:
        """A line in the log and on the terminal (above the bar, if there is one), as long as somebody listens there.

        fit: gives it for a terminal of so many columns.
        """
        text = printable(text)
        if self.log_file is None:
            path = self.folder / "run.log"
            self.log_file = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self.log_file.write(text + "\n")
        if sys.stdout is None or not self.is_heard:
            return
        try:
            text = printable(fit(columns(sys.stdout, 10_000))) if fit else text
            if "tqdm" in sys.modules:
                sys.modules["tqdm"].tqdm.write(text, file=sys.stdout)
            else:
                sys.stdout.write(text + "\n")
            sys.stdout.flush()
        except (OSError, ValueError):  # a closed pipe, a full disk, a closed file: the run is worth more
            self.is_heard = False
            silence(sys.stdout)

    def resume(self, config: str | None, test: str) -> None:
        """The first writes of a resumed run. What a finished run was tested with is kept until it is tested again.

        config: the text of config.yaml, where it may have changed. test: trainer.test. The summary comes before the
        config: a finished run whose config has higher limits would count as one that reached them.
        """
        if self.end:
            self.checkpoints.keep_tested(self.end, test)
        self.summarise("running")
        if config is not None:
            write_whole(self.folder / ".hydra" / "config.yaml", config)

    def read_back(self, num_rows: int) -> None:
        """Take up the rows that a checkpoint counts on. Raises UserError where they are not there; writes nothing."""
        content = read_whole(self.metrics_path) if self.metrics_path.exists() else b""
        lines = content.splitlines(keepends=True)[:num_rows]
        try:
            rows = [{k: math.nan if v is None else v for k, v in parse_row(line).items()} for line in lines]
            is_whole = all({"epoch", "step", self.axis} <= row.keys() for row in rows)
        except ValueError:
            is_whole = False
        if not is_whole or len(lines) < num_rows or any(not line.endswith(b"\n") for line in lines):
            raise UserError(
                f"{self.metrics_path} is damaged, or was changed after the checkpoint: of its first {num_rows} lines "
                f"{len(lines)} are there\n  expected all of them, each whole\n"
                f"  restore it, or start a new run with {pasteable('init', self.checkpoints.folder / 'last.ckpt')}"
            )
        self.num_rows, self.kept, self.rows, self.windows = num_rows, lines, [], []
        for row in rows:
            self._list_of(row).append(row)

    def go_back(self, time: int, is_mid_epoch: bool) -> None:
        """Forget what was logged after a checkpoint: it will be logged again, the same.

        TensorBoard forgets from a time on. In mid-epoch that is the checkpoint's own (the epoch may have ended there
        since), whose row of the last steps is then drawn anew.
        """
        write_whole(self.metrics_path, b"".join(self.kept).decode())
        self.purge_step = time if is_mid_epoch else time + 1
        self.purged = [row for row in self.windows + self.rows if row[self.axis] >= self.purge_step]
        epochs = {row["epoch"] for row in self.rows}
        for picture in video.kept(self.pictures):
            if video.epoch_of(picture) not in epochs:
                picture.unlink()

    def log(self, row: dict, time: int, pictures: dict | None = None) -> None:
        """A row of metrics: a line of metrics.jsonl and points of TensorBoard's curves; an epoch's pictures with it."""
        if self.metrics_file is None:
            self.metrics_file = open(self.metrics_path, "a", encoding="utf-8", buffering=1)
        self.metrics_file.write(json.dumps(finite(row)) + "\n")
        self.num_rows += 1
        self._list_of(row).append(row)
        board = self.tensorboard()
        self._draw(row)
        for name, picture in (pictures or {}).items():
            board.add_image(name, picture, time)
            video.keep(path := video.path_of(self.pictures, name, row["epoch"]), picture)
            self.unsynced.append(path)

    def _list_of(self, row: dict) -> list[dict]:
        return self.windows if any(key.startswith("step/") for key in row) else self.rows

    def _draw(self, row: dict) -> None:
        for name, value in row.items():
            if math.isfinite(value) and ("/" in name or name.endswith("lr")):
                self.writer.add_scalar(name, value, row[self.axis])

    def tensorboard(self) -> object:
        """The writer of TensorBoard's events, made when it is first needed: a third of a second."""
        if self.writer is not None and not os.path.isdir(self.folder / "tensorboard"):
            self._close_board()
            self.writer = None
            self.say("tensorboard/ was removed during the run: its curves start again here")
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self.purge_step)
            config = self.folder / ".hydra" / "config.yaml"
            if self.purge_step is None and config.exists():
                self.writer.add_text("config", f"```yaml\n{read_whole(config).decode()}```")
            for row in self.purged:
                self._draw(row)
        return self.writer

    def sync(self) -> None:
        """Everything logged so far is with the system: a checkpoint may be written that counts on it."""
        if self.metrics_file is not None:
            os.fsync(self.metrics_file.fileno())
        for picture in self.unsynced:
            with suppress(FileNotFoundError), open(picture, "r+b") as file:  # a picture is the user's to remove
                os.fsync(file.fileno())
        self.unsynced.clear()
        if self.writer is not None:
            self.tensorboard().flush()

    def summarise(self, status: str, **results: object) -> None:
        """summary.json: what the run is and what came of it.

        That of a finished run which is resumed stays, and says so, until the run is finished again.
        """
        self.facts.update(results)
        summary = {"status": status, "id": self.id, **self.facts}
        if self.end and status != "finished":
            summary = self.end | {"resumed": {"status": status, **results}}
        text = as_json(finite(summary), indent=2)
        write_whole(self.folder / "summary.json", text + "\n")

    def keep(self, report: dict) -> dict:
        """Takes from a report what is not for the summary, and gives the rest.

        files (texts by file name) and large matrices are written at once, as <name>.npz. What is to be drawn waits for
        `draw`: figures (functions that give one), lines (lists of numbers by label, by the plot's name) and films
        (frames and how many a second, or why there are none).
        """
        for name, text in report.pop("files", {}).items():
            write_whole(self.folder / name, text)
        self.figures |= report.pop("figures", {})
        self.figures |= {name: partial(plots.lines, drawn) for name, drawn in report.pop("lines", {}).items()}
        self.films |= report.pop("films", {})
        return {name: self._listed(name, value) for name, value in report.items()}

    def _listed(self, name: str, value: object) -> object:
        """A matrix as lists; a large one as the name of the file that it goes to."""
        if not isinstance(value, numpy.ndarray):
            return value
        if value.size <= IN_SUMMARY:
            return value.tolist()
        numpy.savez_compressed(self.folder / f"{name}.npz", **{name: value})
        return f"{name}.npz"

    def draw(self, time: int, labels: Sequence[str] = ()) -> None:
        """All that waits for it, and the epochs' pictures as a strip and a film. What cannot be drawn ends no run.

        labels: the classes' names; those that no font has are numbers in the plots, and listed beside them.
        """
        self._try("classes.txt", partial(self._explain, labels))
        for name, figure in self.figures.items():
            self._try(f"{name}.png", partial(self._plot, name, figure, time))
        for name, frames in self.films.items():
            if isinstance(frames, str):
                self.say(f"no plots/{name}.gif: {frames}")
            else:
                self._try(f"{name}.gif", partial(self._animate, name, *frames))
        self._try("strips", partial(self._assemble_pictures, time))

    def _try(self, name: str, draw: Callable[[], None]) -> None:
        try:
            (self.folder / "plots").mkdir(exist_ok=True)
            draw()
        except Exception as error:  # whatever a drawing library raises: the results are worth more
            why = (str(error).splitlines() or [type(error).__name__])[0]
            self.say(f"no plots/{name}: {why}")

    def _explain(self, labels: Sequence[str]) -> None:
        if key := drawing.key(labels):
            path = self.folder / "plots" / "classes.txt"
            write_whole(path, key + "\n")
            self.say(f"no font here has the letters of all classes: the plots have numbers for them, see {path}")

    def _plot(self, name: str, figure: Callable[[], object], time: int) -> None:
        """plots/<name>.png, and among TensorBoard's pictures. Drawn once: savefig would twice."""
        from PIL import Image

        path = self.folder / "plots" / f"{name}.png"
        temporary = path.with_suffix(".tmp")  # that of an earlier end stays whole until this one is
        pixels = drawing.render(figure)
        Image.fromarray(pixels).save(temporary, "png", dpi=(110, 110))
        os.replace(temporary, path)
        self.tensorboard().add_image(f"plots/{name}", pixels, time, dataformats="HWC")

    def _animate(self, name: str, frames: list[numpy.ndarray], rate: float) -> None:
        """Pictures (H, W, 3) of bytes as plots/<name>.gif, so many a second; large ones at half their size."""
        from PIL import Image

        pictures = [Image.fromarray(frame) for frame in frames]
        pictures = [picture.reduce(2) if picture.width > 400 else picture for picture in pictures]
        video.write_gif(self.folder / "plots" / f"{name}.gif", pictures, round(1000 / rate))

    def _assemble_pictures(self, time: int) -> None:
        """plots/<name>_strip.png and plots/<name>.gif."""
        for name, strip in video.assemble(self.pictures, self.folder / "plots").items():
            self.tensorboard().add_image(f"plots/{name}_strip", video.pixels(strip), time, dataformats="HWC")

    def close(self) -> None:
        with ExitStack() as files:  # each of them, whatever becomes of the others
            for file in (self.log_file, self.metrics_file):
                if file is not None:
                    files.callback(file.close)
            self._close_board()

    def _close_board(self) -> None:
        if self.writer is not None:
            with suppress(OSError):  # its folder was removed, or the disk is full: `sync` says so where it matters
                self.writer.close()


class Silent:
    """In the place of a Run, for a process whose run another one writes down. Checkpoints can be read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoints, self.rows, self.num_rows = folder, Checkpoints(folder / "checkpoints"), [], 0
        self.id = ""

    def _nothing(self, *args: object, **keys: object) -> None: ...

    say = resume = read_back = go_back = log = sync = summarise = close = _nothing


def git_commit() -> str | None:
    """The commit of the working folder, with a plus where something in it is not committed.

    The folder may be a stranger's, and what its .git names is run by git: none of that. Where files go through programs
    of its own, there is no plus.
    """
    safe = ["git", "-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}"]
    kinds = r"^(filter\..*\.(clean|smudge|process)|submodule\..*|core\.worktree)$"
    runs = _said([*safe, "config", "--local", "--includes", "--name-only", "--get-regexp", kinds])
    dirty = [] if runs else ["--dirty=+"]
    return _said([*safe, "describe", "--always", "--abbrev=40", *dirty, "--exclude=*"])


def _said(command: list[str]) -> str | None:
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
