"""Steps of several tasks at once, by the code of the first: its `step` runs on the batches of all."""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import cast

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Batch
from dlrun.errors import Diverged
from dlrun.stack.functions import NotStackable, per_job
from dlrun.stack.jobs import Jobs
from dlrun.stack.net import StackedNet
from dlrun.stack.update import StackedUpdate, ranges
from dlrun.tasks.base import Metrics, Task
from dlrun.tasks.segmentation import Segment
from dlrun.tasks.supervised import Supervised


class Lockstep:
    """K tasks of one kind.

    task: a copy of the first whose network, updates and means are those of all. settings: a text for each job with the
    task's keys but l1 and l2; neighbours with equal texts have equal losses. Raises NotStackable if a step of the tasks
    has no stacked form.
    """

    def __init__(
        self, tasks: Sequence[Task], net: StackedNet, updates: Mapping[str, StackedUpdate], settings: Sequence[str]
    ) -> None:
        self.tasks, self.net, self.updates = [check(task) for task in tasks], net, updates
        self.task: Task = copy(tasks[0])
        self.task.net, self.task.jobs = net.net, net.jobs
        if isinstance(self.task, Supervised):
            each = cast("list[Supervised]", self.tasks)
            self.task.loss = Losses([task.loss for task in each], ranges(settings), net.jobs)
            self.task.penalty = Penalties(each, net)  # type: ignore[assignment]  # stands for a Penalty
        elif len(set(settings)) > 1:
            raise NotStackable(f"the keys of task={type(self.task).__name__.lower()} are others in some of the jobs")
        self.use(updates)

    def use(self, updates: Mapping[str, object]) -> None:
        """Let the steps end in these updates."""
        for name, update in updates.items():
            setattr(self.task, name, update)

    def step(self, batches: Sequence[Batch], clocks: Sequence[Clock]) -> Metrics:
        """Learn from a batch of each job, all of one size. Returns metrics: (K,), or a value for each sample (K, B)."""
        self.net.jobs.seed([clock.seed for clock in clocks], clocks[0].step)
        together = tuple(torch.cat(column) for column in zip(*batches, strict=True))
        metrics, k = self.task.step(together, clocks[0]), self.net.jobs.num
        if common := [name for name, value in metrics.items() if not value.dim()]:
            raise NotStackable(f"{common[0]} of {type(self.task).__name__} is not a mean of task.jobs")
        return {name: value if len(value) == k else per_job(value, k) for name, value in metrics.items()}

    def diverged(self, clocks: Sequence[Clock]) -> dict[int, Diverged]:
        """The errors of the jobs, by their place in the stack, whose losses in the last step were not finite."""
        found: dict[int, Diverged] = {}
        for name, update in self.updates.items():
            for k in update.broken():
                found.setdefault(k, self.tasks[k].named_updates()[name].diverged(update.values[k], clocks[k]))
        return found


class Losses:
    """The loss of a stack of supervised tasks: that of each range of jobs whose losses are equal."""

    def __init__(self, losses: Sequence[Callable], bounds: Sequence[tuple[int, int]], jobs: Jobs) -> None:
        self.losses, self.bounds, self.jobs = losses, bounds, jobs

    def __call__(self, out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
        """The jobs' means (K,), or with reduction="none" the losses of all samples."""
        size = len(y) // self.jobs.num
        parts = [slice(start * size, stop * size) for start, stop in self.bounds]
        firsts = [self.losses[start] for start, _ in self.bounds]
        each = [loss(out[part], y[part], reduction="none") for loss, part in zip(firsts, parts, strict=True)]
        losses = torch.cat(each)
        return losses if reduction == "none" else self.jobs.mean(losses)


class Penalties:
    """L1 and L2 penalties with weights for each job: (K,). False if there are none."""

    def __init__(self, tasks: Sequence[Supervised], net: StackedNet) -> None:
        device = tasks[0].device.torch_device
        self.l1 = torch.tensor([task.penalty.l1 for task in tasks], device=device)
        self.l2 = torch.tensor([task.penalty.l2 for task in tasks], device=device)
        params = dict(tasks[0].net.named_parameters())
        penalised = next((task.penalty.weights for task in tasks if task.penalty), {})
        self.leaves = [net.leaves[params[name]] for name in penalised]

    def __bool__(self) -> bool:
        return bool(self.leaves)

    def __call__(self) -> Tensor:
        flat = [leaf.flatten(1) for leaf in self.leaves]
        squares = torch.stack([w.square().sum(1) for w in flat]).sum(0)
        return self.l1 * torch.stack([w.abs().sum(1) for w in flat]).sum(0) + self.l2 * squares


def is_of_dlrun(loss: Callable) -> bool:
    """Whether a loss, or what it calls, is one of this package's, which give a loss for each sample."""
    while isinstance(loss, partial):
        inner = next((each for each in loss.args if callable(each)), None)
        loss = inner or loss.func
    return str(loss.__module__).startswith("dlrun.")


def check(task: Task) -> Task:
    """Return the task. Raises NotStackable if its steps have no stacked form."""
    others = [name for name in task.components if name not in {"net", *task.named_updates()}]
    in_the_way = {
        "trainer.processes": task.device.dist.size > 1,
        f"{type(task).__name__}: its {', '.join(others)}": bool(others),
    }
    if isinstance(task, Supervised | Segment):
        freezing = task.freezing
        in_the_way["task.freeze"] = bool(freezing.moments) or any(start for start in freezing.start.values())
    if isinstance(task, Supervised):
        in_the_way |= {
            "trainer.cuda_graph": task.graphs is not None,
            "task.grad_accum_steps": task.grad_accum_steps > 1,
            "task.mixup or task.cutmix": bool(task.mixing),
            "task.resize": bool(task.resizing.moments),
            "task.class_weights": task.class_weights is not None,
            "task.threshold": bool(task.scoring.decision.metric),
            "a loss of your own": not is_of_dlrun(task.loss),
        }
    if found := [key for key, is_set in in_the_way.items() if is_set]:
        raise NotStackable(f"{found[0]} has no stacked form")
    return task
