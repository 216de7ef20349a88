"""Try a stack before its first step: whether it computes what the jobs compute, and whether it is faster."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Data
from dlrun.optim.buffers import copy_all
from dlrun.output.checkpoint import packed, snapshot
from dlrun.seeds import generator, mix
from dlrun.stack.functions import NotStackable
from dlrun.stack.learning import HELD
from dlrun.stack.stacked import Stack
from dlrun.stack.update import backward
from dlrun.stack.watch import watched
from dlrun.tasks.base import Component, Metrics, Task

CLOSE = 1e-3  # of the largest number of a tensor; sums are ordered otherwise in a stack
CHANGE = 0.2  # of the size of a weight, by which the jobs' differ in a comparison
FREE = 20  # times as far as changes of the weights by their rounding lead
REPEATS, SECONDS = 40, 1.0  # the most repetitions, and about the most time
CLEAR, FEW = 3.0, 5  # times the speed, with which a few repetitions are enough: `auto` asks for far less

Tried = tuple[Metrics, list[Tensor | None]]  # metrics and gradients of a step


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
        return len(alone) > FEW and len(stack.jobs) * min(alone[1:]) > CLEAR * min(together[1:])

    with unchanged(stack) as restore:
        if not stack.learner.is_known and stack.learner.task.device.precision != "fp32":
            with in_fp32(stack):
                compare(stack, clocks[-1], restore)
        compare(stack, clocks[-1], restore)
        restore()
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
def unchanged(stack: Stack) -> Iterator[Callable[[], None]]:
    """Undo the block's changes to weights, optimizers, statistics of normalisations, environments and replay buffers.

    Gives a function that undoes them before the end. The states of the stack's own optimizers are left as they are:
    build it again.
    """
    restore = restorer(stack)
    for task in stack.learner.tasks:
        task.net.train()
    try:
        yield restore
    finally:
        restore()


@contextmanager
def in_fp32(stack: Stack) -> Iterator[None]:
    """Steps within the block have full precision: the rounding of another hides that a network mixes the samples."""
    tasks = [stack.learner.task, *stack.learner.tasks]
    devices = [task.device for task in tasks]
    for task in tasks:
        task.device = replace(task.device, precision="fp32")
    try:
        yield
    finally:
        for task, device in zip(tasks, devices, strict=True):
            task.device = device


def restorer(stack: Stack) -> Callable[[], None]:
    """A function that restores what there is now."""
    held: list[Component] = []
    for task in stack.learner.tasks:
        held += [*task.named_updates().values(), *(task.components[name] for name in HELD.get(type(task), ()))]
    states = [snapshot(component.state_dict()) for component in held]
    values = values_of(stack)
    before = [value.clone() for value in values]

    def restore() -> None:
        copy_all(values, before)
        for component, state in zip(held, states, strict=True):
            component.load_state_dict(snapshot(state))  # which may keep the tensors and change them

    return restore


def values_of(stack: Stack) -> list[Tensor]:
    """The buffers and the parameters of all jobs (K, ...), of which the jobs' own are views."""
    return [*stack.net.buffer_stacks, *(leaf.detach() for leaf in stack.net.leaves.values())]


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


def tried(task: Task, data: Data, clock: Clock) -> Tried:
    """The metrics and the gradients of a step of one job."""
    copied, updates = copy(task), {name: Gradients(update.params, ()) for name, update in task.named_updates().items()}
    for name, update in updates.items():
        setattr(copied, name, update)
    batch = next(task.batches(data, clock))
    torch.manual_seed(mix(clock.seed, clock.step, 0))
    return copied.step(batch, clock), [grad for update in updates.values() for grad in update.grads]


def tried_together(stack: Stack, clocks: Sequence[Clock]) -> Tried:
    """The metrics and the gradients of a step of all jobs."""
    learner, shape = stack.learner, (len(clocks),)
    updates = {name: Gradients(update.leaves, shape) for name, update in stack.updates.items()}
    learner.use(updates)
    try:
        batch = next(learner.batches([job.session.data for job in stack.jobs], clocks))
        return learner.step(batch, clocks), [grad for update in updates.values() for grad in update.grads]
    finally:
        learner.use(stack.updates)


