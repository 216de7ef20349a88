"""Random operations on images: TrivialAugment and RandAugment, for a whole batch of bytes on its device.

Source: Mueller and Hutter 2021, "TrivialAugment" (one operation with a random strength for each image; the wide space
of its table 2); Cubuk et al. 2020, "RandAugment" (several operations with one strength). Deviations: geometric
operations turn about the centre and take the nearest pixel, on every size of image.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.data.images.colours import GREY

GEOMETRIC = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
OPERATIONS = (
    "identity", "brightness", "contrast", "color", "sharpness", "posterize", "solarize", "autocontrast", "equalize",
    *GEOMETRIC,
)  # fmt: skip


class Space(NamedTuple):
    """The strengths at level 1: degrees, shares of the width, factors on differences, bits that posterize drops."""

    rotate: float
    shear: float
    translate: float
    blend: float
    posterize: int


TRIVIAL = Space(rotate=135.0, shear=0.99, translate=32 / 32, blend=0.99, posterize=6)
RAND = Space(rotate=30.0, shear=0.3, translate=150 / 331, blend=0.9, posterize=4)


def apply_policy(x: Tensor, policy: str, num_operations: int, level: float, random: torch.Generator) -> Tensor:
    """Change each image by operations drawn for it: uint8 (B, C, H, W) -> the same.

    policy: "trivial" applies one operation with a level drawn from 0, 1/30 .. 1; "rand" applies `num_operations`
    with this level. A coin decides the sign of operations that have one.
    """
    is_trivial = policy == "trivial"
    for _ in range(1 if is_trivial else num_operations):
        chosen = torch.randint(len(OPERATIONS), (len(x),), generator=random, device=x.device)
        levels = torch.full((len(x),), level, device=x.device)
        if is_trivial:
            levels = torch.randint(31, (len(x),), generator=random, device=x.device) / 30
        signs = 2 * torch.randint(2, (len(x),), generator=random, device=x.device) - 1
        x = operate(x, chosen, levels, signs, TRIVIAL if is_trivial else RAND)
    return x


def operate(x: Tensor, chosen: Tensor, levels: Tensor, signs: Tensor, space: Space) -> Tensor:
    """Apply the operation OPERATIONS[chosen] to each image: uint8 (B, C, H, W), three times (B,) -> uint8."""
    signed = (levels * signs).view(-1, 1, 1, 1)
    values = x.float()
    for name, change in COLOURS.items():
        values = _changed(values, chosen == OPERATIONS.index(name), (signed, levels.view(-1, 1, 1, 1)), change, space)
    x = values.round_().clamp_(0, 255).to(torch.uint8)
    return _moved(x, chosen, levels * signs, space)


def _changed(
    x: Tensor, mask: Tensor, levels: tuple[Tensor, Tensor], change: Callable[..., Tensor], space: Space
) -> Tensor:
    """Change the masked images. A CPU computes only these; a GPU computes all, as counting them would make it wait."""
    if x.device.type != "cpu":
        return torch.where(mask.view(-1, 1, 1, 1), change(x, *levels, space), x)
    rows = mask.nonzero()[:, 0]
    return x.index_copy(0, rows, change(x[rows], *(each[rows] for each in levels), space)) if len(rows) else x


def _blended(x: Tensor, other: Tensor, signed: Tensor, space: Space) -> Tensor:
    """Move away from another image, or towards it: other + (1 + strength) (x - other)."""
    return (other + (1 + signed * space.blend) * (x - other)).clamp(0, 255)


def _grey(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 1, H, W), with the weights of ITU-R 601 for red, green and blue."""
    return (x * x.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True) if x.shape[1] == 3 else x


def _smoothed(x: Tensor) -> Tensor:
    """The mean over 3 x 3 pixels with weight 5 in the middle; the border stays."""
    if min(x.shape[2:]) < 3:
        return x
    sums = torch.nn.functional.avg_pool2d(x, 3, 1) * 9
    out = x.clone()
    out[:, :, 1:-1, 1:-1] = (sums + 4 * x[:, :, 1:-1, 1:-1]) / 13
    return out


def _brightness(x: Tensor, signed: Tensor, levels: Tensor, space: Space) -> Tensor:
    return _blended(x, torch.zeros_like(x), signed, space)


def _contrast(x: Tensor, signed: Tensor, levels: Tensor, space: Space) -> Tensor:
    return _blended(x, _grey(x).mean((1, 2, 3), keepdim=True).expand_as(x), signed, space)


def _color(x: Tensor, signed: Tensor, levels: Tensor, space: Space) -> Tensor:
    return _blended(x, _grey(x).expand_as(x), signed, space)


def _sharpness(x: Tensor, signed: Tensor, levels: Tensor, space: Space) -> Tensor:
    return _blended(x, _smoothed(x), signed, space)


def _posterize(x: Tensor, signed: Tensor, levels: Tensor, space: Space) -> Tensor:
    step = 2 ** (levels * space.posterize).round()
    return (x / step).floor() * step


def _solarize(x: Tensor, signed: Tensor, levels: Tensor, space: Space) -> Tensor:
    return torch.where(x >= 255 * (1 - levels), 255 - x, x)


def _autocontrast(x: Tensor, signed: Tensor, levels: Tensor, space: Space) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return torch.where(high > low, (x - low) * (255 / (high - low).clamp(min=1)), x)


def _equalize(x: Tensor, signed: Tensor, levels: Tensor, space: Space) -> Tensor:
    """Spread each channel's values evenly, as Pillow does; the numbers of smaller pixels come from a sorted copy."""
    flat = x.flatten(2).contiguous()
    ordered = flat.sort(2).values
    below = torch.searchsorted(ordered, flat)
    step = (
        torch.searchsorted(ordered, ordered[:, :, -1:].contiguous()) // 255
    )  # without the pixels of the largest value
    spread = (step // 2 + below) // step.clamp(min=1)
    return torch.where(step > 0, spread.clamp(max=255).to(x.dtype), flat).view_as(x)


COLOURS = {
    "brightness": _brightness,
    "contrast": _contrast,
    "color": _color,
    "sharpness": _sharpness,
    "posterize": _posterize,
    "solarize": _solarize,
    "autocontrast": _autocontrast,
    "equalize": _equalize,
}


def _moved(x: Tensor, chosen: Tensor, signed: Tensor, space: Space) -> Tensor:
    """Rotate, shear or translate images; pixels from outside are black."""
    strength = {name: torch.where(chosen == OPERATIONS.index(name), signed, 0.0)[:, None, None] for name in GEOMETRIC}
    height, width = x.shape[2:]
    angle = torch.deg2rad(strength["rotate"] * space.rotate)
    y = torch.arange(height, device=x.device)[:, None] - (height - 1) / 2
    z = torch.arange(width, device=x.device)[None, :] - (width - 1) / 2
    source_y = angle.sin() * z + angle.cos() * y + space.shear * strength["shear_y"] * z
    source_z = angle.cos() * z - angle.sin() * y + space.shear * strength["shear_x"] * y
    source_y = (source_y + strength["translate_y"] * space.translate * height + (height - 1) / 2).round().long()
    source_z = (source_z + strength["translate_x"] * space.translate * width + (width - 1) / 2).round().long()
    inside = (source_y >= 0) & (source_y < height) & (source_z >= 0) & (source_z < width)  # (B, H, W)
    rows = (source_y.clamp(0, height - 1) * width + source_z.clamp(0, width - 1)).flatten(1)[:, None]
    taken = x.flatten(2).gather(2, rows.expand(-1, x.shape[1], -1)).view_as(x)
    return taken * inside[:, None]
