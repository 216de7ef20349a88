"""The jobs whose samples a batch holds: one, or, in a stack (dlrun/stack/), several one after another.

A step that takes its means, sums and random numbers from `task.jobs` runs for one job and for a stack of them alike.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

ArrayT = TypeVar("ArrayT", np.ndarray, Tensor)


class OneJob:
    """The whole batch is one job's. In a stack of K jobs, (B, ...) below is (K * B, ...), and () is (K,).

    Environments are stepped together: N below is K * N, with time as the first axis.
    """

    num = 1
    shape: tuple[int, ...] = ()  # of a value for each job

    def mean(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean over a job's values: (B, ...) -> (). weights (B,): of the samples, for values (B,)."""
        return values.mean() if weights is None else values @ weights / len(weights)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over a job's values: (B, ...) -> ()."""
        return values.sum()

    def repeat(self, x: Tensor) -> Tensor:
        """The same samples (B, ...) for each job."""
        return x

    def randn(self, *shape: int, device: torch.device) -> Tensor:
        """Normal random numbers (B, ...), each job's from its own seed."""
        return torch.randn(shape, device=device)

    def randn_like(self, x: Tensor) -> Tensor:
        """Normal random numbers in the shape and layout of x (B, ...)."""
        return torch.randn_like(x)

    def rand(self, *shape: int, device: torch.device) -> Tensor:
        """Random numbers (B, ...) in [0, 1)."""
        return torch.rand(shape, device=device)

    def standardised(self, values: Tensor) -> Tensor:
        """Values (B,) minus their mean, over their standard deviation."""
        return (values - values.mean()) / (values.std() + 1e-8)

    def loss(self, function: Callable[..., Tensor], *args: Tensor) -> Tensor:
        """The mean of one of torch's losses, which take `reduction`."""
        return function(*args)

    def minibatches(self, count: int, size: int, device: torch.device) -> Iterator[Tensor]:
        """Rows of a batch (B, ...) of `count` in random order, each once, `size` at a time. count, size: of one job."""
        return iter(torch.randperm(count, device=device).split(size))

    def cat(self, *parts: Tensor) -> Tensor:
        """(A, ...) and (B, ...) -> (A + B, ...)"""
        return torch.cat(parts)

    def split(self, x: Tensor, *sizes: int) -> tuple[Tensor, ...]:
        """(A + B, ...) -> (A, ...) and (B, ...), which have these lengths."""
        return x.split(sizes)

    def flat(self, x: ArrayT) -> ArrayT:
        """(T, N, ...) -> (T * N, ...)"""
        return x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])

    def in_time(self, x: ArrayT, steps: int) -> ArrayT:
        """(T * N, ...) -> (T, N, ...)"""
        return x.reshape(steps, -1, *x.shape[1:])

    def each(self, function: Callable[..., float], *arrays: np.ndarray) -> float | list[float]:
        """A number from arrays (T, N)."""
        return function(*arrays)


ONE = OneJob()
