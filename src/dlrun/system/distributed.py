"""Data-parallel training: the processes of one run, their shards of a batch, and the reductions between them.

All processes hold the same weights and take the same steps. Each works on its shard of a batch; gradients and metrics
are reduced to those of the whole batch. Only rank 0 writes files. torch's launcher starts the processes (launch.py, or
torchrun).
"""

import atexit
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from dlrun.errors import PeerLost
from dlrun.seeds import mix

T = TypeVar("T")


class Distributed:
    """One of the processes. A method that communicates must be called by all of them at the same time.

    rank: 0 .. size - 1. samples: of the present batch over all processes; 0 in a run of one process. share: this
    process's weight in means over the present batch. `shards` or `count` sets both, so call one before the reductions.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.samples, self.share = 0, 1 / size

    def seed(self, seed: int) -> int:
        """The seed of this process's random numbers. Rank 0's is the run's own, as in a run of one process."""
        return mix(seed, self.rank) if self.rank else seed

    def smallest_shard(self, samples: int) -> int:
        """Number of samples in the smallest shard of a batch."""
        return samples // self.size or samples

    def shards(self, batches: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process's shard of each batch. A batch of fewer samples than processes goes to all, whole."""
        for x, y in batches:
            self.samples = len(x)
            is_split = self.samples >= self.size
            if is_split:
                x, y = (each.tensor_split(self.size)[self.rank] for each in (x, y))
            self.share = len(x) / self.samples if is_split else 1 / self.size
            yield x, y

    def count(self, samples: int) -> None:
        """Set `samples` and `share` for a batch that the processes collected separately. samples: this process's."""
        if self.size > 1:
            self.samples = int(self.all_reduce_sum(torch.tensor(samples)))
            self.share = samples / self.samples

    def means(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """Reduce a step's metrics to means over the whole batch: scalars, or vectors with a value per sample."""
        if self.size == 1 or not metrics:
            return metrics
        weighted = [(v.float().mean() if v.dim() else v.float()) * self.share for v in metrics.values()]
        whole = torch.stack(weighted)
        dist.all_reduce(whole)
        return dict(zip(metrics, whole, strict=True))

    def mean(self, loss: Tensor) -> Tensor:
        """Reduce the mean loss of a shard to that of the whole batch."""
        if self.size == 1:
            return loss
        whole = loss.detach() * self.share
        dist.all_reduce(whole)
        return whole

    @torch.no_grad()
    def average_gradients(self, params: list[Tensor]) -> None:
        """All-reduce in place: per-rank mean gradients become the mean over the whole batch, weighted by shard size.

        Parameters without a gradient (frozen ones) are passed over; they are the same ones in all processes.
        """
        grads = [p.grad for p in params if p.grad is not None]
        flat = torch.cat([grad.reshape(-1) for grad in grads]).mul_(self.share)
        dist.all_reduce(flat)
        for grad, piece in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(piece.view_as(grad))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Sum over the processes, in place; returns the tensor."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_max(self, number: float) -> float:
        """The maximum of a number (in double precision) over the processes: if one process must act, all do."""
        if self.size == 1:
            return number
        maximum = torch.tensor(number, dtype=torch.float64)
        dist.all_reduce(maximum, op=dist.ReduceOp.MAX)
        return maximum.item()

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """Copy rank 0's tensors to all ranks, in place."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def is_peer_failure(self, error: BaseException) -> bool:
        """Whether an error means that another process has died."""
        words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
        return self.size > 1 and isinstance(error, RuntimeError) and any(word in str(error) for word in words)

    def gather_objects(self, value: object) -> list[Any]:
        """On rank 0, the values of ranks 1 and up, in order; on the others an empty list."""
        values = [None] * self.size if self.rank == 0 else None
        if self.size > 1:
            dist.gather_object(value, values)
        return values[1:] if values else []

    def broadcast_object(self, value: T) -> T:
        """Rank 0's value, on all ranks. Raises PeerLost if another process has died."""
        values = [value]
        if self.size > 1:
            try:
                dist.broadcast_object_list(values, 0)
            except RuntimeError as error:
                if not self.is_peer_failure(error):
                    raise
                raise PeerLost(
                    f"another of the {self.size} processes that train together ended\n"
                    "  expected all of them to run until the end"
                ) from None
        return values[0]


ALONE = Distributed()  # the only process of its run


def init_distributed(cuda: bool) -> Distributed:
    """Join the process group that torchrun's environment variables describe; without them return ALONE.

    cuda: whether gradients are on GPUs, so that NCCL reduces them.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ALONE
    if not dist.is_initialized():
        store, rank, size = next(dist.rendezvous("env://"))
        # after a restart torch's store still holds the addresses of the processes that died
        store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        atexit.register(dist.destroy_process_group)  # if its threads outlive the interpreter, the process aborts
    return Distributed(dist.get_rank(), dist.get_world_size())
