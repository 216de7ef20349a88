"""A data set that does not fit on the device: threads read batches ahead from a memory map, pinned for CUDA.

Orders, chunks and random numbers are those of `Resident`: the batches are the same to the bit.
"""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import AugmentContext
from dlrun.data.orders import epoch_order
from dlrun.data.resident import Prepare, chunks, distinct, hashed, sampled
from dlrun.seeds import generator
from dlrun.types import Sampler

AHEAD = 4  # chunks that are read concurrently, to keep a disk busy


class Streamed:
    """Train, val and test splits in one memory-mapped array. x: (N, *shape); y: (N,); splits: row indices by split."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, splits: dict[str, np.ndarray], device: torch.device, prepare: Prepare
    ) -> None:
        self.x, self.y = x, torch.from_numpy(y)
        self.rows = {name: torch.from_numpy(rows) for name, rows in splits.items()}
        self.device, self.prepare = device, prepare

    def size(self, split: str) -> int:
        """Return the number of samples of a split, or of all splits for "all"."""
        return sum(len(self.rows[each]) for each in distinct(self.rows)) if split == "all" else len(self.rows[split])

    def targets(self, split: str) -> Tensor:
        """Return the labels of a split, in stored order."""
        return self.y[self.rows[split]]

    def digest(self) -> str:
        """Return the digest that the same data has on the device."""
        pools = self.rows.values()
        return hashed((rows, torch.from_numpy(self.x[sampled(rows).numpy()]), self.y[rows]) for rows in pools)

    def describe(self) -> str:
        return f"read ahead from its cache, {self.x.nbytes / 2**20:,.1f} MB as {self.x.dtype}"

    def train(
        self, batch_size: int, sampler: Sampler, seed: int, epoch: int, first: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of an epoch from batch `first` on. The last one may be smaller. sampler: see orders.py."""
        rows = self.rows["train"]
        order = rows[epoch_order(len(rows), partial(self.targets, "train"), sampler, seed, epoch)]
        plan = list(chunks(order, self.x[0].size, batch_size, first))
        for (start, chunk, skip), (stored, y) in zip(plan, self._read([chunk for _, chunk, _ in plan]), strict=True):
            context = AugmentContext(generator(self.device, seed, epoch, 1 + start), seed, epoch, chunk.to(self.device))
            x = self.prepare(stored, context)
            yield from islice(zip(x.split(batch_size), y.split(batch_size), strict=True), skip, None)

    def evaluate(self, split: str, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches of a split in stored order, without augmentation. "all": those of every split."""
        if split == "all":
            for each in distinct(self.rows):
                yield from self.evaluate(each, batch_size)
            return
        for stored, y in self._read(self.rows[split].split(batch_size)):
            yield self.prepare(stored, None), y

    def _read(self, indices: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the stored samples and labels of each chunk of indices, on the device, while later chunks are read."""
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="read ahead") as pool:
            waiting: deque = deque()
            try:
                for i in range(len(indices) + AHEAD):
                    if i < len(indices):
                        waiting.append(pool.submit(self._take, indices[i]))
                    if i >= AHEAD:
                        yield tuple(t.to(self.device, non_blocking=True) for t in waiting.popleft().result())
            finally:  # if the epoch is left early
                for future in waiting:
                    future.cancel()

    def _take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Read one chunk, for CUDA into pinned memory. NumPy releases the interpreter lock while it reads."""
        pinned = self.device.type == "cuda"
        x = torch.empty((len(rows), *self.x.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        y = torch.empty(len(rows), dtype=torch.int64, pin_memory=pinned)
        np.take(self.x, rows.numpy(), 0, x.numpy(), "clip")  # rows are in range; "raise" would copy once more
        return x, torch.index_select(self.y, 0, rows, out=y)


def free_memory(device: torch.device) -> int:
    """Return the number of bytes that can be allocated on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = [_first_number("/proc/meminfo", "MemAvailable:") * 1024]
    limits.append(_first_number("/sys/fs/cgroup/memory.max") - _first_number("/sys/fs/cgroup/memory.current"))
    if not any(limit > 0 for limit in limits) and hasattr(os, "sysconf"):
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min((limit for limit in limits if limit > 0), default=2**32)


def _first_number(path: str, name: str = "") -> int:
    """Return the number after `name` in a kernel file; 0 if there is none."""
    try:
        with open(path, encoding="ascii") as file:
            line = next(line for line in file if line.startswith(name))
        return int(line.removeprefix(name).split()[0])
    except (OSError, ValueError, StopIteration, IndexError):
        return 0
