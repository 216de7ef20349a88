"""The plots of a run: figures, videos and the strips of preview images that it leaves in plots/."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.errors import first_line
from dlrun.output import figures, panels, plots, video
from dlrun.output.board import Board
from dlrun.output.report import Report
from dlrun.output.written import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlrun.data.base import Video


class PlotFiles:
    """plots/ in a run's folder. It keeps figures and videos until they are drawn. board: also shows the figures."""

    def __init__(self, run: Path, board: Board, print: Callable[[str], None]) -> None:
        self.folder, self.images, self.board, self.print = run / "plots", run / "images", board, print
        self.figures: dict[str, Callable[[], Figure]] = {}
        self.videos: dict[str, Callable[[], Video | str | None]] = {}

    def take(self, report: Report) -> None:
        """Keep the figures, lines and videos of a report."""
        self.figures |= report.figures
        self.figures |= {name: partial(plots.lines, series) for name, series in report.lines.items()}
        self.videos |= report.videos
        if report.rows:
            self.figures["rows"] = partial(panels.image_rows, report.rows)

    def write(self, global_step: int, labels: Sequence[str] = ()) -> None:
        """Write the figures and videos, and the epochs' preview images as a strip and an animation.

        labels: names of the classes. Names that no font can draw become numbers, explained in plots/classes.txt. A
        plot that fails is reported and skipped.
        """
        self._try("classes.txt", partial(self._write_key, labels))
        for name, figure in self.figures.items():
            self._try(f"{name}.png", partial(self._plot, name, figure, global_step))
        for name, record in self.videos.items():
            self._try(f"{name}.gif", partial(self._animate, name, record))
        self._try("strips", partial(self._draw_strips, global_step))

    def _animate(self, name: str, record: "Callable[[], Video | str | None]") -> None:
        frames = record()
        if isinstance(frames, str):
            self.print(f"no plots/{name}.gif: {frames}")
        elif frames:
            video.animate(self.folder / f"{name}.gif", *frames)

    def _try(self, name: str, draw: Callable[[], None]) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            draw()
        except Exception as error:  # drawing libraries raise anything, and must not cost the run its results
            reason = first_line(error)
            self.print(f"no plots/{name}: {reason}")

    def _write_key(self, labels: Sequence[str]) -> None:
        if key := figures.key(labels):
            path = self.folder / "classes.txt"
            write_whole(path, key + "\n")
            self.print(f"no installed font can draw the names of all classes: the plots show numbers, see {path}")

    def _plot(self, name: str, figure: "Callable[[], Figure]", global_step: int) -> None:
        """Write plots/<name>.png and the same pixels to TensorBoard. Rendered once; savefig would render again."""
        from PIL import Image

        path = self.folder / f"{name}.png"
        temporary = path.with_suffix(".tmp")  # the plot of an earlier session stays whole until it is replaced
        pixels = figures.render(figure)
        Image.fromarray(pixels).save(temporary, "png", dpi=(110, 110))
        os.replace(temporary, path)
        self.board.add_image(f"plots/{name}", path, global_step)

    def _draw_strips(self, global_step: int) -> None:
        """Write plots/<name>_strip.png and plots/<name>.gif from the epochs' preview images."""
        for name, strip in video.assemble(self.images, self.folder).items():
            self.board.add_image(f"plots/{name}_strip", strip, global_step)
