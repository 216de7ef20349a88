"""Predict from Python objects: arrays, paths, PIL images, texts, rows and frames."""

import sys
from collections.abc import Iterator
from itertools import islice
from os import PathLike
from os.path import expanduser
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dlrun.api.frames import as_polars, as_rows
from dlrun.api.images import as_file, is_image
from dlrun.api.samples import as_array, is_frame, refuse_masked
from dlrun.config.values import mismatch
from dlrun.errors import UserError, first_line
from dlrun.output.failures import within_memory
from dlrun.runs import input_rows
from dlrun.runs import inputs as files
from dlrun.runs.predict import WAYS, decoding_of, kind
from dlrun.runs.records import flat
from dlrun.runs.records import outputs as records
from dlrun.spec import Columns, Image, Mask, Table, Tokens
from dlrun.train.finished import FinishedRun
from dlrun.types import RunSeed


def predict(
    run: FinishedRun, x: Any, fit: bool, samples: int | None, episodes: int | None, seed: int
) -> pl.DataFrame | np.ndarray:
    """Return a frame with a row per input, or an array of images or masks. Raises UserError for wrong inputs."""
    takes = run.task.accepts
    if expected := mismatch(int(seed) if _is_integer(seed) else seed, RunSeed):
        raise UserError(f"seed={seed!r}: expected {expected}")
    used = {"inputs": x is not None, "latent": samples is not None, "episodes": episodes is not None}
    ways = [name for name, is_used in used.items() if is_used]
    expected = " or ".join(kind(run.data.spec) if name == "inputs" else WAYS[name] for name in takes)
    way = "images" if ways == ["inputs"] and "images" in takes else ways[0] if len(ways) == 1 else None
    if way not in takes:
        given = {"x": x, "samples": samples, "episodes": episodes}
        named = [f"{name}={'...' if name == 'x' else value}" for name, value in given.items() if value is not None]
        raise UserError(f"{', '.join(named) or 'nothing'} to predict from: this run takes {expected}")
    with within_memory():
        if episodes is not None:
            if not _is_integer(episodes) or episodes < 1:
                raise UserError(f"episodes={episodes!r}: expected an integer >= 1")
            played = run.task.play(run.data, episodes, seed)
            return pl.DataFrame([{"episode": i, "return": r, "length": n} for i, (r, n) in enumerate(played)])
        names: list[str] = []
        if samples is not None:
            predicted = _sampled(run, samples, seed)
        else:
            parts = list(_predicted(run, x, fit))
            names, predicted = [name for part, _ in parts for name in part], torch.cat([out for _, out in parts])
        if isinstance(run.data.spec, Mask):
            return predicted.argmax(1).numpy()
        if predicted.dim() == 4:
            return predicted.numpy()
        frame = pl.DataFrame([flat(record) for record in records(run, predicted)], strict=False)
        return frame.insert_column(0, pl.Series("input", names)) if names else frame


def outputs(run: FinishedRun, x: Any, fit: bool) -> np.ndarray:
    """Return probabilities, real outputs or images. Raises UserError for wrong inputs."""
    if "inputs" not in run.task.accepts and "images" not in run.task.accepts:
        raise UserError(f"this run does not take inputs\n  expected run.predict with {WAYS[run.task.accepts[0]]}")
    with within_memory():
        return torch.cat([out for _, out in _predicted(run, x, fit)]).numpy()


