"""Explain the predictions of a finished run for single inputs, in figures."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.config.saved import own_config, require_finished
from dlrun.data.walk import TEXT_SUFFIXES
from dlrun.errors import UserError, printable
from dlrun.runs.predict import Inputs, batches_of, encode
from dlrun.runs.records import free, write_figures
from dlrun.spec import Image, Tokens

if TYPE_CHECKING:
    from torch import Tensor

    from dlrun.train.finished import FinishedRun

LONGEST = 40  # most characters of a typed text in a file's name


def explain(folder: Path, inputs: list[str], is_fitted: bool, device: str | None, out: Path | None) -> Iterator[str]:
    """Write the figures of each input and yield their paths. Without inputs: of the first test sample.

    is_fitted: whether images of another size are resized. device: None for the run's own. out: None for
    `<run>/explained`. Raises UserError for a run of which there is nothing to draw.
    """
    require_finished(folder)
    own_config(folder)  # report its errors before torch is imported
    from dlrun.output.failures import within_memory
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder, {"trainer.device": device} if device else {})
        taken: dict[str, int] = {}
        if not isinstance(run.data.spec, Image | Tokens):
            raise nothing_to_draw(run)
        for name, x in _samples(run, inputs, is_fitted):
            figures = run.task.explain(x)
            if not figures:
                raise nothing_to_draw(run, name)
            stem = free(stem_of(name, isinstance(run.data.spec, Tokens)), taken)
            yield from write_figures(figures, out or folder / "explained", stem)


def stem_of(name: str, is_text: bool) -> str:
    """The start of the names of an input's figures: that of its file, or the first words of a text that was typed."""
    if not is_text or Path(name).suffix in TEXT_SUFFIXES:
        return Path(name).stem
    return re.sub(r"\W+", "_", name)[:LONGEST].strip("_") or "text"


def _samples(run: "FinishedRun", inputs: list[str], is_fitted: bool) -> Iterator[tuple[str, "Tensor"]]:
    """Yield (name, (1, *shape)); the first test sample is named test_0."""
    if inputs:
        way = "images" if "images" in run.task.accepts else "inputs"
        for names, raw in batches_of(run, Inputs(inputs, is_fitted)):
            yield from zip(names, encode(run, way, raw).split(1), strict=True)
        return
    data = run.load_data()
    if not data.size("test"):
        raise UserError(f"{run.folder}: its data has no test split\n  expected inputs: dl-runs explain RUN INPUT")
    x = next(iter(run.sample_data.batches("test")))[0]
    yield "test_0", x[:1]


def nothing_to_draw(run: "FinishedRun", name: str = "") -> UserError:
    """The error for a run that cannot be explained, or for an input (name) of one."""
    where = f"{run.folder}: nothing to draw{f' of {printable(name)}' if name else ''}"
    words = ", with words that the run knows" if isinstance(run.data.spec, Tokens) else ""
    return UserError(
        f"{where}: the run is of model={run.names.get('model')} on data={run.names.get('data')}\n"
        f"  expected a classifier of images, or a recurrent network of texts{words}"
    )
