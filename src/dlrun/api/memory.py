"""Samples in the memory of a program: arrays, tensors, frames or a torch Dataset, as values of the data section.

The run's folder does not hold them. It notes that they were in memory, and a digest of them; a resume must bring the
same ones.
"""

import sys
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from dlrun.api.frames import Frames, as_polars, named_targets, names_of, with_targets
from dlrun.api.images import is_image, pixels
from dlrun.api.samples import array_of, as_array, is_frame, short, uneven
from dlrun.errors import DataError, UserError, own_code
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
FEW = 20  # at most this number of classes, even of few samples, as of arrays


class Given(NamedTuple):
    """words: that choose the kind of data. data: values for keys of the data section. target: a table's
    column, or several.
    """

    words: list[str]
    data: dict[str, Any]
    target: str | list[str] = ""


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
    if is_frame(x):
        return _frames(parts)
    if is_loader(x):
        return _loaders(parts)
    arrays: dict[str, np.ndarray] = {}
    for split, (inputs, targets) in parts.items():
        end = "" if split == "train" and len(parts) == 1 else f"_{split}"
        arrays |= {f"{name}{end}": array for name, array in _arrays(split, inputs, targets).items()}
    return Given(["data=arrays", "data.arrays=memory"], {"arrays": arrays})


def refuse_others(samples: Given, section: object, folder: "Path", names: Mapping[str, str], target: object) -> None:
    """Raise UserError unless a run was trained on samples in memory of this kind, with this target.

    section, names: the data section of its config, and the chosen option of each group. target: its column, if any.
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
    if samples.target and samples.target != target:
        raise UserError(
            f"y={samples.target!r}: the run in {folder} learned the column {target!r}\n  expected y={target!r}"
        )


def _arrays(split: str, x: Any, y: Any) -> "dict[str, np.ndarray]":
    """Return the arrays of a split."""
    if _is_dataset(x):
        x, y = _stacked(x, y)
    elif isinstance(x, list | tuple) and any(map(is_image, x)):
        x = [pixels(f"x[{i}]", each) if is_image(each) else each for i, each in enumerate(x)]
    pair = {"x": array_of("x", x)} | ({} if y is None else {"y": array_of("y", y)})
    lengths = {name: len(array) for name, array in pair.items()}
    if len(set(lengths.values())) > 1:
        raise uneven(split, lengths["x"], lengths["y"])
    return pair


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
            raise DataError(f"{kind}[{i}] is {short(item)}\n  expected a pair (x, y)")
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
    if name == "x" and is_image(value):
        return pixels(f"{kind}[{i}]: x", value)
    array = as_array(f"{kind}[{i}]: {name}", value, "numbers: an array, a tensor or an image")
    if array.dtype.kind not in "biufU":
        raise DataError(f"{kind}[{i}]: {name} is {short(value)}\n  expected numbers: an array, a tensor or an image")
    return array


def is_loader(x: object) -> bool:
    """Whether it yields batches by itself: a DataLoader of torch or torchdata, or a pipeline that says so."""
    return hasattr(x, "__iter__") and hasattr(x, "batch_size") and not hasattr(x, "shape")


def _loaders(parts: dict[str, tuple[Any, Any]]) -> Given:
    if any(y is not None for _, y in parts.values()) or "val" not in parts:
        raise UserError(
            "x is a loader, which yields (x, y)\n"
            "  expected x=..., x_val=... and perhaps x_test=..., loaders too, and no y"
        )
    source = {split: loader for split, (loader, _) in parts.items()}
    words = ["data=stream", f"data.source={{_target_: {STREAMS}}}"]
    counts = [_classes(loader) for loader in source.values()]
    words += [f"data.classes={max(counts)}"] if all(counts) else []
    return Given(words, {"source": lambda: source})


def _classes(loader: Any) -> int:
    """Return the number of classes of a DataLoader of a TensorDataset whose targets are labels 0, 1, ...; else 0."""
    data, dataset = sys.modules.get("torch.utils.data"), getattr(loader, "dataset", None)
    if data is None or getattr(loader, "collate_fn", None) is not data.default_collate:
        return 0
    while isinstance(dataset, data.Subset):
        dataset = dataset.dataset
    if not isinstance(dataset, data.TensorDataset) or len(dataset.tensors) != 2:
        return 0
    y = as_array("y", dataset.tensors[1], "labels")
    are_labels = y.ndim == 1 and len(y) and y.dtype.kind in "biu" and y.min() >= 0
    return int(y.max()) + 1 if are_labels and 0 < y.max() < max(FEW, len(y) / 2) else 0


def _frames(parts: dict[str, tuple[Any, Any]]) -> Given:
    """Return frames as a table. y: names of the columns with the targets, of all splits, or the targets."""
    frames = {split: as_polars(x) for split, (x, _) in parts.items() if x is not None}
    targets = _targets({split: y for split, (_, y) in parts.items()}, frames["train"])
    for split, y in targets.items():
        end = "" if split == "train" else f"_{split}"
        if split not in frames or y is None:
            has, lacks = ("x", "y") if y is None else ("y", "x")
            raise UserError(
                f"{has}{end} without {lacks}{end}\n  expected a frame, and its targets: a column's name, or one per row"
            )
    columns = {name for frame in frames.values() for name in frame.columns}
    of_split = {split: names_of(named_targets(y, frames[split]), columns) for split, y in targets.items()}
    names = of_split["train"]
    if any(set(others) != set(names) for others in of_split.values()):
        raise UserError(
            f"the splits name their targets differently: {', '.join(sorted(set(chain(*of_split.values()))))}\n"
            "  expected one name: y='price', y_val='price'"
        )
    for split, y in targets.items():
        frames[split] = with_targets(frames[split], y, names, split)
        if not len(frames[split]):
            raise UserError(f"{split}: the frame has no rows\n  expected a row per sample")
    shown = {"all": frames["train"]} if len(frames) == 1 else frames
    source = f"{{_target_: {FRAMES}}}"
    target = quoted(names[0]) if len(names) == 1 else f"[{','.join(map(quoted, names))}]"
    words = ["data=table", f"data.source={source}", f"data.target={target}"]
    return Given(words, {"source": Frames(shown)}, names[0] if len(names) == 1 else names)


def _targets(of_split: dict[str, Any], x: "polars.DataFrame") -> dict[str, Any]:
    """Return the targets of each split. Those of train, if they are names of columns, are also those of the others."""
    y = of_split["train"]
    if y is None or any(values is not None for _, values in named_targets(y, x)):
        return of_split
    return {split: y if targets is None else targets for split, targets in of_split.items()}
