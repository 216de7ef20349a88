"""Samples in the memory of a program: arrays, tensors, frames or a torch Dataset, as values of the data section.

The run's folder does not hold them. It notes that they were in memory, and a digest of them; a resume must bring the
same ones.
"""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from dlrun.api.pictures import is_picture, pixels
from dlrun.errors import DataError, UserError, counted, first_line, own_code
from dlrun.overrides import quoted

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pandas
    import polars
    from torch import Tensor
    from torch.utils.data import Dataset

    Samples: TypeAlias = (
        np.ndarray | Tensor | polars.DataFrame | polars.Series | pandas.DataFrame | pandas.Series
        | Dataset[Any] | list[Any] | str | None
    )  # fmt: skip
else:
    Samples = Any

FRAMES, STREAMS = "dlrun.data.readers.frames.memory", "dlrun.data.readers.streams.memory"
IN_MEMORY = (FRAMES, STREAMS)  # readers of what only a program has
TARGET = "target"  # the column of targets that are given beside a frame without a name


class Given(NamedTuple):
    """words: that choose the kind of data. data: values for keys of the data section."""

    words: list[str]
    data: dict[str, Any]


def given(x: Samples, y: Samples, x_val: Samples, y_val: Samples, x_test: Samples, y_test: Samples) -> Given:
    """Return the words and values of the data section for these samples; none without samples.

    Raises UserError if x and y differ in length or are no samples.
    """
    pairs = {"train": (x, y), "val": (x_val, y_val), "test": (x_test, y_test)}
    parts = {split: pair for split, pair in pairs.items() if pair[0] is not None or pair[1] is not None}
    if not parts:
        return Given([], {})
    if x is None:
        raise UserError(f"{', '.join(parts)} without x\n  expected x=..., the samples to train on")
    if _is_frame(x):
        return _frames(parts)
    if _is_loader(x):
        return _loaders(parts)
    arrays: dict[str, np.ndarray] = {}
    for split, (inputs, targets) in parts.items():
        end = "" if split == "train" and len(parts) == 1 else f"_{split}"
        arrays |= {f"{name}{end}": array for name, array in _arrays(split, inputs, targets).items()}
    return Given(["data=arrays", "data.arrays=memory"], {"arrays": arrays})


def refuse_other_kind(samples: Given, section: object, folder: "Path", names: Mapping[str, str]) -> None:
    """Raise UserError unless a run was trained on samples in memory of this kind.

    section, names: the data section of its config, and the chosen option of each group.
    """
    section = section if isinstance(section, dict) else {}
    source = section.get("source")
    from_memory = section.get("arrays") == "memory" or isinstance(source, dict) and source.get("_target_") in IN_MEMORY
    if not from_memory:
        raise UserError(
            f"x: the run in {folder} was trained on data={names.get('data')}, not on samples in memory\n"
            "  expected dlrun.resume(run) without samples; dlrun.train(..., x=x) starts a new run"
        )
    kinds = {"data=arrays": "arrays or a Dataset", "data=table": "a frame", "data=stream": "loaders"}
    trained = f"data={names.get('data')}"
    if samples.words[0] != trained:
        raise UserError(
            f"x: the run in {folder} was trained on {kinds.get(trained, trained)}\n"
            f"  expected the same samples, not {kinds[samples.words[0]]}"
        )


def _arrays(split: str, x: Any, y: Any) -> "dict[str, np.ndarray]":
    """Return the arrays of a split."""
    if _is_dataset(x):
        x, y = _stacked(x, y)
    elif isinstance(x, list | tuple) and any(map(is_picture, x)):
        x = [pixels(f"x[{i}]", each) if is_picture(each) else each for i, each in enumerate(x)]
    pair = {"x": _array("x", x)} | ({} if y is None else {"y": _array("y", y)})
    lengths = {name: len(array) for name, array in pair.items()}
    if len(set(lengths.values())) > 1:
        raise _uneven(split, lengths["x"], lengths["y"])
    return pair


def _uneven(split: str, samples: int, targets: int) -> UserError:
    return UserError(
        f"{split}: x has {counted(samples, 'sample')}, y has {counted(targets, 'target')}\n"
        "  expected as many targets as samples"
    )


