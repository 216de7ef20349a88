"""Views of test images whose outputs are averaged: mirrored and shifted ones."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from dlrun.errors import UserError
from dlrun.spec import Image, Spec
from dlrun.types import Index


@dataclass(frozen=True)
class Views:
    """The views of an image in evaluation, whose outputs are averaged (Jordan 2024, arXiv 2404.00498, section 3.5).

    flip: the image and its mirror image. shift: the image at half the weight, and shifted by this number of pixels to
    the upper left and to the lower right, at a quarter each; the border is a reflection.
    """

    flip: bool
    shift: Index  # pixels

    def check(self, spec: Spec) -> "Views":
        """Return these views. Raises UserError if data of that spec does not have them."""
        if (self.flip or self.shift) and not isinstance(spec, Image):
            key = f"test_flip={str(self.flip).lower()}" if self.flip else f"test_shift={self.shift}"
            raise UserError(f"task.{key} needs images: expected none for data of {type(spec).__name__}")
        if self.shift and self.shift >= min(spec.shape[1:]):
            raise UserError(
                f"task.test_shift={self.shift} leaves nothing of an image of {spec.shape[1]}x{spec.shape[2]}: expected "
                f"fewer pixels than {min(spec.shape[1:])}"
            )
        return self

    def mean(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The net's outputs in float32, averaged over the views: (B, ...) -> (B, outputs)."""
        if not self.shift:
            return self._mean_of_flips(net, x)
        height, width, far = *x.shape[2:], 2 * self.shift
        padded = F.pad(x, (self.shift,) * 4, mode="reflect")
        first = self._mean_of_flips(net, padded[:, :, :height, :width])
        last = self._mean_of_flips(net, padded[:, :, far:, far:])
        return self._mean_of_flips(net, x) / 2 + (first + last) / 4

    def _mean_of_flips(self, net: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        out = net(x).float()
        return (out + net(x.flip(3)).float()) / 2 if self.flip else out
