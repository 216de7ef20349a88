"""Metrics of a finished run on its own data, on another data set, or on samples in memory."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from dlrun.api.frames import Frames, as_rows, with_targets
from dlrun.api.inputs import columns_of
from dlrun.api.memory import given, is_loader
from dlrun.api.samples import is_frame
from dlrun.config.build import build
from dlrun.data.arrays.arrays import ArraySet
from dlrun.errors import UserError
from dlrun.output.failures import within_memory
from dlrun.runs.evaluate import SPLITS, measure
from dlrun.spec import Columns

if TYPE_CHECKING:
    from dlrun.api.run import Run
    from dlrun.data.base import Data
    from dlrun.data.table.table_file import TableFile


def evaluate(run: "Run", split: str, words: Sequence[str], x: Any, y: Any) -> dict[str, float]:
    """Return the metrics by name. Raises UserError for a split or samples that do not fit the run."""
    if x is not None:
        if is_loader(x) or is_loader(y):
            raise UserError(
                "x is a loader\n  expected x=..., y=...: arrays or a frame; or x=..., a Dataset of (x, y), without y"
            )
        if words or split != "test":
            raise UserError("x, y: all of these samples are evaluated\n  expected no split and no data=...")
        data: Data = _of_samples(run, x, y)
        split = "all"
    elif split not in (*SPLITS, "train"):
        raise UserError(f"{split!r}: there is no such split\n  expected one of: train, {', '.join(SPLITS)}")
    elif run.memory and not words:
        data = run.finished.load_data(memory=run.memory)
    else:
        return measure(run.folder, split, list(words), None).metrics
    with within_memory():
        return run.finished.task.evaluate(data, split)


def _of_samples(run: "Run", x: Any, y: Any) -> "Data":
    """Return samples as a data set that is encoded like the run's."""
    finished = run.finished
    device = finished.device.torch_device
    section = dict(finished.config["data"])
    if isinstance(finished.data.spec, Columns):
        encoding, targets = finished.data.fitted(), finished.data.spec.target_names
        frame = as_rows(x, encoding["columns"])
        frame = frame if y is None else with_targets(frame, y, targets, "x")
        frame = finished.table_data.as_learned(frame)
        section |= {"source": Frames({"all": frame})} | dict.fromkeys(("file", "train", "val", "test"))
        table = cast("TableFile", build(section))
        table.load_like(encoding, device)
        return table
    if not isinstance(finished.data, ArraySet):
        raise UserError(
            f"x, y: this run learned from data={finished.names.get('data')}\n"
            '  expected other data of its kind: run.evaluate("test", "data=NAME"); or run.predict(x)'
        )
    if is_frame(x):
        x = columns_of(x, finished.data.spec)
    arrays = given(x, y, None, None, None, None).data["arrays"]
    fitted = finished.data.fitted()
    if "y" not in arrays and {"images", "latent"} <= {*finished.task.accepts}:  # an autoencoder: any targets will do
        labels, count = fitted["labels"], len(arrays["x"])
        arrays["y"] = np.repeat(labels[:1], count) if labels else np.zeros((count, len(fitted["target_means"])))
    data = cast(ArraySet, build(section | {"arrays": arrays} | dict.fromkeys(("file", "x", "y"))))
    data.load_like(fitted, device)
    return data
