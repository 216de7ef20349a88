"""Images with masks (a class for every pixel), stored as bytes on the device.

The mask is stored as one more channel of its image, so that flips and shifts move both. It holds (class - ignore) mod
256: pixels that a shift leaves empty are 0 and are not counted. Without `ignore` they are of class 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import Arrays, AugmentContext
from dlrun.data.images.images import Images
from dlrun.data.images.levels import Levels, describe_levels
from dlrun.data.resident import Resident, check_contrast
from dlrun.data.splits import split_rows
from dlrun.errors import DataError, UserError, counted
from dlrun.spec import Mask
from dlrun.types import Augmentation, Count, Fraction, Index, MaskReader, Positive


class Pairs(NamedTuple):
    """Images and masks, uint8, and the levels of images with more than 8 bits a value (data/images/levels.py).

    num_val: number of the last train samples that are val by the folders; 0: val is cut from them. split_note:
    describes the splits that are folders.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    levels: Levels | None = None
    num_val: int = 0
    split_note: str = ""


class Masks(Images):
    """A data set of images and masks. Nothing is read before `load`.

    mean, std: of pixels scaled to [0, 1]; one number for all channels, or one per channel.
    """

    spec: Mask  # type: ignore[assignment]  # a Mask has what Images uses of an Image

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
                f"data.spec.ignore={spec.ignore}: expected a number from {spec.classes} to 255, which is no class, "
                "or null if every pixel counts"
            )
        if (policy := getattr(augment, "policy", "none")) != "none":
            raise UserError(
                f"data.augment.policy={policy} changes colours, and masks have none: expected none; flip, crop "
                "and rot90 move images and masks together"
            )
        for name in ("rotate", "zoom", "shear"):
            if amount := getattr(augment, name, 0):
                raise UserError(
                    f"data.augment.{name}={amount} blends neighbouring pixels, and the classes of masks cannot be "
                    "blended: expected 0; flip, crop and rot90 move images and masks together"
                )
        self.header_lines: dict[str, str] = {}
        super().__init__(
            spec=spec,  # type: ignore[arg-type]  # as above
            source=source,  # type: ignore[arg-type]  # Pairs begin as Arrays do
            batch_size=batch_size, eval_batch_size=eval_batch_size, val_fraction=val_fraction,
            folds=folds, fold=fold, mean=mean, std=std, augment=augment, sampler="none",
        )  # fmt: skip

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError if it does not match the spec."""
        pairs = Pairs(*self.source())
        check_masks(pairs, self.spec)
        check_contrast(pairs.x_train)
        self.restore({"levels": pairs.levels}, device, channels_last)
        x_train, x_test = self._stack(pairs.x_train, pairs.y_train), self._stack(pairs.x_test, pairs.y_test)
        rows = np.arange(max(len(x_train), len(x_test)))
        stacks = Arrays(x_train, rows[: len(x_train)], x_test, rows[: len(x_test)])
        splits = split_rows(len(x_train), *self.split_config, pairs.num_val)
        self.resident = Resident(stacks, splits, device, self._prepare)
        self.header_lines = {"splits": pairs.split_note} if pairs.split_note else {}

    def load_like(self, fitted: dict, device: torch.device) -> None:
        """Read all images and masks as those of a run whose data has learned `fitted`. They are the test split."""
        pairs = Pairs(*self.source())
        check_masks(pairs, self.spec)
        self.restore(fitted, device)
        stacks = (self._stack(pairs.x_train, pairs.y_train), self._stack(pairs.x_test, pairs.y_test))
        x = np.concatenate(stacks)
        rows = np.arange(len(x))
        splits = {"train": rows[:0], "val": rows[:0], "test": rows}
        self.resident = Resident(Arrays(x, rows, x[:0], rows[:0]), splits, device, self._prepare)

    def fitted(self) -> dict:
        """Return the levels of images with more than 8 bits a value; empty without such images."""
        return {"levels": {kind: list(ends) for kind, ends in self.levels.items()}} if self.levels else {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        super().restore(fitted, device, channels_last)
        self.levels = fitted.get("levels")

    def _stack(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        stored = y if self.spec.ignore is None else y - np.uint8(self.spec.ignore)  # bytes wrap around
        return np.concatenate((x, stored[:, None]), 1)

    def targets(self, split: str) -> Tensor:
        """Return the masks of a split, uint8 (N, H, W), in stored order; `spec.ignore` marks pixels without a class."""
        resident = self.resident
        stored = resident.x[resident.pools[split]][:, -1].index_select(0, resident.rows[split])
        return stored + (self.spec.ignore or 0)  # bytes wrap around

    def describe(self) -> str:
        return f"{self.resident.describe()}, including masks{describe_levels(self.levels or {})}"

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y): x float (B, C, H, W), normalised; y int64 (B, H, W). Train: from batch `first` on."""
        for both, _ in super().batches(split, seed, epoch, first):
            stored = both[:, -1].long()
            y = stored if self.spec.ignore is None else (stored + self.spec.ignore) % 256
            yield both[:, :-1].contiguous(memory_format=self.pixels.layout), y

    def _prepare(self, both: Tensor, context: AugmentContext | None) -> Tensor:
        """Bytes (B, C + 1, H, W) to floats: the image's channels are augmented and normalised, the mask is kept."""
        augment = self.pixels.augment
        if context is not None:
            both = augment.on_bytes(both, context)
        x = self.pixels(both[:, :-1], None)
        if context is not None:
            x = augment.on_values(x, context)
        return torch.cat((x, both[:, -1:].to(torch.float32)), 1)


def check_masks(arrays: Arrays | Pairs, spec: Mask) -> None:
    """Raise DataError unless the arrays match the spec."""
    channels, height, width = spec.shape
    for split, x, y in (("train", arrays.x_train, arrays.y_train), ("test", arrays.x_test, arrays.y_test)):
        if x.shape[1:] != (channels, height, width) or y.shape != (len(x), height, width) or not len(x):
            raise DataError(
                f"the {split} split holds {counted(len(x), 'image')} of shape {x.shape[1:]} and masks of shape "
                f"{y.shape}: expected images of {tuple(spec.shape)}, and a mask of {(height, width)} for each"
            )
        if x.dtype != np.uint8 or y.dtype != np.uint8:
            raise DataError(f"the {split} split holds {x.dtype} images and {y.dtype} masks: expected uint8")
        values = np.flatnonzero(np.bincount(y.ravel(), minlength=256))
        wrong = [int(c) for c in values if c >= spec.classes and c != spec.ignore]
        if wrong:
            also = "" if spec.ignore is None else f", or {spec.ignore} for pixels that are not counted"
            raise DataError(
                f"the {split} masks hold {', '.join(map(str, wrong[:5]))}: expected 0 .. {spec.classes - 1}{also}"
            )
