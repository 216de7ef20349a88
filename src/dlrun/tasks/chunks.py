"""Chunks of a batch that a net sees at once, and whether it learns from the smallest."""

from copy import deepcopy

import torch
from torch import nn

from dlrun.data.base import SampleData
from dlrun.spec import Spec
from dlrun.system.device import Device


def smallest_chunk(data: SampleData, device: Device, num_chunks: int = 1) -> int:
    """Number of samples in the smallest chunk of an epoch's batches: the fewest that the net sees at once."""
    whole = min(data.batch_size, data.size("train"))
    sizes = (whole, data.size("train") % whole or whole)
    return min(_last_chunk(device.dist.smallest_shard(size), num_chunks) for size in sizes)


def _last_chunk(size: int, num_chunks: int) -> int:
    """Number of samples in the last and smallest chunk of a batch, as `Tensor.chunk` divides it."""
    chunk = -(-size // num_chunks)
    return size % chunk or chunk


def learns_from_one(net: nn.Module, spec: Spec) -> bool:
    """Whether a training pass over one sample works. Batch normalisation fails if a channel has only one value.

    Synchronised batch normalisation also sees the samples of the other processes.
    """
    if any(isinstance(m, nn.SyncBatchNorm) for m in net.modules()):
        return True
    try:
        deepcopy(net).to("meta").train().forward(torch.empty(1, *spec.shape, device="meta"))
    except ValueError:
        return False
    return True
