"""Supervised learning of several jobs at once: one network, and a loss for each job."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Batch
from dlrun.stack.functions import NotStackable, per_job
from dlrun.stack.net import StackedNet
from dlrun.stack.update import StackedUpdate, ranges
from dlrun.tasks.base import Metrics, Task
from dlrun.tasks.supervised import Supervised


class StackedSupervised:
    """Steps of K supervised tasks.

    settings: a text for each job; neighbours with equal texts have equal losses. Raises NotStackable if a task has a
    setting that changes its steps in another way than by the loss.
    """

    def __init__(self, tasks: Sequence[Task], net: StackedNet, update: StackedUpdate, settings: Sequence[str]) -> None:
        self.tasks, self.net, self.update = [check(task) for task in tasks], net, update
        self.ranges = ranges(settings)
        device = self.tasks[0].device.torch_device
        self.l1 = torch.tensor([task.penalty.l1 for task in self.tasks], device=device)
        self.l2 = torch.tensor([task.penalty.l2 for task in self.tasks], device=device)
        params = dict(self.tasks[0].net.named_parameters())
        penalised = next((task.penalty.weights for task in self.tasks if task.penalty), {})
        self.penalised = [net.leaves[params[name]] for name in penalised]

    def step(self, batches: Sequence[Batch], clocks: Sequence[Clock]) -> tuple[Metrics, list[float]]:
        """Learn from a batch of each job, all of one size.

        Returns the metrics, (K,) or a value for each sample (K, B), and the losses with penalties.
        """
        self.net.seed([clock.seed for clock in clocks], clocks[0].step)
        losses, metrics = self.losses(batches)
        values = self.update.step(losses, clocks)
        if self.update.grad_norms is not None:
            metrics["grad_norm"] = self.update.grad_norms
        return metrics, values

    def losses(self, batches: Sequence[Batch]) -> tuple[Tensor, Metrics]:
        """The losses (K,) and the metrics of a batch of each job."""
        x, *targets = (torch.cat(column) for column in zip(*batches, strict=True))
        with self.tasks[0].device.autocast():
            out = self.net(x)
        size = len(batches[0][0])
        parts = [self._judged(out, targets, slice(a * size, b * size), a, b - a) for a, b in self.ranges]
        losses = torch.cat([part[0] for part in parts])
        metrics = {name: torch.cat([part[1][name] for part in parts]) for name in parts[0][1]}
        if self.penalised:
            flat = [leaf.flatten(1) for leaf in self.penalised]
            losses = losses + self.l1 * torch.stack([w.abs().sum(1) for w in flat]).sum(0)
            losses = losses + self.l2 * torch.stack([w.square().sum(1) for w in flat]).sum(0)
        return losses, metrics

    def _judged(
        self, out: Tensor | tuple[Tensor, ...], targets: list[Tensor], rows: slice, first: int, k: int
    ) -> tuple[Tensor, Metrics]:
        """The losses and the metrics of k neighbours whose losses are equal. rows: of their samples."""
        task = self.tasks[first]
        y, *weights = (target[rows] for target in targets)

        def criterion(out: Tensor, y: Tensor) -> Tensor:
            losses = task.losses(out, y)
            return per_job(losses * weights[0] if weights else losses, k).mean(1)

        some = tuple(each[rows] for each in out) if isinstance(out, tuple) else out[rows]
        losses, metrics = task.judge(some, y, criterion=criterion)
        return losses, {name: value if len(value) == k else per_job(value, k) for name, value in metrics.items()}


def is_of_dlrun(loss: Callable) -> bool:
    """Whether a loss, or what it calls, is one of this package's, which give a loss for each sample."""
    while isinstance(loss, partial):
        inner = next((each for each in loss.args if callable(each)), None)
        loss = inner or loss.func
    return str(loss.__module__).startswith("dlrun.")


def check(task: Task) -> Supervised:
    """Return the task. Raises NotStackable if its steps have no stacked form."""
    if type(task) is not Supervised:
        raise NotStackable(f"{type(task).__name__}: this task has no stacked form")
    freezing = task.freezing
    in_the_way = {
        "trainer.processes": task.device.dist.size > 1,
        "trainer.cuda_graph": task.graphs is not None,
        "task.grad_accum_steps": task.grad_accum_steps > 1,
        "task.mixup or task.cutmix": bool(task.mixing),
        "task.resize": bool(task.resizing.moments),
        "task.class_weights": task.class_weights is not None,
        "task.threshold": bool(task.scoring.decision.metric),
        "a loss of your own": not is_of_dlrun(task.loss),
        "task.freeze": bool(freezing.moments) or any(start for start in freezing.start.values()),
    }
    if found := [key for key, is_set in in_the_way.items() if is_set]:
        raise NotStackable(f"{found[0]} has no stacked form")
    return task
