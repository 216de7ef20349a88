"""Gradient accumulation: a batch is processed in micro-batches, whose gradients are added.

Also whether a net can learn from the smallest of them.
"""

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

from dlrun.data.base import Batch, SampleData
from dlrun.errors import UserError
from dlrun.spec import Spec
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics


def accumulate(
    batch: Batch, num: int, learn: Callable[..., tuple[Tensor, Metrics]], backward: Callable[[Tensor], None]
) -> tuple[Tensor, Tensor, Metrics]:
    """Learn from a batch in `num` micro-batches, with the gradient of the mean over the whole batch.

    learn: a micro-batch -> its loss and metrics. backward: adds the gradient of a loss. Returns the last micro-batch's
    loss, which is left to be propagated back, the sum of the others' losses, and the metrics of the whole batch.
    """
    num_samples = len(batch[0])
    micro_batches = list(zip(*(column.chunk(num) for column in batch), strict=True))
    earlier, gathered = torch.zeros((), device=batch[0].device), []
    for i, micro_batch in enumerate(micro_batches):
        loss, metrics = learn(*micro_batch)
        share = len(micro_batch[0]) / num_samples  # they count by size: the sum is the mean over the batch
        loss = loss * share
        gathered.append({k: v * share if v.dim() == 0 else v for k, v in metrics.items()})
        if i < len(micro_batches) - 1:
            backward(loss)
            earlier += loss.detach()
    columns = {name: [metrics[name] for metrics in gathered] for name in gathered[0]}
    return loss, earlier, {name: torch.cat(v) if v[0].dim() else torch.stack(v).sum() for name, v in columns.items()}


def check_micro_batches(data: SampleData, net: nn.Module, spec: Spec, device: Device, num: int) -> None:
    """Raise UserError if a batch has fewer samples than micro-batches, or if one has too few samples for the net."""
    if num > (most := min(data.batch_size, data.size("train"))):
        raise UserError(f"task.grad_accum_steps={num}: a batch has {most:,} samples\n  expected at most {most}")
    if smallest_micro_batch(data, device, num) == 1 and not learns_from_one(net, spec):
        raise UserError(
            f"data.batch_size={data.batch_size} with task.grad_accum_steps={num} puts one of the "
            f"{data.size('train')} train samples into a micro-batch alone, and batch normalisation needs two or more\n"
            "  expected another data.batch_size, or another model.norm"
        )


def smallest_micro_batch(data: SampleData, device: Device, num: int = 1) -> int:
    """Number of samples in the smallest micro-batch of an epoch: the fewest that the net sees at once."""
    whole = min(data.batch_size, data.size("train"))
    sizes = (whole, data.size("train") % whole or whole)
    return min(_last(device.dist.smallest_shard(size), num) for size in sizes)


def _last(size: int, num: int) -> int:
    """Number of samples in the last and smallest micro-batch of a batch, as `Tensor.chunk` divides it."""
    each = -(-size // num)
    return size % each or each


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
