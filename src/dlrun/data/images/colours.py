"""Random saturation and hue of images in red, green and blue, for a whole batch of bytes on its device.

Source: the book, section 9.7 (colour). The hue is turned in the cone of hue, saturation and value (Smith 1978).
"""

import torch
from torch import Tensor

GREY = (0.299, 0.587, 0.114)  # weights of red, green and blue by ITU-R 601


def recolour(x: Tensor, saturation: float, hue: float, random: torch.Generator) -> Tensor:
    """Change each image's colours by amounts drawn for it: uint8 (B, 3, H, W) -> the same.

    saturation: largest change of the distance from grey, a factor around 1. hue: largest turn of the colour circle, in
    turns, to both sides.
    """
    amounts = 2 * torch.rand(2, len(x), 1, 1, 1, generator=random, device=x.device) - 1
    values = x.float()
    if saturation:
        grey = (values * values.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)
        values = torch.lerp(grey, values, 1 + saturation * amounts[0]).clamp_(0, 255)
    if hue:
        values = turned(values, hue * amounts[1])
    return values.round_().to(torch.uint8)


def turned(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue, and keep the largest and the least value of each pixel: x (B, 3, H, W), turns (B, 1, 1, 1)."""
    red, green, blue = x.split(1, 1)
    high, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    spread = high - low  # 0: grey, of any hue
    towards = torch.where(
        high == red, green - blue, torch.where(high == green, blue - red + 2 * spread, red - green + 4 * spread)
    )
    sixth = towards / spread.clamp(min=1e-6) + 6 * turns  # red is at 0, green at 2, blue at 4
    place = (x.new_tensor([5.0, 3.0, 1.0]).view(3, 1, 1) + sixth) % 6
    return high - spread * torch.minimum(place, 4 - place).clamp(0, 1)
