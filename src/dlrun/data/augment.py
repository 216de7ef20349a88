"""Random changes of pictures that leave the label alone (book section 9.7), for a whole batch at once on its device."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.errors import UserError
from dlrun.types import Fraction, Index, NonNegative


@dataclass(frozen=True)
class Augment:
    """flip: half of the pictures: true left-right, vertical top-bottom, or both, each by itself. crop: pad by so many
    black pixels and cut out at random. rot90: by 0 .. 3 quarter turns. cutout: side of a grey square (DeVries and
    Taylor 2017). erase: share of pictures that get a box of noise (Zhong et al. 2017). noise: standard deviation of
    Gaussian noise on the normalised picture.
    """

    flip: bool | Literal["vertical", "both"]
    crop: Index  # pixels
    rot90: bool
    cutout: Index  # pixels
    erase: Fraction
    noise: NonNegative

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UserError where pictures of that shape cannot be changed so."""
        _, height, width = shape
        if self.rot90 and height != width:
            raise UserError(
                f"data.augment.rot90=true turns pictures of {height}x{width} on their side: expected square ones"
            )
        for name, pixels in (("crop", self.crop), ("cutout", self.cutout)):
            if pixels >= min(height, width):
                raise UserError(
                    f"data.augment.{name}={pixels} can leave nothing of a picture of {height}x{width}: "
                    f"expected fewer pixels than {min(height, width)}"
                )

    def on_bytes(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Changes of place, on the stored bytes: a quarter of the traffic. (B, C, H, W) -> (B, C, H, W)"""
        if self.rot90:
            turns = torch.randint(4, (len(x),), generator=random, device=x.device).view(-1, 1, 1, 1)
            x = torch.where(turns % 2 == 1, x.rot90(1, (2, 3)), x)
            x = torch.where(turns >= 2, x.rot90(2, (2, 3)), x)
        for axis in {False: (), True: (3,), "vertical": (2,), "both": (3, 2)}[self.flip]:
            coin = torch.rand(len(x), 1, 1, 1, generator=random, device=x.device) < 0.5
            x = torch.where(coin, x.flip(axis), x)
        return _crop(x, self.crop, random) if self.crop else x

    def on_values(self, x: Tensor, random: torch.Generator) -> Tensor:
        """Changes of value, in place on the normalised picture. (B, C, H, W) -> (B, C, H, W)"""
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
            x.copy_(torch.where(_boxes(x, draw[:, 2:4], sides), noise, x))  # into x: its memory layout stays
        if self.noise:
            x.add_(torch.randn(x.shape, generator=random, device=x.device), alpha=self.noise)
        return x


def _crop(x: Tensor, pad: int, random: torch.Generator) -> Tensor:
    shift = torch.randint(2 * pad + 1, (2, len(x)), generator=random, device=x.device)
    return _at(F.pad(x, (pad, pad, pad, pad)), shift[0], shift[1], *x.shape[2:])


def cut_out(x: Tensor, height: int, width: int, random: torch.Generator | None) -> Tensor:
    """A place of each picture, drawn; the middle where random is None. (B, C, H, W) -> (B, C, height, width)"""
    room = x.shape[2] - height, x.shape[3] - width
    if random is None:
        top, left = room[0] // 2, room[1] // 2
        return x[:, :, top : top + height, left : left + width]
    top, left = (torch.randint(r + 1, (len(x),), generator=random, device=x.device) for r in room)
    if x.device.type != "cpu":
        return _at(x, top, left, height, width)
    places = zip(x, top.tolist(), left.tolist(), strict=True)  # whole rows are copied: faster than pixel by pixel
    return torch.stack([picture[:, t : t + height, c : c + width] for picture, t, c in places])


def _at(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Of each picture what lies there: (B, C, H, W), twice (B,) -> (B, C, height, width)."""
    rows = top[:, None] + torch.arange(height, device=x.device)  # (B, height)
    columns = left[:, None] + torch.arange(width, device=x.device)  # (B, width)
    sample = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _boxes(x: Tensor, centre: Tensor, sides: Tensor) -> Tensor:
    """A mask (B, 1, H, W) of boxes; centre (B, 2) in [0, 1), sides (B, 2) in pixels; cut off at the borders."""
    height, width = x.shape[2:]
    places = torch.stack((centre[:, 0] * height, centre[:, 1] * width), 1)  # a tensor of both would make a GPU wait
    low = (places - sides / 2).round()[:, :, None]  # (B, 2, 1)
    high = low + sides.round()[:, :, None]
    rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
    inside_y = (rows >= low[:, 0]) & (rows < high[:, 0])  # (B, H)
    inside_x = (columns >= low[:, 1]) & (columns < high[:, 1])  # (B, W)
    return (inside_y[:, :, None] & inside_x[:, None, :])[:, None]