def compare(stack: Stack, clocks: Sequence[Clock], restore: Callable[[], None]) -> None:
    """Raise NotStackable unless three of the jobs have the metrics and the gradients that they have alone.

    Weights, batches and random numbers differ from job to job here: with the same seed they would be equal, and a
    network that mixes the samples of its jobs would not be noticed. If other weights give no finite numbers, they stay
    as they are. restore: undoes what steps change.
    """
    own = [replace(clock, seed=k) for k, clock in enumerate(clocks)]
    learner, values = stack.learner, values_of(stack)
    rounding = 1e-6 if learner.task.device.precision == "fp32" else 1e-2  # of a weight, and more
    for share in (CHANGE, 0.0):
        restore()
        change(values, share)
        with watched(learner.task, stack.net.net):
            metrics, grads = tried_together(stack, own)
        if all(bool(grad.isfinite().all()) for grad in grads if grad is not None):
            break

    def alone(k: int, more: float = 0.0) -> Tried:
        restore()  # a step may change counters and environments, and clamp weights
        change(values, share)
        change(values, more)
        return tried(learner.tasks[k], stack.jobs[k].session.data, own[k])

    for k in {0, len(own) // 2, len(own) - 1}:
        wanted = alone(k)
        if metrics.keys() != wanted[0].keys():
            raise NotStackable("a step has other metrics than those of the jobs alone")
        if any((a is None) != (b is None) for a, b in zip(grads, wanted[1], strict=True)):
            raise NotStackable("a parameter does not learn in a stack, because its layer uses it by two names")
        of_job = {name: metrics[name][k] for name in wanted[0]}
        found = of_job, [None if grad is None else grad[k] for grad in grads]
        if close(found, wanted):
            continue
        if not close(alone(k), wanted):
            raise NotStackable("a step of a job differs when it is repeated: it keeps numbers outside of buffers")
        if not close(found, wanted, alone(k, rounding)):
            raise NotStackable("a step is not that of the jobs alone, as if a network mixes the samples")


@torch.no_grad()
def change(values: Sequence[Tensor], share: float) -> None:
    """Add normal noise to the jobs' tensors (K, ...), a share of the size of their numbers. Variances stay positive.

    Half of it is common to the numbers of a tensor, whose mean changes, too. Infinities, as in masks, stay.
    """
    for i, value in enumerate(values if share else ()):
        if value.is_floating_point():
            draw = partial(torch.randn, generator=generator(value.device, i), device=value.device)
            noise = draw(value.shape) + draw((len(value), *[1] * (value.dim() - 1)))
            size = finite(value).abs().mean().item() + 0.01
            value.add_(noise.abs_() if bool((value >= 0).all()) else noise, alpha=share * size)


def close(found: Tried, wanted: Tried, again: Tried | None = None) -> bool:
    """Whether metrics and gradients agree to CLOSE of the largest number of each, or as well as rounding lets them.

    again: those of weights that are changed by more than rounding.
    """
    columns = [
        [*(value.float().mean() for value in metrics.values()), *grads]
        for metrics, grads in (found, wanted, again or wanted)
    ]
    for a, b, c in zip(*columns, strict=True):
        if a is not None and b is not None and c is not None:
            reach = max(CLOSE * largest(b), FREE * largest(c - b))
            if not torch.allclose(a, b, rtol=0, atol=reach, equal_nan=True):
                return False
    return True


def finite(values: Tensor) -> Tensor:
    """The values, with 0 in place of those that are not finite."""
    return values.nan_to_num(0.0, 0.0, 0.0)


def largest(values: Tensor) -> float:
    """The size of the largest finite value."""
    return finite(values).abs().max().item()


def seconds(steps: Callable[[], object]) -> float:
    """The time of some steps."""
    began = time.perf_counter()
    steps()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began
