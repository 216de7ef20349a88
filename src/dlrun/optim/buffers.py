"""The buffers of a network, such as running statistics: copied, and restored if a step is skipped."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class BufferSnapshot:
    """A copy of a net's running statistics after the last step taken, restored if a step is skipped.

    All updates of a task share one: in a GAN, a step of one network also changes the statistics of the other.
    """

    def __init__(self, net: nn.Module) -> None:
        self.buffers = list(net.buffers())
        self.copies = [b.clone() for b in self.buffers]

    def save(self) -> None:
        copy_all(self.copies, self.buffers)

    def restore(self) -> None:
        copy_all(self.buffers, self.copies)


@torch.no_grad()
def copy_all(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    """Copy each source into its target, in place."""
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)
