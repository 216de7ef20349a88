"""Random augmentations of images that keep the label (the book, section 9.7), for a whole batch on its device."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.errors import UserError
from dlrun.types import Fraction, Index, NonNegative


@dataclass(frozen=True)
class Augment:
    """The augmentations of the train split; 0 or false turns each of them off.

    flip: flip half of the images; true: left-right, vertical: top-bottom, both: each of the two independently.
    crop: pad each side by this number of black pixels, then crop at random. rot90: rotate by 0 to 3 quarter turns.
    cutout: side of a square that is set to the mean (DeVries and Taylor 2017). erase: share of images that get a box
    of noise (Zhong et al. 2017). noise: standard deviation of Gaussian noise on the normalised image.
    """

    flip: bool | Literal["vertical", "both"]
    crop: Index  # pixels
    rot90: bool
    cutout: Index  # pixels
    erase: Fraction
    noise: NonNegative

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UserError if images (C, H, W) of that shape cannot be augmented so."""
        _, height, width = shape
        if self.rot90 and height != width:
            raise UserError(
                f"data.augment.rot90=true would swap the sides of images of {height}x{width}: expected square images"
            )
        for name, pixels in (("crop", self.crop), ("cutout", self.cutout)):
            if pixels >= min(height, width):
                raise UserError(
                    f"data.augment.{name}={pixels} can leave nothing of an image of {height}x{width}: "
                    f"expected fewer pixels than {min(height, width)}"
                )

    def on_bytes(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Move pixels: rot90, flip, crop. On stored bytes, a quarter of floats' memory traffic. (B, C, H, W) -> same"""
        if self.rot90:
            turns = torch.randint(4, (len(x),), generator=random, device=x.device).view(-1, 1, 1, 1)
            x = torch.where(turns % 2 == 1, x.rot90(1, (2, 3)), x)
            x = torch.where(turns >= 2, x.rot90(2, (2, 3)), x)
        for axis in {False: (), True: (3,), "vertical": (2,), "both": (3, 2)}[self.flip]:
            coin = torch.rand(len(x), 1, 1, 1, generator=random, device=x.device) < 0.5
            x = torch.where(coin, x.flip(axis), x)
        return _crop(x, self.crop, random) if self.crop else x

    def on_values(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Change values: cutout, erase, noise. In place, on normalised images. (B, C, H, W) -> (B, C, H, W)"""
        size = len(x), 2
        if self.cutout:
            centre = torch.rand(size, generator=random, device=x.device)
            sides = torch.full(size, float(self.cutout), device=x.device)
            x.masked_fill_(_boxes(x, centre, sides), 0.0)  # 0 is the mean of the data
        if self.erase:
            draw = torch.rand(len(x), 5, generator=random, device=x.device)
            area = (0.02 + 0.38 * draw[:, 0]) * x.shape[2] * x.shape[3]
            ratio = torch.exp((2 * draw[:, 1] - 1) * 1.204)  # height to width, from 0.3 to 1 / 0.3
            sides = torch.stack(((area * ratio).sqrt(), (area / ratio).sqrt()), 1) * (draw[:, 4:] < self.erase)
            noise = torch.randn(x.shape, generator=random, device=x.device)
            x.copy_(torch.where(_boxes(x, draw[:, 2:4], sides), noise, x))  # into x, to keep its memory format
        if self.noise:
            x.add_(torch.randn(x.shape, generator=random, device=x.device), alpha=self.noise)
        return x


def _crop(x: Tensor, pad: int, random: torch.Generator) -> Tensor:
    shift = torch.randint(2 * pad + 1, (2, len(x)), generator=random, device=x.device)
    return _at(F.pad(x, (pad, pad, pad, pad)), shift[0], shift[1], *x.shape[2:])


def cut_out(x: Tensor, height: int, width: int, random: torch.Generator | None) -> Tensor:
    """Crop each image at random, or in the middle if random is None. (B, C, H, W) -> (B, C, height, width)"""
    room = x.shape[2] - height, x.shape[3] - width
    if random is None:
        above, before = room[0] // 2, room[1] // 2
        return x[:, :, above : above + height, before : before + width]
    top, left = (torch.randint(r + 1, (len(x),), generator=random, device=x.device) for r in room)
    if x.device.type != "cpu":
        return _at(x, top, left, height, width)
    corners = zip(x, top.tolist(), left.tolist(), strict=True)  # slices copy whole rows: faster than pixel by pixel
    return torch.stack([image[:, t : t + height, c : c + width] for image, t, c in corners])


def _at(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Crop each image at its own corner: (B, C, H, W), top and left (B,) -> (B, C, height, width)."""
    rows = top[:, None] + torch.arange(height, device=x.device)  # (B, height)
    columns = left[:, None] + torch.arange(width, device=x.device)  # (B, width)
    sample = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _boxes(x: Tensor, centre: Tensor, sides: Tensor) -> Tensor:
    """Return a mask (B, 1, H, W) of boxes, clipped at the borders. centre: (B, 2) in [0, 1). sides: (B, 2), pixels."""
    height, width = x.shape[2:]
    # multiplied one by one, because a tensor made of height and width would make a GPU wait
    centre = torch.stack((centre[:, 0] * height, centre[:, 1] * width), 1)
    low = (centre - sides / 2).round()[:, :, None]  # (B, 2, 1)
    high = low + sides.round()[:, :, None]
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inside_y = (rows >= low[:, 0]) & (rows < high[:, 0])  # (B, H)
    inside_x = (columns >= low[:, 1]) & (columns < high[:, 1])  # (B, W)
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
