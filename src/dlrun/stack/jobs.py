"""The samples of a batch that holds those of several jobs: means for each, and random numbers from the seed of each."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlrun.seeds import mix
from dlrun.stack.functions import per_job
from dlrun.tasks.jobs import OneJob


class Jobs(OneJob):
    """K jobs, whose samples follow each other: (K * B, ...). It draws what each of them draws alone."""

    def __init__(self, num: int, device: torch.device) -> None:
        self.num = num
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
