"""Predict with a finished run: outputs for inputs, samples from codes, or episodes in its environment."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dlrun.config.saved import own_config, require_finished
from dlrun.config.values import mismatch
from dlrun.errors import UserError
from dlrun.output.as_json import as_json, finite
from dlrun.output.folders import require_plain
from dlrun.runs.records import as_csv, beside, flat, outputs, write_images, write_lines
from dlrun.spec import Columns, Image, Mask, Series, Spec, Table, Tokens
from dlrun.types import Index, Size

if TYPE_CHECKING:
    from torch import Tensor

    from dlrun.data.series.series_file import SeriesFile
    from dlrun.runs.inputs import Decoding
    from dlrun.train.finished import FinishedRun

WAYS = {
    "inputs": "inputs (images, texts or rows)",
    "images": "images",
    "latent": "--samples N, or --latent FILE with codes",
    "episodes": "--episodes N",
}


@dataclass(frozen=True)
class Inputs:
    """The inputs to predict from, as given on the command line: `inputs`, `samples` or `latent`, or `episodes`.

    inputs: images, folders, texts, rows or files of them; fit: resize images, and convert their channels. samples: a
    number of codes to draw; latent: a file of codes. seed: of the codes or the episodes' starts.
    """

    inputs: list[str]
    fit: bool = False
    samples: int | None = None
    latent: str | None = None
    episodes: int | None = None
    seed: int = 0


def predict(folder: Path, query: Inputs, device: str | None, out: Path | None, csv: bool) -> Iterator[str]:
    """Yield lines of JSON or CSV, or one line about the file with them. Raises UserError for wrong inputs.

    device: null for the run's own. out: the file for the lines, or the folder for images.
    """
    for name in ("samples", "episodes"):
        if (count := getattr(query, name)) is not None and (expected := mismatch(count, Size)):
            raise UserError(f"--{name} {count}: expected {expected}")
    if expected := mismatch(query.seed, Index):
        raise UserError(f"--seed {query.seed}: expected {expected}")
    require_finished(folder)
    own_config(folder)  # report its errors before torch is imported
    from dlrun.output.failures import within_memory
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder, {"trainer.device": device} if device else {})
        if not (query.inputs or query.samples or query.latent or query.episodes) and "latent" in run.task.accepts:
            query = replace(query, samples=run.task.num_samples)  # as many as the task draws
        way = _way(run, query)
        spec = run.data.spec
        makes_images = isinstance(spec, Mask) or way == "images" or way == "latent" and len(spec.shape) == 3
        records = map(finite, _records(run, way, query, csv, out if makes_images else None))
        # a table is written as the run's was, so that it can be predicted from again
        form = run.table_data.form if csv and isinstance(spec, Columns) else None
        separator, has_head = (form.separator or ",", form.header) if form else (",", True)
        lines = as_csv(records, separator, has_head) if csv else map(as_json, records)
        if out and not makes_images:
            yield write_lines(lines, out, csv and has_head, form.encoding if form else "utf-8")
        else:
            yield from lines


def _way(run: "FinishedRun", query: Inputs) -> str:
    """Return the kind of input among WAYS that the user gave. Raises UserError unless it is one that the run takes."""
    sources = {"episodes": query.episodes, "latent": query.samples or query.latent, "inputs": query.inputs}
    used = [name for name, value in sources.items() if value]
    takes = run.task.accepts
    expected = " or ".join(kind(run.data.spec) if name == "inputs" else WAYS[name] for name in takes)
    if len(used) != 1 or query.samples and query.latent:
        problem = "no inputs to predict from" if not used else "several kinds of inputs"
        raise UserError(f"{problem}\n  this run ({run.names.get('model')}) takes {expected}")
    way = "images" if used == ["inputs"] and "images" in takes else used[0]
    if way not in takes:
        raise UserError(f"{WAYS[way]}: this run ({run.names.get('model')}) does not take them\n  expected {expected}")
    return way


def kind(spec: Spec) -> str:
    """Name the kind of a run's inputs."""
    if isinstance(spec, Image | Mask):
        return "images"
    if isinstance(spec, Columns):
        return "files of rows, with the columns of the run"
    if isinstance(spec, Series):
        return "files of series, of the run's kind"
    return "texts" if isinstance(spec, Tokens) else "rows of numbers"


def _records(run: "FinishedRun", way: str, query: Inputs, is_flat: bool, out: Path | None) -> Iterator[dict]:
    """Yield a record per prediction. out: the folder for images; None: `predictions` in the run's folder.

    is_flat: records of rows of a table are not nested.
    """
    if way == "episodes" and query.episodes:
        for i, (total, length) in enumerate(run.task.play(run.data, query.episodes, query.seed)):
            yield {"episode": i, "return": total, "length": length}
        return
    if isinstance(run.data.spec, Columns):
        yield from _table_records(run, query.inputs, is_flat)
        return
    if way == "latent":
        batches = _codes(run, query)
    else:
        batches = ((names, encode(run, way, values), {}) for names, values in batches_of(run, query))
    folder = out or run.folder / "predictions"
    if out is None:
        require_plain(run.folder)
    taken: dict[str, int] = {}
    for names, x, more in batches:
        predicted = run.task.predict(x).cpu()
        if isinstance(run.data.spec, Mask):  # written as a grey image whose values are the classes
            predicted = predicted.argmax(1, keepdim=True) / 255
        if predicted.dim() == 4:
            yield from write_images(names, predicted, folder, taken, more)
        else:
            yield from (
                {"input": name} | each | more for name, each in zip(names, outputs(run, predicted), strict=True)
            )


