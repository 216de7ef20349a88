"""Try a stack before its first step: whether it computes what the jobs compute, and whether it is faster."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy, deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Data
from dlrun.output.checkpoint import packed, snapshot
from dlrun.seeds import mix
from dlrun.stack.functions import NotStackable
from dlrun.stack.learning import HELD
from dlrun.stack.stacked import Stack
from dlrun.stack.update import backward
from dlrun.stack.watch import watched
from dlrun.tasks.base import Component, Metrics, Task

CLOSE = 1e-3  # of the largest value of its kind; sums are ordered otherwise in a stack
REPEATS, SECONDS = 40, 1.0  # the most repetitions, and about the most time
CLEAR = 3.0  # times the speed, with which three repetitions are enough: `auto` asks for far less


class Gain(NamedTuple):
    """What a trial measured: seconds of a step of one job, and of one of all jobs."""

    one: float
    together: float

    @property
    def step(self) -> float:
        """How many times as long as a step of one job that of all takes."""
        return self.together / self.one


def gain(stack: Stack) -> Gain:
    """Compare this stack with its jobs one after another, by a few steps that are undone.

    Raises NotStackable if a step of the stack differs from the steps of its jobs, because of a network that mixes the
    samples of a batch in its own code, or a task whose means are not those of `task.jobs`.
    """
    task, data, clocks = stack.learner.tasks[0], stack.jobs[0].session.data, first_clocks(stack)
    alone: list[float] = []
    together: list[float] = []  # measured in turns, since other programs may slow down both

    def is_clear() -> bool:
        return len(stack.jobs) * min(alone[1:]) > CLEAR * min(together[1:])

    with unchanged(stack):
        compare(stack, clocks[-1])
        while len(alone) < 3 or not is_clear() and len(alone) <= REPEATS and sum(alone) + sum(together) < SECONDS:
            alone.append(seconds(lambda: [tried(task, data, each[0]) for each in clocks]))
            together.append(seconds(lambda: [tried_together(stack, each) for each in clocks]))
        rehearse(stack, clocks[-1])
    stack.build()
    return Gain(min(alone[1:]) / len(clocks), min(together[1:]) / len(clocks))


def first_clocks(stack: Stack) -> list[list[Clock]]:
    """The jobs' clocks at the steps of a first cycle, in which all kinds of steps occur."""
    starts = getattr(stack.learner.task, "learning_starts", 0)  # samples before the first update of Q-learning
    jobs = [replace(job.training.clock, samples=starts) for job in stack.jobs]
    return [[replace(clock, step=step) for clock in jobs] for step in range(stack.learner.task.cycle)]


def rehearse(stack: Stack, clocks: Sequence[Clock]) -> None:
    """Take a step while a checkpoint is written, which needs the most memory: too little is noticed before the start.

    The checkpoint has each job's best weights beside the present ones; meanwhile a better epoch may end.
    """
    batch = next(stack.learner.batches([job.session.data for job in stack.jobs], clocks))
    stack.learner.step(batch, clocks)
    best = [[snapshot(job.session.task.best_state()) for job in stack.jobs] for _ in range(2)]
    parts = {"jobs": stack.parts()[0], "best": best[0]}
    with ThreadPoolExecutor(1) as thread:  # as Checkpoints does: a thread has memory of its own
        file = thread.submit(packed, parts).result()
        stack.learner.step(batch, clocks)
    del file, best


@contextmanager
def unchanged(stack: Stack) -> Iterator[None]:
    """Undo the block's changes to weights, optimizers, statistics of normalisations, environments and replay buffers.

    The states of the stack's own optimizers are left as they are: build it again.
    """
    held: list[Component] = []
    for task in stack.learner.tasks:
        held += [*task.named_updates().values(), *(task.components[name] for name in HELD.get(type(task), ()))]
    states = [deepcopy(component.state_dict()) for component in held]
    values = [*stack.net.buffer_stacks, *(leaf.detach() for leaf in stack.net.leaves.values())]
    before = [value.clone() for value in values]
    for task in stack.learner.tasks:
        task.net.train()
    try:
        yield
    finally:
        for value, old in zip(values, before, strict=True):
            value.copy_(old)
        for component, state in zip(held, states, strict=True):
            component.load_state_dict(state)


class Gradients:
    """Stands in for an update: records the gradients of a step and takes none. grads: those of the last step."""

    grad_norm = None
    averages = None

    def __init__(self, params: Sequence[Tensor], shape: tuple[int, ...]) -> None:
        self.params, self.shape = params, shape  # of the loss
        self.grads: list[Tensor | None] = []

    def save_buffers(self) -> None: ...

    def step(self, loss: Tensor, clock: Clock, backward: Callable[[Tensor], None] = backward) -> bool:
        if loss.shape != self.shape:
            raise NotStackable("the loss is not a mean of task.jobs")
        backward(loss)
        self.grads = [param.grad for param in self.params]
        for param in self.params:
            param.grad = None
        return True


def tried(task: Task, data: Data, clock: Clock) -> tuple[Metrics, list[Tensor | None]]:
    """The metrics and the gradients of a step of one job."""
    copied, updates = copy(task), {name: Gradients(update.params, ()) for name, update in task.named_updates().items()}
    for name, update in updates.items():
        setattr(copied, name, update)
    batch = next(task.batches(data, clock))
    torch.manual_seed(mix(clock.seed, clock.step, 0))
    return copied.step(batch, clock), [grad for update in updates.values() for grad in update.grads]


def tried_together(stack: Stack, clocks: Sequence[Clock]) -> tuple[Metrics, list[Tensor | None]]:
    """The metrics and the gradients of a step of all jobs."""
    learner, shape = stack.learner, (len(clocks),)
    updates = {name: Gradients(update.leaves, shape) for name, update in stack.updates.items()}
    learner.use(updates)
    try:
        batch = next(learner.batches([job.session.data for job in stack.jobs], clocks))
        return learner.step(batch, clocks), [grad for update in updates.values() for grad in update.grads]
    finally:
        learner.use(stack.updates)


def compare(stack: Stack, clocks: Sequence[Clock]) -> None:
    """Raise NotStackable unless three of the jobs have the metrics and the gradients that they have alone."""
    with watched(stack.learner.task, stack.net.net):
        metrics, grads = tried_together(stack, clocks)
    for k in {0, len(clocks) // 2, len(clocks) - 1}:
        wanted, alone = tried(stack.learner.tasks[k], stack.jobs[k].session.data, clocks[k])
        largest = max((grad.abs().max().item() for grad in alone if grad is not None), default=0.0)
        pairs = [(a, b) for a, b in zip(grads, alone, strict=True) if a is not None or b is not None]
        if any(a is None or b is None for a, b in pairs):
            raise NotStackable("a parameter does not learn in a stack, because its layer uses it by two names")
        same = [close(a[k], b, largest) for a, b in pairs if a is not None and b is not None]
        same += [close(metrics[name][k].float().mean(), value.float().mean(), 1.0) for name, value in wanted.items()]
        if not all(same) or metrics.keys() != wanted.keys():
            raise NotStackable("a step mixes the samples of a batch in its own code")


def close(a: Tensor, b: Tensor, scale: float) -> bool:
    """Whether two tensors agree to CLOSE of `scale`, or of the second."""
    size = max(scale, b.abs().max().item())
    return torch.allclose(a, b, rtol=0, atol=CLOSE * size, equal_nan=True)


def seconds(steps: Callable[[], object]) -> float:
    """The time of some steps."""
    began = time.perf_counter()
    steps()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
