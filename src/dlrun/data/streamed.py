"""A data set that does not fit: batches are read from the memory map ahead of time, by threads, pinned for CUDA.

Orders, chunks and random numbers are those of `Resident`: the batches are the same to the bit.
"""

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor

from dlrun.data.resident import Prepare, chunks, hashed, sampled
from dlrun.seeds import generator

AHEAD = 4  # chunks that are read at once: what a disk needs to be busy


class Streamed:
    """Train, val and test parts in one memory-mapped array. x: (N, *shape); y: (N,); parts: rows, by name."""

    def __init__(
        self, x: np.ndarray, y: np.ndarray, parts: dict[str, np.ndarray], device: torch.device, prepare: Prepare
    ) -> None:
        self.x, self.y = x, torch.from_numpy(y)
        self.rows = {name: torch.from_numpy(rows) for name, rows in parts.items()}
        self.device, self.prepare = device, prepare

    def size(self, split: str) -> int:
        return sum(map(len, self.rows.values())) if split == "all" else len(self.rows[split])

    def digest(self) -> str:
        """That of the same data on the device."""
        pools = self.rows.values()
        return hashed((rows, torch.from_numpy(self.x[sampled(rows).numpy()]), self.y[rows]) for rows in pools)

    def describe(self) -> str:
        return f"read ahead from its cache, {self.x.nbytes / 2**20:,.1f} MB as {self.x.dtype}"

    def train(self, batch_size: int, seed: int, epoch: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch from the `first` on; the last may be smaller."""
        rows = self.rows["train"]
        order = rows[torch.randperm(len(rows), generator=generator("cpu", seed, epoch))]
        plan = list(chunks(order, self.x[0].size, batch_size, first))
        for (start, _, skip), (stored, y) in zip(plan, self._read([some for _, some, _ in plan]), strict=True):
            x = self.prepare(stored, generator(self.device, seed, epoch, 1 + start))
            yield from islice(zip(x.split(batch_size), y.split(batch_size), strict=True), skip, None)

    def evaluate(self, split: str, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """All of a split, or of all, in its own order, without augmentation."""
        if split == "all":
            for part in self.rows:
                yield from self.evaluate(part, batch_size)
            return
        for stored, y in self._read(self.rows[split].split(batch_size)):
            yield self.prepare(stored, None), y

    def _read(self, lots: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """The stored rows and labels of each lot, on the device, while later ones are read."""
        with ThreadPoolExecutor(AHEAD, thread_name_prefix="read ahead") as pool:
            waiting: deque = deque()
            try:
                for i in range(len(lots) + AHEAD):
                    if i < len(lots):
                        waiting.append(pool.submit(self._take, lots[i]))
                    if i >= AHEAD:
                        yield tuple(t.to(self.device, non_blocking=True) for t in waiting.popleft().result())
            finally:  # the epoch was left early
                for future in waiting:
                    future.cancel()

    def _take(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk, in memory that a GPU can fetch from by itself. NumPy reads without holding the interpreter."""
        pinned = self.device.type == "cuda"
        x = torch.empty((len(rows), *self.x.shape[1:]), dtype=torch.uint8, pin_memory=pinned)
        y = torch.empty(len(rows), dtype=torch.int64, pin_memory=pinned)
        np.take(self.x, rows.numpy(), 0, x.numpy(), "clip")  # rows are in range; "raise" would copy once more
        return x, torch.index_select(self.y, 0, rows, out=y)


def free_memory(device: torch.device) -> int:
    """Bytes that could be taken on a device now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = [_first_number("/proc/meminfo", "MemAvailable:") * 1024]
    found.append(_first_number("/sys/fs/cgroup/memory.max") - _first_number("/sys/fs/cgroup/memory.current"))
    if not any(bytes_ > 0 for bytes_ in found) and hasattr(os, "sysconf"):
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
    return min((bytes_ for bytes_ in found if bytes_ > 0), default=2**32)


def _first_number(path: str, name: str = "") -> int:
    """The number behind `name` in a file of the kernel's; 0 where there is none."""
    try:
        with open(path, encoding="ascii") as file:
            line = next(line for line in file if line.startswith(name))
        return int(line.removeprefix(name).split()[0])
    except (OSError, ValueError, StopIteration, IndexError):
        return 0
