"""Random augmentations of images that keep the label (the book, section 9.7), for a whole batch on its device."""

import inspect
from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.base import AugmentContext
from dlrun.data.boxes import boxes
from dlrun.data.images.colours import recolour
from dlrun.data.images.random_augment import apply_policy
from dlrun.data.images.warps import warp
from dlrun.errors import UserError, counted
from dlrun.seeds import generator
from dlrun.types import Change, Few, Fraction, Index, Range


@dataclass(frozen=True)
class Augment:
    """The augmentations of the train split; 0 or false turns each of them off.

    flip: flip half of the images; true: left-right, vertical: top-bottom, both: each of the two independently;
    alternate: left-right, each image in every second epoch (Jordan 2024, arXiv 2404.00498, section 3.6).
    crop: pad each side by this number of pixels, then crop at random. pad: black pixels or a reflection.
    rot90: rotate by 0 to 3 quarter turns. rotate, zoom, shear: see data/images/warps.py.
    cutout: side of a square that is set to the mean (DeVries and Taylor 2017).
    erase: share of images that get a box of noise (Zhong et al. 2017).
    noise: standard deviation of Gaussian noise on the normalised image. jitter: largest change of brightness (added to
    the normalised image) and of contrast (a factor around 1). saturation, hue: see data/images/colours.py. policy:
    random operations (random_augment.py): trivial, or rand with `policy_ops` operations of strength `policy_level`.
    own: functions of the user's own, (x) or (x, context), which change normalised images at the end and keep their
    shape. In a config a list stands for some of these: [flip, {crop: 4}, mynets.augment.brightness].
    """

    flip: bool | Literal["vertical", "both", "alternate"] = False
    crop: Index = 0  # pixels
    pad: Literal["black", "reflect"] = "black"
    rot90: bool = False
    rotate: Annotated[float, Range(0, 180)] = 0.0  # degrees
    zoom: Annotated[float, Range(0, 10)] = 0.0
    shear: Annotated[float, Range(0, 10)] = 0.0
    cutout: Index = 0  # pixels
    erase: Fraction = 0.0
    noise: Annotated[float, Range(0, 1000)] = 0.0
    jitter: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Range(0, 0.5)] = 0.0  # turns
    policy: Literal["none", "trivial", "rand"] = "none"
    policy_ops: Few = 2
    policy_level: Fraction = 0.3
    own: list[Change] = field(default_factory=list)

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise UserError if images of this shape (C, H, W) cannot be augmented in this way."""
        channels, height, width = shape
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

        if (self.saturation or self.hue) and channels != 3:
            raise UserError(
                f"data.augment.saturation={self.saturation} data.augment.hue={self.hue}: images of "
                f"{counted(channels, 'channel')} have no colours\n  expected images of 3 channels (red, green and "
                "blue), or saturation=0 and hue=0; data.augment.jitter changes brightness and contrast"
            )
        for change in self.own:
            context = AugmentContext(generator("cpu", 0), 0, 0, torch.arange(2))
            try:
                _changed(change, torch.zeros(2, *shape), context)
            except UserError:
                raise
            except Exception as error:  # the user's code raises anything
                raise UserError(
                    f"data.augment: {_name(change)} failed on two images: {type(error).__name__}: {error}\n"
                    f"{_expected(torch.float32, (2, *shape))}"
                ) from error

    def on_bytes(self, x: Tensor, context: AugmentContext) -> Tensor:
        """Move pixels: rot90, flip, warp, crop; then the policy, saturation and hue. (B, C, H, W) -> same

        On stored bytes, which are a quarter of floats' memory traffic. A mask may be a fourth channel.
        """
        random = context.random
        if self.rot90:
            turns = torch.randint(4, (len(x),), generator=random, device=x.device).view(-1, 1, 1, 1)
            x = torch.where(turns % 2 == 1, x.rot90(1, (2, 3)), x)
            x = torch.where(turns >= 2, x.rot90(2, (2, 3)), x)
        if self.flip == "alternate":
            x = torch.where(context.alternating().view(-1, 1, 1, 1), x.flip(3), x)
        for axis in {True: (3,), "vertical": (2,), "both": (3, 2)}.get(self.flip, ()):
            coin = torch.rand(len(x), 1, 1, 1, generator=random, device=x.device) < 0.5
            x = torch.where(coin, x.flip(axis), x)
        if self.rotate or self.zoom or self.shear:
            x = warp(x, self.rotate, self.zoom, self.shear, random)
        x = _crop(x, self.crop, random, self.pad == "reflect") if self.crop else x
        if self.policy != "none":
            x = apply_policy(x, self.policy, self.policy_ops, self.policy_level, random)
        if self.saturation or self.hue:
            x = torch.cat((recolour(x[:, :3], self.saturation, self.hue, random), x[:, 3:]), 1)
        return x

    def on_values(self, x: Tensor, context: AugmentContext) -> Tensor:
        """Change values: jitter, cutout, erase, noise, the user's own. In place. (B, C, H, W), normalised -> same"""
        random, size = context.random, (len(x), 2)
        if self.jitter:
            change = self.jitter * (2 * torch.rand(2, len(x), 1, 1, 1, generator=random, device=x.device) - 1)
            x.add_(change[0]).mul_(1 + change[1])
        if self.cutout:
            centre = torch.rand(size, generator=random, device=x.device)
            sides = torch.full(size, float(self.cutout), device=x.device)
            x.masked_fill_(boxes(x, centre, sides), 0.0)  # 0 is the mean of the data
        if self.erase:
            numbers = torch.rand(len(x), 5, generator=random, device=x.device)
            area = (0.02 + 0.38 * numbers[:, 0]) * x.shape[2] * x.shape[3]
            ratio = torch.exp((2 * numbers[:, 1] - 1) * 1.204)  # height to width, from 0.3 to 1 / 0.3
            sides = torch.stack(((area * ratio).sqrt(), (area / ratio).sqrt()), 1) * (numbers[:, 4:] < self.erase)
            noise = torch.randn(x.shape, generator=random, device=x.device)
            x.copy_(torch.where(boxes(x, numbers[:, 2:4], sides), noise, x))  # into x, to keep its memory format
        if self.noise:
            x.add_(torch.randn(x.shape, generator=random, device=x.device), alpha=self.noise)
        for change in self.own:
            x = _changed(change, x, context)
        return x


