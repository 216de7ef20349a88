"""The losses of supervised tasks, with the weights of classes and the penalties of each job."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from dlrun.stack.axes import along, per_job
from dlrun.stack.jobs import Jobs
from dlrun.stack.net import StackedNet
from dlrun.tasks.supervised import Supervised
from dlrun.tasks.targets import TargetScaling


class Losses:
    """The loss of a stack of supervised tasks: that of each range of jobs whose losses are equal."""

    def __init__(self, losses: Sequence[Callable], bounds: Sequence[tuple[int, int]], jobs: Jobs) -> None:
        self.losses, self.bounds, self.jobs = [losses[start] for start, _ in bounds], bounds, jobs

    def __call__(self, out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """The jobs' means (K,), or with reduction="none" the losses of all samples."""
        if len(self.losses) == 1:
            losses = self.losses[0](out, y, reduction="none")
            return losses if reduction == "none" else self.jobs.mean(losses)
        size = len(y) // self.jobs.num
        parts = [slice(start * size, stop * size) for start, stop in self.bounds]
        each = [loss(out[part], y[part], reduction="none") for loss, part in zip(self.losses, parts, strict=True)]
        losses = torch.cat(each)
        return losses if reduction == "none" else self.jobs.mean(losses)


class Scalings(TargetScaling):
    """The scalings of the targets of all jobs, whose means and deviations may differ: (K * B, targets)."""

    def __init__(self, each: Sequence[TargetScaling], jobs: Jobs) -> None:
        self.jobs, pairs = jobs, [one.statistics for one in each if one.statistics is not None]
        self.statistics = None
        if pairs:
            means, stds = (torch.stack(columns)[:, None] for columns in zip(*pairs, strict=True))  # (K, 1, targets)
            self.statistics = means, stds

    def standardised(self, y: Tensor) -> Tensor:
        return y if self.statistics is None else super().standardised(per_job(y, self.jobs.num)).flatten(0, 1)

    def in_unit(self, out: Tensor) -> Tensor:
        return out if self.statistics is None else super().in_unit(per_job(out, self.jobs.num)).flatten(0, 1)


class ClassWeights:
    """The weights of the classes in the loss of each job; 1 where a job has none."""

    def __init__(self, tasks: Sequence[Supervised], jobs: Jobs) -> None:
        like = next(task.class_weights for task in tasks if task.class_weights is not None)
        weights = [task.class_weights for task in tasks]
        self.stack = torch.stack([torch.ones_like(like) if each is None else each for each in weights])
        self.jobs = jobs

    def __getitem__(self, y: Tensor) -> Tensor:
        """Labels (K * B,) -> weights (K * B,)."""
        return self.stack.gather(1, per_job(y, self.jobs.num)).flatten()


class Penalties:
    """L1 and L2 penalties with weights for each job: (K,). False if there are none."""

    def __init__(self, tasks: Sequence[Supervised], net: StackedNet) -> None:
        device = tasks[0].device.torch_device
        self.l1 = torch.tensor([task.penalty.l1 for task in tasks], device=device)
        self.l2 = torch.tensor([task.penalty.l2 for task in tasks], device=device)
        self.has_l1, self.has_l2 = bool(self.l1.any()), bool(self.l2.any())
        params = dict(tasks[0].net.named_parameters())
        penalised = next((task.penalty.weights for task in tasks if task.penalty), {})
        self.leaves = [net.leaves[params[name]] for name in penalised]

    def __bool__(self) -> bool:
        return bool(self.leaves)

    def __call__(self) -> Tensor:
        terms = []
        if self.has_l1:
            terms += [self.l1 * leaf.flatten(1).abs().sum(1) for leaf in self.leaves]
        if self.has_l2:
            terms += [self.l2 * Squares.apply(leaf) for leaf in self.leaves]
        return torch.stack(terms).sum(0)


class Squares(torch.autograd.Function):
    """The sum of squares of each job's weights: (K, ...) -> (K,). Large weights are not written another time."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor) -> Tensor:
        ctx.save_for_backward(weights)
        return torch.linalg.vector_norm(weights.flatten(1), dim=1).square()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (weights,) = ctx.saved_tensors
        return weights * along(2 * grad, weights.dim(), 1)
