"""Random rotation by any angle, zoom and shear of images, for a whole batch of bytes on its device.

Source: the book, section 9.7 (rotation, scaling, viewpoint). All three are one affine map for each image, which is
sampled once, bilinearly; pixels from outside are black.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(x: Tensor, rotate: float, zoom: float, shear: float, random: torch.Generator) -> Tensor:
    """Map each image by amounts drawn for it: uint8 (B, C, H, W) -> the same.

    rotate: largest angle in degrees, to both sides. zoom: largest factor, of size times 1 + zoom or divided by it.
    shear: largest shift of a row by its distance from the middle.
    """
    height, width = x.shape[2:]
    amounts = 2 * torch.rand(len(x), 3, generator=random, device=x.device) - 1
    angle = torch.deg2rad(amounts[:, 0] * rotate)
    scale = (1 + zoom) ** -amounts[:, 1]
    cos, sin, slope = angle.cos() * scale, angle.sin() * scale, amounts[:, 2] * shear
    # coordinates go from -1 to 1 on both axes, so that turning an image that is not square needs its ratio of sides
    ratio, zero = height / width, torch.zeros_like(cos)
    across = torch.stack((cos, (slope * cos - sin) * ratio, zero), 1)
    down = torch.stack((sin / ratio, slope * sin + cos, zero), 1)
    places = F.affine_grid(torch.stack((across, down), 1), list(x.shape), align_corners=False)
    sampled = F.grid_sample(x.float(), places, align_corners=False)
    return sampled.round_().to(torch.uint8)
