"""Try a stack before its first step: whether it computes what the jobs compute, and whether it is faster."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dlrun.data.base import Batch
from dlrun.seeds import mix
from dlrun.stack.functions import NotStackable
from dlrun.stack.group import Member, Stack

CLOSE = 1e-3  # of the largest output; sums are ordered otherwise in a stack
REPEATS, SECONDS = 8, 2.0  # the most repetitions, and about the most time
START = 1.0  # seconds that a process takes for its start and its plots


def gain(stack: Stack) -> float:
    """How many times as fast as one after another the jobs would run as this stack, by a few steps without effect.

    Raises NotStackable if a network mixes the samples of a batch in a way that a stack cannot know, so that its outputs
    are others than the job's.
    """
    batches = [first_batch(member) for member in stack.members]
    if any([part.shape for part in batch] != [part.shape for part in batches[0]] for batch in batches):
        raise NotStackable("the data has another shape in some of the jobs")
    with unchanged(stack):
        compare(stack, batches)
        task = stack.learner.tasks[0]
        x, y = batches[0][:2]
        alone: list[float] = []
        together: list[float] = []  # measured in turns, since other programs may slow down both
        while len(alone) < 3 or len(alone) <= REPEATS and sum(alone) + sum(together) < SECONDS:
            alone.append(seconds(lambda: task.judge(task.net(x), y)[0], task.net.parameters()))
            together.append(seconds(lambda: stack.learner.losses(batches)[0].sum(), stack.net.leaves.values()))
    steps = stack.first.clock.total_steps
    return len(batches) * (START + steps * min(alone[1:])) / (START + steps * min(together[1:]))


def first_batch(member: Member) -> Batch:
    """The first batch of a job."""
    return next(iter(member.session.task.batches(member.session.data, member.training.clock)))


@contextmanager
def unchanged(stack: Stack) -> Iterator[None]:
    """Undo what the block does to the statistics of normalisations."""
    before = [buffer.clone() for buffer in stack.net.buffer_stacks]
    for member in stack.members:
        member.session.task.net.train()
    try:
        yield
    finally:
        for buffer, value in zip(stack.net.buffer_stacks, before, strict=True):
            buffer.copy_(value)


@torch.no_grad()
def compare(stack: Stack, batches: list[Batch]) -> None:
    """Raise NotStackable unless three of the jobs return what they return alone, in training with dropout."""
    seeds = [member.training.clock.seed for member in stack.members]
    stack.net.seed(seeds, 0)
    together = first(stack.net(torch.cat([batch[0] for batch in batches]))).chunk(len(batches))
    for k in {0, len(batches) // 2, len(batches) - 1}:
        torch.manual_seed(mix(seeds[k], 0, 0))
        alone = first(stack.members[k].session.task.net(batches[k][0]))
        if not torch.allclose(together[k], alone, rtol=0, atol=CLOSE * (1 + alone.abs().max().item())):
            raise NotStackable("the network mixes the samples of a batch in its own code")


def first(out: Any) -> Tensor:
    return out[0] if isinstance(out, tuple) else out


def seconds(loss: Callable[[], Tensor], params: Iterable[Tensor]) -> float:
    """The time of a forward and a backward pass."""
    began = time.perf_counter()
    value = loss()
    value.backward()
    if value.is_cuda:
        torch.cuda.synchronize()
    duration = time.perf_counter() - began
    for param in params:
        param.grad = None
    return duration
