"""From stored bytes to the network's input: crop, augment (in training) and normalise a few batches at a time."""

import torch
from torch import Tensor

from dlrun.data.base import AugmentContext
from dlrun.data.images.augment import Augment, cut_out
from dlrun.errors import UserError
from dlrun.seeds import generator


class Pixels:
    """Turns stored images into the network's input.

    shape: (C, H, W) of the input. Larger images are cropped: at random in training, else in the middle.
    mean, std: of pixels scaled to [0, 1]; one number for all channels, or one per channel.
    """

    def __init__(self, shape: tuple[int, int, int], mean: list[float], std: list[float], augment: Augment) -> None:
        if len(mean) not in (1, shape[0]) or len(mean) != len(std):
            raise UserError(
                f"data.mean={mean} data.std={std}: expected one number each, or one per channel ({shape[0]})"
            )
        augment.check(shape)
        self.shape, self.mean, self.std, self.augment = shape, mean, std, augment

    def to(self, device: torch.device, channels_last: bool) -> None:
        """Put the constants on the device and choose the memory format of the output."""
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        one = len(self.mean) == 1
        scale = [1 / (255 * s) for s in self.std]
        shift = [-m / s for m, s in zip(self.mean, self.std, strict=True)]
        self.scale, self.shift = (
            v[0] if one else torch.tensor(v, device=device).view(-1, 1, 1) for v in (scale, shift)
        )

    def __call__(self, x: Tensor, context: AugmentContext | None) -> Tensor:
        """uint8 (B, C, H', W') -> float (B, C, H, W). context: None outside training."""
        if x.shape[2:] != self.shape[1:]:
            x = cut_out(x, *self.shape[1:], context.random if context else None)
        if context is not None:
            x = self.augment.on_bytes(x, context)
        x = x.to(torch.float32, memory_format=self.layout).mul_(self.scale)
        if not (isinstance(self.shift, float) and self.shift == 0):
            x.add_(self.shift)
        return x if context is None else self.augment.on_values(x, context)

    def augmented(self, x: Tensor) -> Tensor:
        """Augment images (B, C, H, W), as the network takes them, with fixed draws, to show what training sees."""
        stored = ((x - self.shift) / self.scale).round().clamp(0, 255).to(torch.uint8)
        return self(stored, AugmentContext(generator(x.device, 0), 0, 0, torch.arange(len(x), device=x.device)))
