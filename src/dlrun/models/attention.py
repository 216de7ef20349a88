"""Self-attention over the positions of feature maps (Zhang et al. 2019, "Self-attention GANs", section 3)."""

import torch
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """Maps (B, C, H, W) plus a learned multiple of what each position gathers from all others; the same shape.

    Queries and keys have C / 8 channels, at least one. The multiple starts at 0, so that the network first learns from
    neighbours.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.query, self.key = nn.Conv2d(channels, inner, 1), nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))  # (B, channels, HW)
        shares = (q.transpose(1, 2) @ k).softmax(2)  # (B, HW, HW); torch's fused form has no second derivative
        return x + self.scale * (v @ shares.transpose(1, 2)).reshape(x.shape)
