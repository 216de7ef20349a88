"""Samples in arrays, in memory or from .npz and .npy files. Their shapes decide what they are.

(N,) or (N, features): rows. (N, length, features): series. (N, H, W) of bytes, (N, H, W, C) and (N, C, H, W): images.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlrun.data.arrays.file import Pair, grouped, joined, read_npy, read_npz
from dlrun.data.arrays.kinds import as_bytes, kind_of, levels_in, shaped, standardised, statistics
from dlrun.data.arrays.targets import check_varied, like, targets_of
from dlrun.data.base import Arrays
from dlrun.data.images.augment import Augment
from dlrun.data.images.levels import Levels, describe_levels
from dlrun.data.images.pixels import Pixels
from dlrun.data.on_device import OnDevice
from dlrun.data.resident import Resident, check_contrast
from dlrun.data.splits import cut
from dlrun.errors import IN_MEMORY, DataError, UserError, counted
from dlrun.paths import find
from dlrun.spec import Image, Series, Table
from dlrun.types import Augmentation, Count, DataPath, Fraction, Index, Sampler

EXPECTED = "an .npz or .npy file: absolute, or a name under data_dir or in the working folder"


class Prepared(NamedTuple):
    """Arrays as they are stored, the rows of the splits, and the values fitted on the train split."""

    arrays: Arrays
    splits: dict[str, np.ndarray]
    fitted: dict[str, Any]


class ArraySet(OnDevice):
    """A data set of samples in arrays. Nothing is read before `load`, or before a network is built from `spec`.

    arrays: x and y, or x_train, y_train and x_val, y_val or x_test, y_test or both; without y, images have no labels.
    In a config "memory": a Python program gives them, and the run's folder does not hold them. Else they are read from
    `file`, or from `x` and `y`. A split that is not given is cut from the others by `split`.
    y: classes if it has texts, booleans, whole numbers or one-hot rows; else real targets. labels: names of the classes
    0, 1, ... All else: configs/data/arrays.yaml.
    Batches: x float, as `spec.shape`; y int64 (B,) or float (B, targets).
    """

    keeps_splits: bool = False  # in load_like

    def __init__(
        self,
        *,
        arrays: Literal["memory"] | None,
        data_dir: str,
        file: DataPath | None,
        x: DataPath | None,
        y: DataPath | None,
        kind: Literal["auto", "images", "rows", "series"],
        learn: Literal["auto", "classification", "regression"],
        names: list[str],
        labels: list[str],
        unit: str,
        split: tuple[Fraction, Fraction, Fraction],
        stratify: bool,
        folds: Index,
        fold: Index,
        sampler: Sampler,
        batch_size: Count,
        eval_batch_size: Count,
        augment: Augmentation,
    ) -> None:
        if (arrays is not None) + (file is not None) + (x is not None) != 1 or y is not None and x is None:
            raise UserError(
                "data.file, data.x: expected one file with all arrays, data.file=samples.npz, or one for each array, "
                "data.x=x.npy data.y=y.npy"
            )
        self.arrays: Mapping[str, np.ndarray] | str | None = arrays
        self.data_dir = Path(os.path.expanduser(data_dir))
        self.paths = {"file": file, "x": x, "y": y}
        self.kind, self.learn, self.labels, self.names, self.unit = kind, learn, tuple(labels), tuple(names), unit
        self.folds, self.split_config = folds, ((split[0], split[1], split[2]), stratify, folds, fold)
        self.batch_size, self.eval_batch_size, self.sampler = batch_size, eval_batch_size, sampler
        self.augment: Augment = augment
        self.prepared: Prepared | None = None  # set when `spec` is first read, cleared by `load`
        self.learned: dict[str, Any] | None = None
        self.mean: list[float] | None = None  # of the pixels of images, in [0, 1]
        self.std: list[float] | None = None

    @property
    def spec(self) -> Image | Table | Series:
        """The spec that the arrays give. Reads them unless it is known."""
        fitted = self.learned or self._prepare().fitted
        shape, labels = fitted["shape"], tuple(fitted["labels"])
        classes = len(labels) or None
        if fitted["kind"] == "images":
            return Image((shape[0], shape[1], shape[2]), classes, labels)
        means, stds = tuple(fitted["target_means"]), tuple(fitted["target_stds"])
        if fitted["kind"] == "rows":
            return Table(shape[0], classes, len(means), means, stds, self.names, labels, self.unit)
        return Series(
            shape[0],
            shape[1],
            classes=classes,
            targets=len(means),
            target_means=means,
            target_stds=stds,
            names=self.names,
            labels=labels,
            unit=self.unit,
        )

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the arrays and put them on the device. Raises DataError if they are no samples."""
        (arrays, splits, fitted), self.prepared = self._prepare(), None
        self.restore(fitted, device, channels_last)
        self._store(arrays, splits)

    def load_like(self, fitted: dict, device: torch.device) -> None:
        """Read the arrays as samples of a run whose data has learned `fitted`. All are the test split.

        keeps_splits, set before: they are split as the config says.
        """
        x, y, fixed = joined(self._read())
        self.restore(fitted, device)
        x, y = self._shaped(x, "the arrays"), like(y, fitted, len(x), bool(self.labels))
        x = as_bytes(x, self.levels) if fitted["kind"] == "images" else standardised(x, fitted["mean"], fitted["std"])
        none = np.arange(0)
        splits = {"train": none, "val": none, "test": np.arange(len(x))}
        self._store(Arrays(x, y, x[:0], y[:0]), self._cut(fixed, y) if self.keeps_splits else splits)

    def fitted(self) -> dict:
        """Return the kind of the arrays, and the statistics of the train split."""
        return self.learned or {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        self.learned, self.device = fitted, device
        self.levels: Levels = fitted["levels"]
        if fitted["kind"] == "images":
            self.mean, self.std = fitted["mean"], fitted["std"]
            shape = fitted["shape"]
            self.pixels = Pixels((shape[0], shape[1], shape[2]), self.mean, self.std, self.augment)
            self.pixels.to(device, channels_last)

    def encode(self, stored: Any) -> Tensor:
        """Normalise images, uint8 (B, C, H, W), or standardise rows or series in the units of the data: float32."""
        fitted = self.fitted()
        if fitted["kind"] == "images":
            return self.pixels(torch.as_tensor(stored).to(self.device), None)
        return torch.from_numpy(standardised(np.asarray(stored), fitted["mean"], fitted["std"])).to(self.device)

    def read(self, path: Path) -> np.ndarray:
        """Read inputs to predict from an .npz or .npy file, as `encode` takes them. Raises DataError for a misfit."""
        x = self._shaped(joined(grouped(read_npz(path)))[0], str(path))
        return as_bytes(x, self.levels) if self.fitted()["kind"] == "images" else x

    def _shaped(self, x: np.ndarray, where: str) -> np.ndarray:
        fitted = self.fitted()
        x = shaped(x, fitted["kind"])
        if list(x.shape[1:]) != fitted["shape"]:
            raise DataError(
                f"{where}: x has samples of shape {list(x.shape[1:])}\n  expected {fitted['shape']}, as in the run"
            )
        return x

    def describe(self) -> str:
        fitted = self.fitted()
        shape = "x".join(map(str, fitted["shape"]))
        spec = self.spec
        count = 0 if isinstance(spec, Image) else spec.targets
        targets = f", {counted(count, 'real target')}" if count else ""
        return f"{fitted['kind']} of {shape}{targets}; {self.resident.describe()}{describe_levels(self.levels)}"

    def _cut(self, fixed: dict[str, np.ndarray], y: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return the rows of the splits. y: the classes, or real targets, (N, ...)."""
        shares, is_stratified, folds, fold = self.split_config
        return cut(fixed, shares, folds, fold, y if is_stratified and y is not None and y.ndim == 1 else None)

    def _store(self, arrays: Arrays, splits: dict[str, np.ndarray]) -> None:
        prepare = self.pixels if self.fitted()["kind"] == "images" else lambda x, draw: x
        self.resident = Resident(arrays, splits, self.device, prepare)

    def _read(self) -> dict[str, Pair]:
        if isinstance(self.arrays, str):
            raise DataError(IN_MEMORY)
        if self.arrays is not None:
            return grouped(self.arrays)
        paths = {key: find(path, self.data_dir, f"data.{key}", EXPECTED) for key, path in self.paths.items() if path}
        if "file" in paths:
            return grouped(read_npz(paths["file"]))
        return grouped({key: read_npy(path) for key, path in paths.items()})

    def _prepare(self) -> Prepared:
        if self.prepared is None:
            parts = self._read()
            x, y, fixed = joined(parts)
            kind = self.kind if self.kind != "auto" else kind_of(x)
            x = shaped(x, kind)
            if len(self.names) not in (0, x.shape[-1]):
                raise UserError(f"data.names has {len(self.names)} names\n  expected {x.shape[-1]}, one per column")
            targets, labels = targets_of(y, len(x), self.learn, self.labels)
            splits = self._cut(fixed, targets if labels else None)
            real = targets if targets.ndim == 2 else targets[:, None][:, :0]
            check_varied(real[splits["train"]], " in the train split")
            means, deviations = statistics(real, splits["train"], (0,)) if real.shape[1] else ([], [])
            fitted: dict[str, Any] = {"kind": kind, "shape": list(x.shape[1:]), "labels": list(labels)}
            fitted |= {"target_means": means, "target_stds": deviations, "levels": {}}
            if kind == "images":
                fitted["levels"] = levels_in(x)
                x = as_bytes(x, fitted["levels"])
                check_contrast(x)
                mean, std = statistics(x, splits["train"], (0, 2, 3))
                fitted |= {"mean": [value / 255 for value in mean], "std": [value / 255 for value in std]}
            else:
                mean, std = statistics(x, splits["train"], tuple(range(x.ndim - 1)))
                fitted |= {"mean": mean, "std": std}
                x = standardised(x, mean, std)
            self.prepared = Prepared(Arrays(x, targets, x[:0], targets[:0]), splits, fitted)
        return self.prepared
