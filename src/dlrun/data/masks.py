"""Pictures with a mask each, a class for every pixel; kept as bytes on the device.

The mask lies behind its picture as one more channel, so that what moves pixels moves both. It is stored as
(class - ignore) mod 256: what a shifted picture leaves empty is 0, which is then not counted; or is class 0, where the
data ignores nothing.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import Arrays
from dlrun.data.images import Images
from dlrun.data.levels import told
from dlrun.data.resident import Resident, check_contrast, split_rows
from dlrun.errors import DataError, UserError
from dlrun.spec import Mask
from dlrun.types import Augmentation, Count, Fraction, Index, MaskReader, Positive


class Masks(Images):
    """A data set of pictures and masks; nothing is read before `load`.

    mean, std: per channel (or one for all), of pixels in [0, 1].
    """

    def __init__(
        self,
        *,
        spec: Mask,
        source: MaskReader,
        batch_size: Count,
        eval_batch_size: Count,
        val_fraction: Fraction,
        folds: Index,
        fold: Index,
        mean: list[float],
        std: list[Positive],
        augment: Augmentation,
    ) -> None:
        if spec.ignore is not None and not (spec.classes <= spec.ignore < 256):
            raise UserError(
                f"data.spec.ignore={spec.ignore}: expected a number from {spec.classes} to 255, which no class has, "
                "or null where every pixel counts"
            )
        super().__init__(
            spec=spec, source=source, batch_size=batch_size, eval_batch_size=eval_batch_size, val_fraction=val_fraction,
            folds=folds, fold=fold, mean=mean, std=std, augment=augment,
        )  # fmt: skip

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError where it is not what the spec says."""
        arrays = self.source()
        check_masks(arrays, self.spec)
        check_contrast(arrays.x_train)
        self.restore({"levels": getattr(arrays, "levels", None)}, device, channels_last)
        x_train, x_test = self._stacked(arrays.x_train, arrays.y_train), self._stacked(arrays.x_test, arrays.y_test)
        rows = np.arange(max(len(x_train), len(x_test)))
        stacks = Arrays(x_train, rows[: len(x_train)], x_test, rows[: len(x_test)])
        self.resident = Resident(stacks, split_rows(len(x_train), *self.split), device, self._prepare)

    def fitted(self) -> dict:
        """What it learned from the pictures: the levels of those that hold more than bytes, where there are any."""
        return {"levels": {kind: list(ends) for kind, ends in self.levels.items()}} if self.levels else {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Ready to encode, without reading any data."""
        super().restore(fitted, device, channels_last)
        self.levels = fitted.get("levels")

    def _stacked(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        stored = y if self.spec.ignore is None else y - np.uint8(self.spec.ignore)  # bytes wrap around
        return np.concatenate((x, stored[:, None]), 1)

    def describe(self) -> str:
        return f"{self.resident.describe()}, masks among them{told(self.levels or {})}"

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y): x float (B, C, H, W), normalised; y int64 (B, H, W). Train: in the epoch's order from `first` on."""
        for both, _ in super().batches(split, seed, epoch, first):
            stored = both[:, -1].long()
            y = stored if self.spec.ignore is None else (stored + self.spec.ignore) % 256
            yield both[:, :-1].contiguous(memory_format=self.pixels.layout), y

    def _prepare(self, both: Tensor, random: torch.Generator | None) -> Tensor:
        """(B, C + 1, H, W) bytes to floats, the picture's channels normalised and the last as it is."""
        augment = self.pixels.augment
        if random is not None:
            both = augment.on_bytes(both, random)
        x = self.pixels(both[:, :-1], None)
        if random is not None:
            x = augment.on_values(x, random)
        return torch.cat((x, both[:, -1:].to(torch.float32)), 1)


def check_masks(arrays: Arrays, spec: Mask) -> None:
    """Raise DataError unless the arrays are what the spec says."""
    channels, height, width = spec.shape
    for part, x, y in (("train", arrays.x_train, arrays.y_train), ("test", arrays.x_test, arrays.y_test)):
        if x.shape[1:] != (channels, height, width) or y.shape != (len(x), height, width) or not len(x):
            raise DataError(
                f"the {part} part holds {len(x)} pictures of shape {x.shape[1:]} and masks of shape {y.shape}: "
                f"expected pictures of {tuple(spec.shape)}, and a mask of {(height, width)} for each"
            )
        if x.dtype != np.uint8 or y.dtype != np.uint8:
            raise DataError(f"the {part} part holds {x.dtype} pictures and {y.dtype} masks: expected uint8")
        found = np.flatnonzero(np.bincount(y.ravel(), minlength=256))
        wrong = [int(c) for c in found if c >= spec.classes and c != spec.ignore]
        if wrong:
            also = "" if spec.ignore is None else f", or {spec.ignore} for what is not counted"
            raise DataError(
                f"the {part} masks hold {', '.join(map(str, wrong[:5]))}: expected 0 .. {spec.classes - 1}{also}"
            )