def _changed(change: Change, x: Tensor, context: AugmentContext) -> Tensor:
    """Images, changed by a function of the user's own. Raises UserError if it returned anything else."""
    kind, shape = x.dtype, x.shape
    takes_context = "context" in inspect.signature(change.func).parameters
    out = change(x=x, context=context) if takes_context else change(x=x)
    if not isinstance(out, Tensor) or out.shape != shape or out.dtype != kind:
        found = f"{out.dtype} {tuple(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
        raise UserError(f"data.augment: {_name(change)} returned {found}\n{_expected(kind, shape)}")
    return out


def _name(change: Change) -> str:
    return f"{change.func.__module__}.{change.func.__name__}"


def _expected(kind: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"  expected {kind} {tuple(shape)}, as it got"


def _crop(x: Tensor, pad: int, random: torch.Generator, is_reflected: bool) -> Tensor:
    shift = torch.randint(2 * pad + 1, (2, len(x)), generator=random, device=x.device)
    if is_reflected:
        return _at(x, shift[0] - pad, shift[1] - pad, *x.shape[2:])
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
    """Crop each image at its own corner: (B, C, H, W), top and left (B,) -> (B, C, height, width).

    Pixels outside are reflections.
    """
    last_row, last_column = x.shape[2] - 1, x.shape[3] - 1
    rows = top[:, None] + torch.arange(height, device=x.device)  # (B, height)
    columns = left[:, None] + torch.arange(width, device=x.device)  # (B, width)
    rows, columns = last_row - (last_row - rows.abs()).abs(), last_column - (last_column - columns.abs()).abs()
    sample = torch.arange(len(x), device=x.device)[:, None, None]
    return x.permute(0, 2, 3, 1)[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
