"""The processes that train one run together: which of them one is, and what they have to agree on.

All hold the same weights and take the same steps: each works its share of a batch, gradients and metrics are those of
the whole. Only the first writes. The processes are started by torch's own launcher (see launch.py, or torchrun).
"""

import atexit
import os
from collections.abc import Iterable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from dlrun.errors import PeerLost
from dlrun.seeds import mix


class Distributed:
    """rank: 0 .. size - 1. Of the batch under way: samples, of all processes, and share, this process's part of it."""

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size
        self.samples, self.share = 0, 1 / size

    def seed(self, seed: int) -> int:
        """What this process draws its noise from: the first as a run of one process does."""
        return mix(seed, self.rank) if self.rank else seed

    def smallest_part(self, samples: int) -> int:
        """Of a batch of so many."""
        return samples // self.size or samples

    def parts(self, batches: Iterator[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
        """This process's part of each batch; of one with fewer samples than processes, all have the whole."""
        for batch in batches:
            self.samples = len(batch[0])
            is_split = self.samples >= self.size
            part = tuple(each.tensor_split(self.size)[self.rank] for each in batch) if is_split else batch
            self.share = len(part[0]) / self.samples if is_split else 1 / self.size
            yield part

    def count(self, samples: int) -> None:
        """The batch under way is one that each process made for itself: this one's has so many samples."""
        if self.size > 1:
            self.samples = int(self.all_reduce_sum(torch.tensor(samples)))
            self.share = samples / self.samples

    def means(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """A step's metrics over the whole batch. Vectors hold a value per sample."""
        if self.size == 1 or not metrics:
            return metrics
        parts = [(v.float().mean() if v.dim() else v.float()) * self.share for v in metrics.values()]
        whole = torch.stack(parts)
        dist.all_reduce(whole)
        return dict(zip(metrics, whole, strict=True))

    def mean(self, loss: Tensor) -> Tensor:
        """A loss over the whole batch."""
        if self.size == 1:
            return loss
        whole = loss.detach() * self.share
        dist.all_reduce(whole)
        return whole

    @torch.no_grad()
    def average_gradients(self, params: list[Tensor]) -> None:
        """Each process's gradient is of the mean over its part: in place, to that of the mean over the whole batch.

        Those that have none (frozen ones) have none in any process.
        """
        grads = [p.grad for p in params if p.grad is not None]
        flat = torch.cat([grad.reshape(-1) for grad in grads]).mul_(self.share)
        dist.all_reduce(flat)
        for grad, piece in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(piece.view_as(grad))

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """Added up over the processes."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def all_reduce_max(self, *flags: int) -> tuple[int, ...]:
        """The largest of each flag over the processes: what one has to do, all do."""
        if self.size == 1:
            return flags
        found = torch.tensor(flags)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return tuple(found.tolist())

    def broadcast_tensors(self, tensors: Iterable[Tensor]) -> None:
        """In place, what the first process has: running statistics, which each took of its own part."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def is_peer_failure(self, error: BaseException) -> bool:
        """Whether this is what is raised where another process is not there any more."""
        words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer")
        return self.size > 1 and isinstance(error, RuntimeError) and any(word in str(error) for word in words)

    def gather_objects(self, value: object) -> list:
        """The other processes' values, by rank, to the first; none to them. To be called by all at the same time."""
        found = [None] * self.size if self.rank == 0 else None
        if self.size > 1:
            dist.gather_object(value, found)
        return found[1:] if found else []

    def broadcast_object(self, value: object) -> object:
        """The first process's value, to all."""
        found = [value]
        if self.size > 1:
            try:
                dist.broadcast_object_list(found, 0)
            except RuntimeError as error:
                if not self.lost(error):
                    raise
                raise PeerLost(
                    f"another of the {self.size} processes that train together ended\n"
                    "  expected all of them until the end"
                ) from None
        return found[0]


ALONE = Distributed()


def init_distributed(cuda: bool) -> Distributed:
    """The world that torchrun's environment variables speak of; without them, a process alone."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return ALONE
    if not dist.is_initialized():
        store, rank, size = next(dist.rendezvous("env://"))
        # after a restart torch's store still holds the addresses of those that died
        store = dist.PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
        atexit.register(dist.destroy_process_group)  # its threads must not outlive the interpreter, which would abort
    return Distributed(dist.get_rank(), dist.get_world_size())