def as_array(name: str, value: Any, expected: str) -> "np.ndarray":
    """Return an array or a tensor, of any device, as a NumPy array. Raises UserError if it holds no values.

    name: of the value, and expected: what else it should be, for the message.
    """
    import numpy as np

    refuse_masked(name, value)
    try:
        if callable(getattr(value, "detach", None)):  # a tensor
            value = value.detach().cpu()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:  # NotImplementedError, too: the meta device holds no values
        raise UserError(f"{name}: {first_line(error)}\n  expected {expected}") from None


def refuse_masked(name: str, value: Any) -> None:
    """Raise UserError for a masked array, or a list of them: masked values must not be learned from."""
    import numpy as np

    parts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part) for part in parts):
        raise UserError(
            f"{name}: a masked array has no values where it is masked\n"
            "  expected an array with all values: x.filled(0), or the samples that have them"
        )


def _array(name: str, value: Any) -> "np.ndarray":
    import numpy as np

    array = as_array(name, value, "an array (N, ...), each of one shape")
    if array.dtype.kind == "O":
        texts = [each for each in array.flat if not isinstance(each, str)]
        if texts or array.ndim != 1:
            kind = type(texts[0] if texts else array).__name__
            raise UserError(f"{name} holds a {kind}\n  expected numbers, all samples of one shape; or texts as classes")
        array = array.astype(np.str_)
    if array.ndim == 0 or not len(array):
        raise UserError(f"{name}={value!r}: no samples\n  expected an array (N, ...)")
    return array


def _is_dataset(x: object) -> bool:
    """Whether it is a map-style torch Dataset: its items are pairs. Only a program that imported torch has one."""
    data = sys.modules.get("torch.utils.data")
    return data is not None and isinstance(x, data.Dataset)


def _stacked(x: Any, y: Any) -> tuple[Any, Any]:
    """Read all items of a Dataset. Raises UserError unless they are (x, y) of one shape each."""
    import numpy as np

    kind = type(x).__name__
    if y is not None:
        raise UserError(f"x is a {kind}, whose items are (x, y), and y is given\n  expected only one of the two")
    if not hasattr(x, "__len__") or not hasattr(x, "__getitem__"):
        raise UserError(
            f"{kind} has no length: it is a stream\n  expected a Dataset with __len__ and __getitem__; "
            "or a DataLoader of it, with x_val=..."
        )
    inputs, targets = [], []
    with own_code(f"len() of {kind}", "its number of items"):
        count = len(x)
    for i in range(count):
        with own_code(f"{kind}[{i}]", "a pair (x, y)"):
            item = x[i]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise DataError(f"{kind}[{i}] is {_short(item)}\n  expected a pair (x, y)")
        inputs.append(_item(kind, i, "x", item[0]))
        targets.append(_item(kind, i, "y", item[1]))
        for name, values in (("x", inputs), ("y", targets)):
            if values[-1].shape != values[0].shape:
                raise DataError(
                    f"{kind}[{i}]: {name} has the shape {values[-1].shape}, that of the first item {values[0].shape}\n"
                    "  expected one shape"
                )
    if not inputs:
        raise DataError(f"{kind} has no items\n  expected samples")
    return np.stack(inputs), np.stack(targets)


def _item(kind: str, i: int, name: str, value: Any) -> "np.ndarray":
    if name == "x" and is_picture(value):
        return pixels(f"{kind}[{i}]: x", value)
    array = as_array(f"{kind}[{i}]: {name}", value, "numbers: an array, a tensor or an image")
    if array.dtype.kind not in "biufU":
        raise DataError(f"{kind}[{i}]: {name} is {_short(value)}\n  expected numbers: an array, a tensor or an image")
    return array


def _short(value: object) -> str:
    text = repr(value)
    return f"a {type(value).__name__}: {text if len(text) <= 60 else text[:57] + '...'}"


def _is_loader(x: object) -> bool:
    """Whether it yields batches by itself: a DataLoader of torch or torchdata, or a pipeline that says so."""
    return hasattr(x, "__iter__") and hasattr(x, "batch_size") and not hasattr(x, "shape")


