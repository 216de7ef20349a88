"""TensorBoard's curves of a run."""

import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dlrun.paths import read_whole

if TYPE_CHECKING:
    from torch.utils.tensorboard import FileWriter, SummaryWriter


class Board:
    """The event files in <run>/tensorboard/, made on first use, because that takes a third of a second.

    axis: the column of the rows of metrics that is the x-axis. warn: prints a message for the user.
    """

    def __init__(self, run: Path, axis: str, warn: Callable[[str], None]) -> None:
        self.run, self.axis, self.warn = run, axis, warn
        self.events: SummaryWriter | None = None
        self.purge_step: int | None = None
        self.purged: list[dict[str, float]] = []

    def rewind(self, step: int, rows: list[dict[str, float]]) -> None:
        """Have TensorBoard drop the points from a step on. Those of `rows` are drawn again."""
        self.purge_step, self.purged = step, [row for row in rows if row[self.axis] >= step]

    def writer(self) -> "SummaryWriter":
        """The writer of the files; new ones if the user has removed the folder."""
        if self.events is not None and not os.path.isdir(self.run / "tensorboard"):
            self.close()
            self.events = None
            self.warn("tensorboard/ was removed during the run: its curves start again here")
        if self.events is None:
            from torch.utils.tensorboard import SummaryWriter

            self.events = SummaryWriter(str(self.run / "tensorboard"), purge_step=self.purge_step)
            config = self.run / ".hydra" / "config.yaml"
            if self.purge_step is None and config.exists():
                self.events.add_text("config", f"```yaml\n{read_whole(config).decode()}```")
            for row in self.purged:
                self.add_scalars(row)
        return self.events

    def add_scalars(self, row: dict[str, float]) -> None:
        """Draw a row's metrics and learning rates, without those that are not finite."""
        shown = {k: v for k, v in row.items() if math.isfinite(v) and ("/" in k or k.endswith("lr"))}
        if shown:  # as one event: writing many takes longer than small networks train
            from tensorboard.compat.proto.summary_pb2 import Summary

            values = [Summary.Value(tag=name, simple_value=value) for name, value in shown.items()]
            file = cast("FileWriter", self.writer().file_writer)  # made with the writer
            file.add_summary(Summary(value=values), int(row[self.axis]))

    def flush(self) -> None:
        """Write all points to the files, if there are any."""
        if self.events is not None:
            self.writer().flush()

    def close(self) -> None:
        if self.events is not None:
            with suppress(OSError):  # the folder was removed or the disk is full; `sync` reports it if it matters
                self.events.close()
