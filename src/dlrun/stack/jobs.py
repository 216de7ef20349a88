"""The samples of a batch that holds those of several jobs: means for each, and random numbers from the seed of each."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from dlrun.seeds import mix
from dlrun.stack.axes import per_job
from dlrun.tasks.jobs import ArrayT, OneJob


class Jobs(OneJob):
    """K jobs, concatenated along the batch: (K * B, ...). Each has the random numbers that it would draw alone."""

    def __init__(self, num: int, device: torch.device) -> None:
        self.num, self.shape, self.device = num, (num,), device
        self._generators = [torch.Generator(device) for _ in range(num)]
        self._due: tuple[Sequence[int], int] | None = None

    def seed(self, seeds: Sequence[int], step: int) -> None:
        """Seed each job's random numbers for a step, as if it ran alone (seeds.Reseeder)."""
        self._due = seeds, step  # most steps draw nothing

    @property
    def generators(self) -> list[torch.Generator]:
        """Each job's own."""
        if self._due is not None:
            seeds, step = self._due
            for generator, seed in zip(self._generators, seeds, strict=True):
                generator.manual_seed(mix(seed, step, 0))
            self._due = None
        return self._generators

    def mean(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        return per_job(values if weights is None else values * weights, self.num).flatten(1).mean(1)

    def sum(self, values: Tensor) -> Tensor:
        return per_job(values, self.num).flatten(1).sum(1)

    def repeat(self, x: Tensor) -> Tensor:
        return x.repeat(self.num, *[1] * (x.dim() - 1))

    def randn(self, *shape: int, device: torch.device) -> Tensor:
        return self.filled(torch.empty(shape, device=device), torch.Tensor.normal_)

    def randn_like(self, x: Tensor) -> Tensor:
        return self.filled(torch.empty_like(x), torch.Tensor.normal_)

    def rand(self, *shape: int, device: torch.device) -> Tensor:
        return self.filled(torch.empty(shape, device=device), torch.Tensor.uniform_)

    def filled(self, out: Tensor, fill: Callable) -> Tensor:
        """Fill each job's part of a tensor in place, with its own generator."""
        for part, generator in zip(per_job(out, self.num), self.generators, strict=True):
            fill(part, generator=generator)
        return out

    def standardised(self, values: Tensor) -> Tensor:
        each = per_job(values, self.num)
        return ((each - each.mean(1, keepdim=True)) / (each.std(1, keepdim=True) + 1e-8)).flatten()

    def loss(self, function: Callable[..., Tensor], *args: Tensor) -> Tensor:
        return self.mean(function(*args, reduction="none"))

    def minibatches(self, count: int, size: int, device: torch.device) -> Iterator[Tensor]:
        orders = [torch.randperm(count, generator=generator, device=device) for generator in self.generators]
        rows = torch.stack([k * count + order for k, order in enumerate(orders)])
        return (part.flatten() for part in rows.split(size, 1))

    def cat(self, *parts: Tensor) -> Tensor:
        return torch.cat([per_job(part, self.num) for part in parts], 1).flatten(0, 1)

    def split(self, x: Tensor, *sizes: int) -> tuple[Tensor, ...]:
        parts = per_job(x, self.num).split([size // self.num for size in sizes], 1)
        return tuple(part.flatten(0, 1) for part in parts)

    def flat(self, x: ArrayT) -> ArrayT:
        steps, count, *rest = x.shape
        return x.reshape(steps, self.num, -1, *rest).swapaxes(0, 1).reshape(steps * count, *rest)

    def in_time(self, x: ArrayT, steps: int) -> ArrayT:
        return x.reshape(self.num, steps, -1, *x.shape[1:]).swapaxes(0, 1).reshape(steps, -1, *x.shape[1:])

    def each(self, function: Callable[..., float], *arrays: np.ndarray) -> list[float]:
        return [function(*parts) for parts in zip(*(np.split(x, self.num, 1) for x in arrays), strict=True)]
