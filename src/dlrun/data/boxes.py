"""Boxes in images, as masks for a whole batch."""

import torch
from torch import Tensor


def boxes(x: Tensor, centre: Tensor, sides: Tensor) -> Tensor:
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
