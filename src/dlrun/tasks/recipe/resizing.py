"""Progressive resizing: smaller train images in the first epochs, which cost less (Howard 2018; Page 2018, part 8)."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.errors import UserError, first_line
from dlrun.spec import Image, Spec
from dlrun.types import NonNegative, Share


class Resizing:
    """Resizes batches of images by the clock.

    resize: pairs of a share of the sides and the epoch from which it holds; before the first pair images are whole.
    Raises UserError if the data has no images, or if the net cannot take images of such a size.
    """

    def __init__(self, net: nn.Module, spec: Spec, resize: list[tuple[Share, NonNegative]]) -> None:
        self.moments = sorted((epoch, share) for share, epoch in resize)
        if self.moments and not isinstance(spec, Image):
            raise UserError(f"task.resize={resize} needs images: expected [] for data of {type(spec).__name__}")
        self.shape = spec.shape
        for _, share in self.moments:
            self._check(net, share)

    def __call__(self, x: Tensor, clock: Clock) -> Tensor:
        epoch = clock.epoch + clock.batch / clock.steps_per_epoch + 1e-9
        sides = self._sides(next((share for start, share in reversed(self.moments) if start <= epoch), 1.0))
        if sides == tuple(x.shape[2:]):
            return x
        is_last = x.is_contiguous(memory_format=torch.channels_last)
        smaller = F.interpolate(x, sides, mode="bilinear", antialias=True)
        return smaller.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)

    def _sides(self, share: float) -> tuple[int, int]:
        return max(1, round(share * self.shape[1])), max(1, round(share * self.shape[2]))

    def _check(self, net: nn.Module, share: float) -> None:
        height, width = self._sides(share)
        try:
            deepcopy(net).to("meta").eval()(torch.empty(2, self.shape[0], height, width, device="meta"))
        except (RuntimeError, ValueError) as error:
            raise UserError(
                f"task.resize has {share}: this net cannot take images of {height}x{width}\n"
                f"  expected larger shares, or task.resize=[] ({first_line(error)})"
            ) from None
