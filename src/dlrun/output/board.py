"""TensorBoard's curves of a run."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.output import events
from dlrun.paths import read_whole

if TYPE_CHECKING:
    from torch import Tensor

SIDE = [1e-12 * 1.1**i for i in range(774)]
BINS = [*(-edge for edge in reversed(SIDE)), 0.0, *SIDE]  # of histograms, as TensorBoard has them


class Board:
    """The event files in <run>/tensorboard/, made on first use.

    axis: the column of the rows of metrics that is the x-axis. warn: prints a message for the user.
    """

    def __init__(self, run: Path, axis: str, warn: Callable[[str], None]) -> None:
        self.run, self.axis, self.warn = run, axis, warn
        self.file: events.EventFile | None = None
        self.purge_step: int | None = None
        self.purged: list[dict[str, float]] = []

    def rewind(self, step: int, rows: list[dict[str, float]]) -> None:
        """Make TensorBoard drop the points from a step on, and draw those of `rows` again."""
        self.purge_step, self.purged = step, [row for row in rows if row[self.axis] >= step]

    def writer(self) -> events.EventFile:
        """The file; a new one if the user has removed the folder."""
        if self.file is not None and not os.path.isdir(self.run / "tensorboard"):
            self.close()
            self.file = None
            self.warn("tensorboard/ was removed during the run: its curves start again here")
        if self.file is None:
            self.file = events.EventFile(self.run / "tensorboard", self.purge_step)
            config = self.run / ".hydra" / "config.yaml"
            if self.purge_step is None and config.exists():
                self.file.add(events.text("config", f"```yaml\n{read_whole(config).decode()}```"), 0)
            for row in self.purged:
                self.add_scalars(row)
        return self.file

    def add_scalars(self, row: dict[str, float]) -> None:
        """Draw a row's metrics and learning rates, without those that are not finite."""
        shown = {k: v for k, v in row.items() if abs(v) <= events.LARGEST and ("/" in k or k.endswith("lr"))}
        if shown:
            self.writer().add(events.scalars(shown), int(row[self.axis]))

    def add_image(self, name: str, path: Path, step: int) -> None:
        """Show a PNG file."""
        self.writer().add(events.image(name, path.read_bytes()), step)

    def add_images(self, name: str, images: "Tensor", step: int) -> None:
        """Show images (N, C, H, W) in [0, 1] as a grid."""
        from torch.utils.tensorboard.summary import image  # takes a third of a second

        self.writer().add(image(name, images, dataformats="NCHW"), step)

    def add_histogram(self, name: str, values: "Tensor", step: int, bins: "int | Sequence[float]" = BINS) -> None:
        """Show the distribution of finite numbers."""
        from torch.utils.tensorboard.summary import histogram

        self.writer().add(histogram(name, values, bins), step)

    def flush(self) -> None:
        """Write all points to the file, if there are any."""
        if self.file is not None:
            self.writer().flush()

    def close(self) -> None:
        if self.file is not None:
            with suppress(OSError):  # the folder was removed or the disk is full; `sync` reports it if it matters
                self.file.close()