def _is_integer(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _sampled(run: FinishedRun, samples: int, seed: int) -> Tensor:
    from dlrun.seeds import generator

    if not _is_integer(samples) or samples < 1:
        raise UserError(f"samples={samples!r}: expected an integer >= 1")
    device, size = run.device.torch_device, run.sample_data.eval_batch_size
    z = torch.randn(samples, cast(int, run.task.net.latent), generator=generator(device, 0, seed), device=device)
    return torch.cat([run.task.predict(part).cpu() for part in z.split(size)])


def _predicted(run: FinishedRun, x: Any, fit: bool) -> Iterator[tuple[list[str], Tensor]]:
    """Yield (names, predictions) in batches; no names of inputs that are not from files."""
    way, size = run.task.accepts[0], run.sample_data.eval_batch_size
    batches, count = _encoded(run, x, fit), 0
    for names, encoded in batches:
        for i, part in enumerate(encoded.split(size)):
            predicted = run.task.predict(part if way != "images" else _rescaled(run, part)).cpu()
            yield names[i * size : (i + 1) * size], predicted
            count += len(part)
    if not count:
        raise UserError(f"no inputs\n  expected {kind(run.data.spec)}")


def _rescaled(run: FinishedRun, x: Tensor) -> Tensor:
    from dlrun.tasks.images import rescaled

    return next(rescaled(iter([(x, x)]), run.sample_data, 0.0, 1.0))[0]


def _encoded(run: FinishedRun, x: Any, fit: bool) -> Iterator[tuple[list[str], Tensor]]:
    """Yield (names, encoded inputs (B, *spec.shape)); no names of inputs that are not from files."""
    spec, data = run.data.spec, run.sample_data
    if isinstance(spec, Columns):
        yield _rows_of_table(run, x)
    elif isinstance(spec, Tokens):
        expected = "a text, a list of texts, or a Path of a .txt or .csv file"
        names: list[str] = []
        if isinstance(x, PathLike):
            pairs = list(files.texts_as_trained([expanduser(x)], run.config["data"]))
            names, texts = [name for name, _ in pairs], [text for _, text in pairs]
        else:
            texts = [x] if isinstance(x, str) else _several(x, "text", expected)
        for text in texts:
            if not isinstance(text, str):
                raise UserError(f"{text!r} is not text\n  expected {expected}")
        if texts:
            yield names, data.encode(texts)
    elif isinstance(spec, Image | Mask) and not _is_array(x):
        yield from _images(run, x, fit)
    elif isinstance(x, str | PathLike):
        rows = input_rows.rows([expanduser(x)], cast(Table, spec))
        while batch := list(islice(rows, data.eval_batch_size)):
            yield [name for name, _ in batch], data.encode(np.array([row for _, row in batch]))
    else:
        yield [], data.encode(_array(run, x))


def _several(x: Any, what: str, expected: str) -> list:
    try:
        return list(x)
    except TypeError:
        raise UserError(f"{x!r} is not {what}\n  expected {expected}") from None


def _is_array(x: object) -> bool:
    return isinstance(x, np.ndarray | Tensor) or isinstance(x, list | tuple) and len(x) > 0 and _is_array(x[0])


def _array(run: FinishedRun, x: Any) -> Tensor:
    """Return samples as a tensor (N, ...) as they are stored; a single sample becomes a batch of one."""
    spec, shape = run.data.spec, tuple(getattr(run.data, "stored", run.data.spec.shape))
    if type(x).__module__.split(".")[0] in ("polars", "pandas"):
        x = columns_of(x, spec) if is_frame(x) else as_array("x", x, _expected(shape))
    refuse_masked("x", x)
    x = as_array("x", x, _expected(shape)) if getattr(getattr(x, "dtype", None), "kind", "") == "O" else x
    try:
        array = (
            torch.stack([torch.as_tensor(each) for each in x]) if isinstance(x, list | tuple) else torch.as_tensor(x)
        )
        array = array.detach().cpu()
    except (ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"x: {first_line(error)}\n  expected {_expected(shape)}") from None
    if array.is_complex():
        raise UserError(f"x holds complex numbers\n  expected {_expected(shape)}, real numbers")
    if isinstance(spec, Image | Mask):
        if array.dtype != torch.uint8:
            raise UserError(f"x holds {_dtype(array)}\n  expected pixels as they are stored: uint8, {_expected(shape)}")
        array = _channels_first(array, shape)
    if array.dim() == len(shape):
        array = array[None]
    if tuple(array.shape[1:]) != shape:
        raise UserError(f"x has the shape {tuple(array.shape)}\n  expected {_expected(shape)}")
    if array.is_floating_point() and not bool(array.isfinite().all()):
        raise UserError(f"x holds a number that is not finite\n  expected {_expected(shape)}, finite numbers")
    return array


def _channels_first(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Return images (N, C, H, W) from (N, H, W, C) or (H, W, C), or with one channel from (N, H, W) or (H, W)."""
    channels, height, width = shape
    if tuple(x.shape[-3:]) == shape:
        return x
    if tuple(x.shape[-3:]) == (height, width, channels):
        return x.movedim(-1, -3).contiguous()
    return x.unsqueeze(-3) if channels == 1 and tuple(x.shape[-2:]) == (height, width) else x


def _dtype(x: Tensor) -> str:
    return str(x.dtype).removeprefix("torch.")


def _expected(shape: tuple[int, ...]) -> str:
    return f"(N, {', '.join(map(str, shape))}), or one sample"


def columns_of(frame: Any, spec: object) -> np.ndarray:
    """Return the columns of a frame that a run of rows of numbers takes, (N, columns)."""
    if not isinstance(spec, Table):
        raise UserError("x is a frame\n  expected an array: the run does not learn from rows")
    rows = as_polars(frame)
    names = [name for name in spec.names if name not in rows.columns]
    if names:
        raise UserError(f"there is no column {', '.join(names)}\n  expected {', '.join(spec.names)}")
    return (rows.select(spec.names) if spec.names else rows).to_numpy()


def _rows_of_table(run: FinishedRun, x: Any) -> tuple[list[str], Tensor]:
    """Return names and encoded rows: of a frame, dictionaries or an array in memory, or of a file."""
    data, names = run.table_data, list[str]()
    if isinstance(x, str | PathLike):
        rows, encoded, notes = data.read(Path(expanduser(x)))
        names = [f"row {i}" for i in range(1, len(rows) + 1)]
    else:
        frame = data.as_learned(as_rows(x, data.fitted()["columns"]))
        encoded, notes = data.encoded(frame, lambda row: f"x, row {row + 1}")
    for column, note in notes.items():
        sys.stderr.write(f"{column}: {note}\n")
    return names, encoded


def _images(run: FinishedRun, x: Any, fit: bool) -> Iterator[tuple[list[str], Tensor]]:
    """Decode images from paths, folders and PIL images as in training."""
    shape, how, decoding = decoding_of(run, fit)
    expected = "paths, PIL images, or an array of uint8"
    form = getattr(run.data, "form", files.ListFormat())
    decoded: list[tuple[str, Tensor]] = []
    is_stored = False
    is_one = isinstance(x, str | PathLike) or is_image(x)
    for i, each in enumerate([x] if is_one else _several(x, "an image", expected)):
        if isinstance(each, str | PathLike):
            decoded += files.images([expanduser(each)], shape, how, decoding, form)
            is_stored = True
        elif is_image(each):
            name = f"image {i}"
            decoded.append((name, files.decoded(name, as_file(each), shape, how, decoding)))
        else:
            raise UserError(f"{each!r} is not an image\n  expected {expected}")
    if decoded:
        names = [name for name, _ in decoded] if is_stored else []
        yield names, run.sample_data.encode(torch.stack([image for _, image in decoded]))
