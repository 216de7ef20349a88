"""Pictures of one size, kept as bytes on the device; normalised and augmented there, a few batches at a time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dlrun.data.classes import check_labels
from dlrun.data.pixels import Pixels
from dlrun.data.resident import Resident, check_arrays, check_contrast, split_rows
from dlrun.spec import Image
from dlrun.types import Augmentation, Count, Fraction, ImageReader, Index, Positive


class Images:
    """A data set of pictures; nothing is read before `load`.

    mean, std: per channel (or one for all), of pixels in [0, 1].
    """

    def __init__(
        self,
        *,
        spec: Image,
        source: ImageReader,
        batch_size: Count,
        eval_batch_size: Count,
        val_fraction: Fraction,
        folds: Index,
        fold: Index,
        mean: list[float],
        std: list[Positive],
        augment: Augmentation,
    ) -> None:
        check_labels(spec.labels, spec.classes)
        self.pixels = Pixels(spec.shape, mean, std, augment)
        self.spec, self.batch_size, self.eval_batch_size = spec, batch_size, eval_batch_size
        self.source: Callable[[], object] = source
        self.split = val_fraction, folds, fold
        self.mean, self.std = mean, std

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError where it is not what the spec says."""
        arrays = self.source()
        check_arrays(arrays, self.spec)
        check_contrast(arrays.x_train)
        self.restore({}, device, channels_last)
        self.resident = Resident(arrays, split_rows(len(arrays.x_train), *self.split), device, self.pixels)

    def fitted(self) -> dict:
        """What it learned from the train part: nothing, mean and std are given."""
        return {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Ready to encode, without reading any data."""
        self.device = device
        self.pixels.to(device, channels_last)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures as they are stored, uint8 (B, C, H, W), as the network takes them."""
        return self.pixels(pixels.to(self.device), None)

    def size(self, split: str) -> int:
        return self.resident.size(split)

    def digest(self) -> str:
        """The same as long as the data is: its rows, labels, and some of its content."""
        return self.resident.digest()

    def sums(self) -> list[float]:
        """What tells whether the data is what it was, every number of it."""
        return self.resident.sums()

    def describe(self) -> str:
        return self.resident.describe()

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y): x float (B, C, H, W), normalised; y int64 (B,). Train: in the epoch's order from batch `first` on."""
        if split == "train":
            return self.resident.train(self.batch_size, seed, epoch, first)
        return self.resident.evaluate(split, self.eval_batch_size)
