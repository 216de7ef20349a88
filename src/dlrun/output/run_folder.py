"""The folder of a run: its log, metrics, TensorBoard curves, plots, checkpoints and summary."""

import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TextIO

import numpy

from dlrun.errors import UserError, columns, counted, printable
from dlrun.output import video
from dlrun.output.as_json import as_json, finite, one_line
from dlrun.output.board import Board
from dlrun.output.checkpoints import Checkpoints
from dlrun.output.panels import ROWS
from dlrun.output.plot_files import PlotFiles
from dlrun.output.provenance import SECONDS, ChangesWriter, write_environment
from dlrun.output.report import Report
from dlrun.output.rows import parse_row
from dlrun.output.terminal import write
from dlrun.output.tracking import WAIT, Tracking
from dlrun.output.written import write_whole
from dlrun.overrides import pasteable
from dlrun.paths import read_whole

if TYPE_CHECKING:
    from torch import Tensor


WIDE = 10_000  # columns of a line that is not wrapped
IN_SUMMARY = 2500  # a matrix with more entries goes to a file of its own


class RunFolder:
    """Writes everything that a run leaves in its folder. Nothing is written before `print`, `log` or `resume`.

    axis: the column of the rows that is the x-axis of curves, "step" or "samples" (see Clock.global_step).
    before: the summary of the run that is resumed. rows: the epochs' rows of metrics; windows: the rows between them
    (trainer.log_every). id: random, ties the checkpoints to this run. out: where it prints; None: standard output.
    """

    def __init__(self, folder: Path, facts: dict, axis: str = "step", before: dict | None = None) -> None:
        self.folder, self.facts, self.axis, self.id = folder, facts, axis, token_hex(8)
        self.end = before if before and before.get("status") == "finished" else None
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.log_file: TextIO | None = None
        self.metrics_path = folder / "metrics.jsonl"
        self.metrics_file: TextIO | None = None
        self.num_rows = 0
        self.rows: list[dict[str, float]] = []
        self.windows: list[dict[str, float]] = []
        self.lines: list[bytes] = []
        self.board = Board(folder, axis, self.print)
        self.table: list[list[str]] = []  # of the reports, for the terminal
        self.started, self.is_stdout_open = time.time(), True
        self.out: TextIO | None = None
        self.images = folder / "images"
        self.unsynced: list[Path] = []
        self.plots = PlotFiles(folder, self.board, self.print)
        self.changes: ChangesWriter | None = None
        self.tracking: Tracking | None = None

    def print(self, text: str, fit: Callable[[int], str] | None = None) -> None:
        """Write text to the log and to `out` (above the progress bar), unless that is closed.

        fit: returns the text laid out for a number of columns, for a terminal.
        """
        text = printable(text)
        if self.log_file is None:
            path = self.folder / "run.log"
            self.log_file = open(path, "a", encoding="utf-8", errors="backslashreplace", buffering=1)
        self.log_file.write(text + "\n")
        out = self.out or sys.stdout
        if out is None or out.closed or not self.is_stdout_open:
            return
        if fit and (width := columns(out, WIDE)) < WIDE:
            text = printable(fit(width))
        bars = sys.modules["tqdm"].tqdm.external_write_mode(out) if "tqdm" in sys.modules else nullcontext()
        with bars:
            self.is_stdout_open = write(out, text + "\n")

    def resume(self, config: str | None, test: str) -> None:
        """Write a resumed run's first files. A finished run's tested weights are kept until it is tested again.

        config: the new text of config.yaml, if it may have changed. test: trainer.test. The summary is written before
        the config: a kill between the two must not leave a finished run with limits that it has not reached.
        """
        if self.end:
            self.checkpoints.keep_tested(self.end, test)
        self.write_summary("running")
        if config is not None:
            write_whole(self.folder / ".hydra" / "config.yaml", config)

    def note_changes(self, before: dict, changes: Mapping[str, tuple[object, object]], step: int) -> None:
        """Add to the summary the changes of a resume that change the bits. before: the summary as it was."""
        earlier = before.get("changes")
        noted = list(earlier) if isinstance(earlier, list) else []
        noted += [{"step": step, "key": key, "from": old, "to": new} for key, (old, new) in changes.items()]
        if noted:
            self.facts["changes"] = noted

    def read_back(self, num_rows: int) -> None:
        """Read the first `num_rows` rows of metrics.jsonl, which a checkpoint relies on. Writes nothing.

        Raises UserError if they are not all there.
        """
        content = read_whole(self.metrics_path) if self.metrics_path.exists() else b""
        lines = content.splitlines(keepends=True)[:num_rows]
        try:
            rows = [{k: math.nan if v is None else v for k, v in parse_row(line).items()} for line in lines]
            is_whole = all({"epoch", "step", self.axis} <= row.keys() for row in rows)
        except ValueError:
            is_whole = False
        if not is_whole or len(lines) < num_rows or any(not line.endswith(b"\n") for line in lines):
            raise UserError(
                f"{self.metrics_path} is damaged or was changed after the checkpoint: it has {len(lines)} of "
                f"{counted(num_rows, 'line')} that the checkpoint relies on\n  expected all of them, each whole\n"
                f"  restore it, or start a new run with {pasteable('init', self.checkpoints.folder / 'last.ckpt')}"
            )
        self.num_rows, self.lines, self.rows, self.windows = num_rows, lines, [], []
        for row in rows:
            self._list_for(row).append(row)

    def rewind(self, global_step: int, is_mid_epoch: bool) -> None:
        """Drop everything logged after a checkpoint; the resumed run will log it again, identically.

        TensorBoard purges points from a step on. For a checkpoint in mid-epoch that is the checkpoint's own step, as
        the epoch's row may have been logged there since; the row of the last steps is then drawn again.
        """
        write_whole(self.metrics_path, b"".join(self.lines).decode())
        self.board.rewind(global_step if is_mid_epoch else global_step + 1, self.windows + self.rows)
        epochs = {row["epoch"] for row in self.rows}
        for image in video.frame_paths(self.images):
            if video.epoch_of(image) not in epochs:
                image.unlink()
        self.checkpoints.forget_epochs({int(epoch) for epoch in epochs})

    def log(self, row: dict[str, float], global_step: int, images: "dict[str, Tensor] | None" = None) -> None:
        """Write a row of metrics to metrics.jsonl and TensorBoard.

        images: an epoch's preview images (C, H, W) in [0, 1], by name.
        """
        if self.metrics_file is None:
            self.metrics_file = open(self.metrics_path, "a", encoding="utf-8", buffering=1)
        self.metrics_file.write(one_line(row) + "\n")
        self.num_rows += 1
        self._list_for(row).append(row)
        self.board.add_scalars(row)
        for name, image in (images or {}).items():
            video.save_frame(path := video.frame_path(self.images, name, int(row["epoch"])), image)
            self.board.add_image(name, path, global_step)
            self.unsynced.append(path)

    def _list_for(self, row: dict[str, float]) -> list[dict[str, float]]:
        return self.windows if any(key.startswith("step/") for key in row) else self.rows

    def sync(self) -> None:
        """Flush everything logged so far to the disk, so that a checkpoint may rely on it."""
        if self.metrics_file is not None:
            os.fsync(self.metrics_file.fileno())
        for image in self.unsynced:
            with suppress(FileNotFoundError), open(image, "r+b") as file:  # the user may have removed it
                os.fsync(file.fileno())
        self.unsynced.clear()
        self.board.flush()

    def write_summary(self, status: str, **results: object) -> None:
        """Write summary.json: the run's facts, its status and results.

        If a finished run is resumed, its summary stays until it finishes again, with the new status under "resumed".
        """
        self.facts.update(results)
        summary = {"status": status, "id": self.id, **self.facts}
        if self.end and status != "finished":
            changes = {"changes": self.facts["changes"]} if "changes" in self.facts else {}
            summary = self.end | {"resumed": {"status": status, **results}} | changes
        text = as_json(finite(summary), indent=2)
        write_whole(self.folder / "summary.json", text + "\n")

    def write_provenance(self) -> None:
        """Write the packages of a new run, and the differences between the checkout and its commit."""
        commit = str(self.facts.get("git", ""))
        write_environment(self.folder, commit)
        if commit.endswith("+"):
            self.changes = ChangesWriter(self.folder)
            self.changes.start()

    def start_trackers(self, section: Mapping[str, Mapping[str, Any]]) -> None:
        """Start the processes that send to the trackers what this run writes from now on. section: `tracker`."""
        waits = {name: float(node.get("wait_seconds", WAIT)) for name, node in section.items()}
        self.tracking = Tracking(self.folder, waits)

    def write_report(self, report: Report) -> dict[str, object]:
        """Write the files of a report, and its large matrices as <name>.npz; return its other numbers.

        Its figures and videos are kept for `write_plots` (output/plot_files.py).
        """
        for name, text in report.files.items():
            write_whole(self.folder / name, text)
        self.plots.take(report)
        self.table = report.table or self.table
        if report.rows:
            numpy.savez_compressed(self.folder / ROWS, **dict[str, Any](report.rows))
        return {name: self._as_lists(name, value) for name, value in report.numbers.items()}

    def _as_lists(self, name: str, value: object) -> object:
        """A matrix as nested lists, or the name of the file that a large one is written to; other values unchanged."""
        if not isinstance(value, numpy.ndarray):
            return value
        if value.size <= IN_SUMMARY:
            return value.tolist()
        arrays: dict[str, Any] = {name: value}
        numpy.savez_compressed(self.folder / f"{name}.npz", **arrays)
        return f"{name}.npz"

    def write_plots(self, global_step: int, labels: Sequence[str] = ()) -> None:
        """Write plots/. labels: names of the classes."""
        self.plots.write(global_step, labels)

    def close(self) -> None:
        """Close the log, the metrics and TensorBoard's writer."""
        for line in self.tracking.close() if self.tracking else ():
            self.print(line)
        if self.changes is not None:
            self.changes.join(SECONDS)
        with ExitStack() as files:  # an error from one must not keep the others open
            for file in (self.log_file, self.metrics_file):
                if file is not None:
                    files.callback(file.close)
            self.board.close()


class NullFolder(RunFolder):
    """The folder of ranks other than 0: it writes nothing, but can read the checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoints, self.rows, self.num_rows = folder, Checkpoints(folder / "checkpoints"), [], 0
        self.id = ""

    def _nothing(self, *args: Any, **keys: Any) -> Any: ...

    print = resume = read_back = rewind = log = sync = write_summary = close = _nothing
    write_provenance = start_trackers = note_changes = _nothing
