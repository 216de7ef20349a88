"""mode=time: where the time of a training step goes, from torch's profiler: data, forward, backward, optimizer, layers.

A layer's forward pass is a range that hooks open and close. Its backward operations carry the sequence numbers of its
forward operations. On CUDA the times are those of the kernels.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from dlrun.output.console import table
from dlrun.output.json_line import ENDING
from dlrun.train.session import Session
from dlrun.train.trial import batches, require_samples

STEPS, WARMUP = 20, 5
LAYER, PHASE = "layer: ", "phase: "
BACKWARD = "autograd::engine::evaluate_function: "
SHOWN = 25  # layers


class Split(NamedTuple):
    """Milliseconds of a step: by phase, and by layer forward and backward."""

    phases: dict[str, float]
    forward: dict[str, float]
    backward: dict[str, float]


def step_time(config: dict, names: dict[str, str], chosen: list[str]) -> str:
    """Measure and return the text to print."""
    session = Session(config, names, chosen)
    data = require_samples(session, "time")
    whole = timed(session)
    split = profiled(session)
    total = sum(split.phases.values())
    ENDING.measured = {"step_ms": whole, "with_profiler_ms": split._asdict()}
    rows = [["", "ms", "share"]]
    rows += [[name, f"{ms:.3f}", f"{ms / total:.1%}"] for name, ms in split.phases.items()]
    size = data.batch_size
    lines = [
        f"a training step of {names['model']} on {names['data']}: {whole:.3f} ms, batches of {size}, "
        f"{1000 * size / whole:,.0f} samples/s",
        f"shares by torch's profiler, which slows small operations: {total:.3f} ms a step with it",
        "",
        table(rows),
    ]
    layers = sorted(split.forward, key=lambda name: -split.forward[name] - split.backward.get(name, 0.0))
    rows = [["layer", "forward ms", "backward ms", "share"]]
    for name in layers[:SHOWN]:
        ahead, back = split.forward[name], split.backward.get(name, 0.0)
        rows.append([name, f"{ahead:.3f}", f"{back:.3f}", f"{(ahead + back) / total:.1%}"])
    more = f"\nand {len(layers) - SHOWN} smaller ones" if len(layers) > SHOWN else ""
    return "\n".join([*lines, "", table(rows) + more])


def timed(session: Session) -> float:
    """Milliseconds of a step with its batch, the median over STEPS, without the profiler."""
    device, times, began = session.device.torch_device, [], time.perf_counter()
    for batch, clock in batches(session, WARMUP + STEPS):
        session.task.step(batch, clock)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        times.append(1000 * (now - began))
        began = now
    return median(times[WARMUP:])


def profiled(session: Session) -> Split:
    """Profile STEPS steps."""
    on_cuda = session.device.torch_device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_cuda else [])]
    with ExitStack() as stack:
        stack.callback(_mark(session))
        steps = batches(session, WARMUP + STEPS)
        for _ in range(WARMUP):
            session.task.step(*next(steps))
        with profile(activities=activities, acc_events=True) as trace:
            for batch, clock in _marked(steps):
                with record_function(PHASE + "step"):
                    session.task.step(batch, clock)
    return split_of(trace.events(), on_cuda)


def _marked(steps: Iterator[Any]) -> Iterator[Any]:
    """Yield the batches of `steps`, with its own time marked as that of the data."""
    while True:
        with record_function(PHASE + "data"):
            item = next(steps, None)
        if item is None:
            return
        yield item


def _mark(session: Session) -> Callable[[], None]:
    """Mark forward passes, also of layers, backward passes and optimizer steps. Returns a function that undoes it."""
    ranges: list[list[Any]] = []  # those that each running module has opened

    def enter(layer: str | None) -> Callable[..., None]:
        def before(module: nn.Module, args: object) -> None:
            names = ([] if ranges else [PHASE + "forward"]) + ([LAYER + layer] if layer else [])
            ranges.append([record_function(name) for name in names])
            for each in ranges[-1]:
                each.__enter__()

        return before

    def leave(module: nn.Module, args: object, out: object) -> None:
        for each in reversed(ranges.pop()):
            each.__exit__(None, None, None)

    hooks = []
    for name, module in session.task.net.named_modules():
        layer = None if list(module.children()) else f"{name} ({type(module).__name__})".strip()
        hooks += [module.register_forward_pre_hook(enter(layer)), module.register_forward_hook(leave)]
    updates = list(session.task.named_updates().values())
    before = [(update.backward, update.take_step) for update in updates]
    for update in updates:
        update.backward = _ranged(PHASE + "backward", update.backward)  # type: ignore[method-assign]  # until `undo`
        update.take_step = _ranged(PHASE + "optimizer", update.take_step)

    def undo() -> None:
        for hook in hooks:
            hook.remove()
        for update, (backward, take_step) in zip(updates, before, strict=True):
            update.backward = backward  # type: ignore[method-assign]  # its own again
            update.take_step = take_step

    return undo


def _ranged(name: str, function: Any) -> Any:
    def run(*args: Any) -> Any:
        with record_function(name):
            return function(*args)

    return run


def split_of(events: Any, on_cuda: bool) -> Split:
    """Split the time of the profiler's events, in milliseconds of a step."""
    phases: dict[str, float] = defaultdict(float)
    forward: dict[str, float] = defaultdict(float)
    backward: dict[str, float] = defaultdict(float)
    owner: dict[int, str] = {}  # of a forward operation, by its sequence number
    engine = 0.0
    for event in events:
        ms = (event.device_time_total if on_cuda else event.cpu_time_total) / 1000 / STEPS
        if event.name.startswith(PHASE):
            phases[event.name.removeprefix(PHASE)] += ms
        elif event.name.startswith(LAYER):
            name = event.name.removeprefix(LAYER)
            forward[name] += ms
            todo = list(event.cpu_children)
            while todo:
                each = todo.pop()
                todo += each.cpu_children
                if each.sequence_nr >= 0:
                    owner.setdefault(each.sequence_nr, name)
    for event in events:
        if event.name.startswith(BACKWARD):
            ms = (event.device_time_total if on_cuda else event.cpu_time_total) / 1000 / STEPS
            engine += ms
            if event.sequence_nr in owner:
                backward[owner[event.sequence_nr]] += ms
    if on_cuda:  # the kernels of the backward pass are started by a thread of its own
        phases["step"] += engine - phases["backward"]
        phases["backward"] = engine
    known = ("forward", "backward", "optimizer")
    rest = max(0.0, phases["step"] - sum(phases[name] for name in known))
    shown = {name: phases[name] for name in ("data", *known)} | {"loss, metrics and all else": rest}
    return Split(shown, dict(forward), dict(backward))
