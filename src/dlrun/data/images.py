"""Pictures of one size, kept as bytes on the device; normalised and augmented there, a few batches at a time."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from dlrun.data.resident import Resident, check_arrays, split_rows
from dlrun.errors import UserError
from dlrun.spec import Image
from dlrun.types import Augmentation, Count, Fraction, Index, Positive, Reader


class Images:
    """A data set of pictures; nothing is read before `load`.

    mean, std: per channel (or one for all), of pixels in [0, 1].
    """

    def __init__(
        self,
        *,
        spec: Image,
        source: Reader,
        batch_size: Count,
        eval_batch_size: Count,
        val_fraction: Fraction,
        folds: Index,
        fold: Index,
        mean: list[float],
        std: list[Positive],
        augment: Augmentation,
    ) -> None:
        if len(mean) not in (1, spec.shape[0]) or len(mean) != len(std):
            raise UserError(
                f"data.mean={mean} data.std={std}: expected one number each, or one per channel ({spec.shape[0]})"
            )
        augment.check(spec.shape)
        self.spec, self.batch_size, self.eval_batch_size = spec, batch_size, eval_batch_size
        self.source: Callable[[], object] = source
        self.split, self.augment = (val_fraction, folds, fold), augment
        self.mean, self.std = mean, std

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError where it is not what the spec says."""
        arrays = self.source()
        check_arrays(arrays, self.spec)
        self.restore({}, device, channels_last)
        self.resident = Resident(arrays, split_rows(len(arrays.x_train), *self.split), device, self._prepare)

    def fitted(self) -> dict:
        """What it learned from the train part: nothing, mean and std are given."""
        return {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Ready to encode, without reading any data."""
        self.device, self.layout = device, torch.channels_last if channels_last else torch.contiguous_format
        one = len(self.mean) == 1
        scale = [1 / (255 * s) for s in self.std]
        shift = [-m / s for m, s in zip(self.mean, self.std, strict=True)]
        self.scale, self.shift = (
            v[0] if one else torch.tensor(v, device=device).view(-1, 1, 1) for v in (scale, shift)
        )

    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures as they are stored, uint8 (B, C, H, W), as the network takes them."""
        return self._prepare(pixels.to(self.device), None)

    def size(self, split: str) -> int:
        return self.resident.size(split)

    def describe(self) -> str:
        return self.resident.describe()

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y): x float (B, C, H, W), normalised; y int64 (B,). Train: in the epoch's order from batch `first` on."""
        if split == "train":
            return self.resident.train(self.batch_size, seed, epoch, first)
        return self.resident.evaluate(split, self.eval_batch_size)

    def _prepare(self, x: Tensor, random: torch.Generator | None) -> Tensor:
        if random is not None:
            x = self.augment.on_bytes(x, random)
        x = x.to(torch.float32, memory_format=self.layout).mul_(self.scale)
        if not (isinstance(self.shift, float) and self.shift == 0):
            x.add_(self.shift)
        return x if random is None else self.augment.on_values(x, random)
