"""Whose samples a batch holds: those of one job, or, in a stack (dlrun/stack/), those of several one after another.

A step that takes its means, sums and random numbers from `task.jobs` runs for one job and for a stack of them alike.
"""

import torch
from torch import Tensor


class OneJob:
    """The whole batch is one job's. In a stack of K jobs, (B, ...) below is (K * B, ...), and () is (K,)."""

    def mean(self, values: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean over a job's values: (B, ...) -> (). weights (B,): of the samples, for values (B,)."""
        return values.mean() if weights is None else values @ weights / len(weights)

    def sum(self, values: Tensor) -> Tensor:
        """The sum over a job's values: (B, ...) -> ()."""
        return values.sum()

    def randn(self, *shape: int, device: torch.device) -> Tensor:
        """Normal random numbers (B, ...), each job's from its own seed."""
        return torch.randn(shape, device=device)

    def randn_like(self, x: Tensor) -> Tensor:
        """Normal random numbers in the shape and layout of x (B, ...)."""
        return torch.randn_like(x)

    def rand(self, *shape: int, device: torch.device) -> Tensor:
        """Random numbers (B, ...) in [0, 1)."""
        return torch.rand(shape, device=device)


ONE = OneJob()