def _loaders(parts: dict[str, tuple[Any, Any]]) -> Given:
    if any(y is not None for _, y in parts.values()) or "val" not in parts:
        raise UserError(
            "x is a loader, which yields (x, y)\n"
            "  expected x=..., x_val=... and perhaps x_test=..., loaders too, and no y"
        )
    source = {split: loader for split, (loader, _) in parts.items()}
    return Given(["data=stream", f"data.source={{_target_: {STREAMS}}}"], {"source": lambda: source})


def _is_frame(x: object) -> bool:
    return type(x).__module__.split(".")[0] in ("polars", "pandas") and type(x).__name__ in ("DataFrame", "LazyFrame")


def as_polars(frame: Any) -> "polars.DataFrame":
    """Return a frame of polars or pandas as one of polars, a lazy one collected; NaN of pandas is a missing value."""
    import polars as pl

    if isinstance(frame, pl.DataFrame):
        return frame
    if not _is_frame(frame):
        raise UserError(f"{_short(frame)}: expected a frame of polars or pandas")
    if isinstance(frame, pl.LazyFrame):
        with own_code("the LazyFrame", "one that can be collected"):
            return frame.collect()
    names = [str(name) for name in frame.columns]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"the frame has two columns {twice!r}\n  expected names that differ")
    columns = {str(name): [None if _is_gap(each) else each for each in frame[name].tolist()] for name in frame.columns}
    return pl.DataFrame(columns, strict=False)


def _is_gap(value: Any) -> bool:
    """Whether it is a missing value of pandas. pd.NA, that of its nullable types, has no truth value."""
    return type(value).__name__ == "NAType" or value != value


def _frames(parts: dict[str, tuple[Any, Any]]) -> Given:
    """Return frames as a table. y: the name of the column with the targets, or the targets."""
    for split, (x, y) in parts.items():
        end = "" if split == "train" else f"_{split}"
        if x is None or y is None:
            has, lacks = ("x", "y") if y is None else ("y", "x")
            raise UserError(
                f"{has}{end} without {lacks}{end}\n  expected a frame, and its targets: a column's name, or one per row"
            )
    names = {y if isinstance(y, str) else str(getattr(y, "name", None) or TARGET) for _, y in parts.values()}
    if len(names) > 1:
        raise UserError(
            f"the splits name their targets differently: {', '.join(sorted(names))}\n"
            "  expected one name: y='price', y_val='price'"
        )
    target, frames = names.pop(), {}
    for split, (x, y) in parts.items():
        frames[split] = with_targets(as_polars(x), y, target, split)
        if not len(frames[split]):
            raise UserError(f"{split}: the frame has no rows\n  expected a row per sample")
    shown = {"all": frames["train"]} if len(frames) == 1 else frames
    source = f"{{_target_: {FRAMES}}}"
    words = ["data=table", f"data.source={source}", f"data.target={quoted(target)}"]
    return Given(words, {"source": Frames(shown)})


def with_targets(frame: "polars.DataFrame", y: Any, target: str, split: str) -> "polars.DataFrame":
    """Return a frame with its targets as a column."""
    import polars as pl

    if isinstance(y, str):
        if y not in frame.columns:
            raise UserError(f"y={y!r}: {split} has no such column\n  expected one of: {', '.join(frame.columns)}")
        return frame
    values = _array("y", y.to_numpy() if hasattr(y, "to_numpy") else y)
    if len(values) != len(frame):
        raise _uneven(split, len(frame), len(values))
    if values.ndim != 1:
        raise UserError(f"y has the shape {values.shape}\n  expected one target per row")
    return frame.with_columns(pl.Series(target, values.tolist()))


class Frames:
    """A reader of frames in memory."""

    def __init__(self, frames: "Mapping[str, polars.DataFrame]") -> None:
        self.frames = frames

    def __call__(self) -> "Mapping[str, polars.DataFrame]":
        return {name: frame.clone() for name, frame in self.frames.items()}  # reading takes columns out of a frame
