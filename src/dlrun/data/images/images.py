"""Images of one size, stored as bytes on the device and normalised and augmented there, a few batches at a time."""

from collections.abc import Callable

import torch
from torch import Tensor

from dlrun.data.base import Arrays
from dlrun.data.classes import check_labels
from dlrun.data.images.pixels import Pixels
from dlrun.data.on_device import OnDevice
from dlrun.data.resident import Resident, check_arrays, check_contrast
from dlrun.data.splits import split_rows
from dlrun.spec import Image
from dlrun.types import Augmentation, Count, Fraction, ImageReader, Index, Positive, Sampler


class Images(OnDevice):
    """A data set of images. Nothing is read before `load`.

    mean, std: of pixels scaled to [0, 1]; one number for all channels, or one per channel.
    Batches: x float (B, C, H, W), normalised; y int64 (B,).
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
        sampler: Sampler,
    ) -> None:
        check_labels(spec.labels, spec.classes)
        self.pixels = Pixels(spec.shape, mean, std, augment)
        self.spec, self.batch_size, self.eval_batch_size = spec, batch_size, eval_batch_size
        self.source: Callable[[], Arrays] = source
        self.split_config, self.folds = (val_fraction, folds, fold), folds
        self.mean, self.std, self.sampler = mean, std, sampler

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError if it does not match the spec."""
        arrays = self.source()
        check_arrays(arrays, self.spec)
        check_contrast(arrays.x_train)
        self.restore({}, device, channels_last)
        splits = split_rows(len(arrays.x_train), *self.split_config)
        self.resident = Resident(arrays, splits, device, self.pixels)

    def fitted(self) -> dict:
        """Return nothing: mean and std come from the config."""
        return {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        self.device = device
        self.pixels.to(device, channels_last)

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalise stored images: uint8 (B, C, H, W) -> float (B, C, H, W)."""
        return self.pixels(pixels.to(self.device), None)
