"""Tables of numbers, stored on the device."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import Arrays
from dlrun.data.classes import check_labels
from dlrun.data.on_device import OnDevice
from dlrun.data.resident import Resident, check_arrays
from dlrun.data.splits import split_rows
from dlrun.spec import Table
from dlrun.system.device import exact_dtype
from dlrun.types import Count, Fraction, Index, Sampler, TableReader

WIDE = 100  # warn above this standard deviation of the targets: default learning rates assume about 1


class Tables(OnDevice):
    """A data set of rows. Nothing is read before `load`.

    standardize: scale each feature to mean 0 and standard deviation 1 over the train split (divisor n - 1).
    Batches: x float (B, features); y int64 (B,) or float (B, targets).
    """

    def __init__(
        self,
        *,
        spec: Table,
        source: TableReader,
        batch_size: Count,
        eval_batch_size: Count,
        val_fraction: Fraction,
        folds: Index,
        fold: Index,
        standardize: bool,
        sampler: Sampler,
    ) -> None:
        check_labels(spec.labels, spec.classes)
        self.spec, self.batch_size, self.eval_batch_size = spec, batch_size, eval_batch_size
        self.source: Callable[[], Arrays] = source
        self.split_config, self.folds = (val_fraction, folds, fold), folds
        self.standardize, self.sampler = standardize, sampler

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError if it does not match the spec."""
        arrays = self.source()
        check_arrays(arrays, self.spec)
        splits = split_rows(len(arrays.x_train), *self.split_config)
        fitted = {}
        if self.standardize:
            rows = arrays.x_train[splits["train"]].astype(np.float64)
            mean, std = rows.mean(0), rows.std(0, ddof=1)
            std[np.ptp(rows, 0) == 0] = 1  # a constant column, whose deviation is 0 up to rounding
            fitted = {"mean": mean.tolist(), "std": std.tolist()}
        self.restore(fitted, device)
        self.spread = 0.0 if self.spec.classes else float(arrays.y_train[splits["train"]].std(0).max())
        arrays = arrays._replace(x_train=self._scaled(arrays.x_train), x_test=self._scaled(arrays.x_test))
        self.resident = Resident(arrays, splits, device, lambda x, random: x)

    def fitted(self) -> dict:
        """Return the features' means and standard deviations over the train split; empty without `standardize`."""
        return self.scaling

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        self.scaling, self.device = fitted, device
        exact = exact_dtype(device)
        self.statistics = [torch.tensor(fitted[name], dtype=exact, device=device) for name in ("mean", "std") if fitted]

    def _scaled(self, rows: np.ndarray) -> np.ndarray:
        return self.encode(rows).cpu().numpy()

    def encode(self, rows: np.ndarray | Tensor) -> Tensor:
        """Standardize rows (B, features) that are in the data's original units; float32 (B, features)."""
        rows = torch.as_tensor(rows, dtype=torch.float32, device=self.device)
        if not self.scaling:
            return rows
        mean, std = self.statistics
        return ((rows.to(mean.dtype) - mean) / std).to(torch.float32)

    def describe(self) -> str:
        wide = f"; warning: the targets' standard deviation is {self.spread:,.0f}, expected about 1: divide them"
        return self.resident.describe() + (wide if self.spread > WIDE else "")