def _table_records(run: "FinishedRun", files: list[str], is_flat: bool) -> Iterator[dict]:
    """Yield a record per row of a table: the row as it is written, then its prediction, which replaces no column."""
    from dlrun.runs import input_rows

    data = run.table_data
    size = data.eval_batch_size
    for name, frame, x in input_rows.tables(files, data):
        where = f"{name}, row " if len(files) > 1 else "row "
        kept, names = frame.columns, list[str]()
        for first in range(0, len(x), size):
            rows = frame[first : first + size].iter_rows(named=True)
            predicted = run.task.predict(x[first : first + size]).cpu()
            for number, (row, each) in enumerate(zip(rows, outputs(run, predicted), strict=True), first + 1):
                record = {"input": f"{where}{number}", **each}
                if not names:
                    count = len(flat(record))
                    kept = beside(frame.columns, list(flat(record)))[0]  # without predictions that a CSV has already
                    if not data.form.header and str(frame[0, max(0, frame.width - count)]).endswith("row 1"):
                        kept = frame.columns[:-count]  # columns without names: the first of a prediction names its row
                    names = beside(kept, list(flat(record) if is_flat else record))[1]
                record = flat(record) if is_flat else record
                yield {name: row[name] for name in kept} | dict(zip(names, record.values(), strict=True))


def encode(run: "FinishedRun", way: str, raw: object) -> "Tensor":
    """Encode raw inputs for `predict`. way: "inputs", or "images" for images in [0, 1]."""
    from dlrun.tasks.images import rescaled

    data = run.sample_data
    x = data.encode(raw)
    return next(rescaled(iter([(x, x)]), data, 0.0, 1.0))[0] if way == "images" else x


def batches_of(run: "FinishedRun", query: Inputs) -> Iterator[tuple[list[str], object]]:
    """Yield (names, raw inputs) in batches of the size used for evaluation."""
    from dlrun.runs.input_rows import STDIN

    pairs, join = _read(run, query)
    count = 0
    while batch := list(islice(pairs, run.sample_data.eval_batch_size)):
        yield [name for name, _ in batch], join([value for _, value in batch])
        count += len(batch)
    if not count:
        where = ", ".join("standard input" if text == STDIN else text for text in query.inputs)
        raise UserError(f"{where}: no inputs\n  expected {kind(run.data.spec)}")


def _read(run: "FinishedRun", query: Inputs) -> tuple[Iterator[tuple[str, object]], Callable[[list], object]]:
    """Return an iterator over (name, raw input), and the function that joins raw inputs to a batch."""
    import numpy as np
    import torch

    from dlrun.data.arrays.arrays import ArraySet
    from dlrun.runs import input_rows, inputs

    data, spec = run.data, run.data.spec
    is_array = all(text.lower().endswith(input_rows.ARRAYS) for text in query.inputs)
    if isinstance(data, ArraySet) and (is_array or isinstance(spec, Series)):
        return input_rows.arrays(query.inputs, data), np.stack
    if isinstance(spec, Series):
        return input_rows.series(query.inputs, cast("SeriesFile", data)), torch.stack
    if isinstance(spec, Image | Mask):
        shape, fit, decoding = decoding_of(run, query.fit)
        form = getattr(data, "form", inputs.ListFormat())
        return inputs.images(query.inputs, shape, fit, decoding, form), torch.stack
    if isinstance(spec, Tokens):
        return inputs.texts_as_trained(query.inputs, run.config["data"]), list
    return input_rows.rows(query.inputs, cast(Table, spec)), np.array  # no other samples are inputs of a network


def decoding_of(run: "FinishedRun", is_fitted: bool) -> "tuple[tuple[int, int, int], str | None, Decoding]":
    """Return the shape to which images are decoded, how they are resized (None: not at all), and further arguments.

    is_fitted: whether images of another size are resized where training did not.
    """
    from dlrun.runs import inputs

    data, config = run.data, run.config["data"]
    fit = getattr(data, "fit", "cover" if is_fitted else None)
    most = config.get("max_pixels") or inputs.MAX_PIXELS
    shape = getattr(data, "stored", cast(Image, data.spec).shape)
    return shape, fit, inputs.Decoding(most, getattr(data, "levels", None))


def _codes(run: "FinishedRun", query: Inputs) -> Iterator[tuple[list[str], "Tensor", dict]]:
    """Yield (names, codes (B, latent), extra fields), drawn with the seed or read from a file."""
    import torch

    from dlrun.runs import input_rows
    from dlrun.seeds import generator

    device, size = run.device.torch_device, run.sample_data.eval_batch_size
    latent = cast(int, run.task.net.latent)
    if query.samples:
        z = torch.randn(query.samples, latent, generator=generator(device, 0, query.seed), device=device)
        for first in range(0, len(z), size):
            batch = z[first : first + size]
            yield [f"sample_{first + i}_of_seed_{query.seed}" for i in range(len(batch))], batch, {"seed": query.seed}
        return
    codes, count = input_rows.rows([cast(str, query.latent)], Table(latent)), 0
    while rows := [row for _, row in islice(codes, size)]:
        yield [f"code_{count + i}" for i in range(len(rows))], torch.tensor(rows, device=device), {}
        count += len(rows)
    if not count:
        raise UserError(f"--latent {query.latent}: it has no codes\n  expected rows of {latent} numbers")
