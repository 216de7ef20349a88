"""Steps as lists of kernels: what a step calls is recorded, and from then on called again in the same memory.

A step of a small network takes most of its time in Python and in the graph of gradients, not in kernels. A replay has
neither: each kernel reads and writes the tensors of the recording, and views cost nothing. On a CPU it is what
graphs.py is on CUDA. It computes the bits of the step itself.
"""

from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dlrun.system.graphs import MOST, Learn
from dlrun.system.torch_internals import DispatchMode, Operation, is_in_place, kernel, out_form

VALUES = {torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output}  # tags of functions that depend on values
FOR_GRADIENTS = ("mkldnn_rnn_layer",)  # functions that compute less where no gradients are recorded
LARGEST = 2**25  # numbers that a step computes, all of which are kept


class Recorder(DispatchMode):
    """While it is entered, notes what torch calls below the graph of gradients.

    calls: functions without arguments that compute again. described: what two recordings of one step have in common.
    draws: whether a generator was used. depends: whether the calls depend on values.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], object]] = []
        self.described: list[Hashable] = []
        self.size, self.draws, self.depends = 0, False, False

    def __torch_dispatch__(self, func: Operation, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        positional, named, outs = plain(args), plain(kwargs or {}), list(tensors(plain(out)))
        self.described.append((func, described(args), described(kwargs or {})))
        self.draws |= any(isinstance(each, torch.Generator) for each in named.values())
        self.depends |= not outs or not VALUES.isdisjoint(func.tags)
        storages = {each.untyped_storage().data_ptr() for each in (*tensors(positional), *tensors(named))}
        if is_in_place(func):
            self.calls.append(partial(kernel(func), *positional, **named))
        elif not all(each.untyped_storage().data_ptr() in storages for each in outs):  # else they are views
            self.size += sum(each.numel() for each in outs)
            if not func.overloadpacket.__name__.startswith(("empty", "new_empty")):
                self.calls.append(into(outs, func, positional, named))
        return out


class Recorded(NamedTuple):
    """A step's calls, and the tensors that they read and write: inputs, loss, metrics, gradients."""

    forward: Recorder
    backward: Recorder
    inputs: tuple[Tensor, ...]
    loss: Tensor
    metrics: dict[str, Tensor]
    grads: list[tuple[Tensor, Tensor]]

    @property
    def described(self) -> list[Hashable]:
        return [*self.forward.described, *self.backward.described]

    @property
    def is_replayable(self) -> bool:
        both = self.forward, self.backward
        return not any(each.depends for each in both) and sum(each.size for each in both) <= LARGEST


class StepReplay:
    """Runs a step's `learn` and `backward` as replays from its third time on, if the first two made the same calls.

    learn: (*inputs) -> (loss, metrics), by functions of torch alone. backward: accumulates the loss's gradients in
    `params`, which have none before. seed: seeds the generators that the step draws from.
    """

    def __init__(
        self, learn: Learn, backward: Callable[[Tensor], None], params: list[Tensor], seed: Callable[[], object]
    ) -> None:
        self.learn, self.run_backward, self.params, self.seed = learn, backward, params, seed
        self.recorded: dict[Hashable, Recorded | None] = {}  # by kind of step; None: its calls cannot be replayed
        self.seen: dict[Hashable, list[Hashable]] = {}  # the calls of the kinds that ran once
        self.kind: Hashable = None
        self.current: Recorded | None = None

    def forward(self, key: Hashable, *inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss and the metrics of a step. key: all that changes what `learn` does, besides shapes."""
        self.kind = (key, *((each.shape, each.dtype, each.stride()) for each in inputs))
        self.current = self.recorded.get(self.kind)
        if self.kind not in self.recorded and len(self.recorded) < MOST:
            return self._record(inputs)
        if self.current is None:
            return self.learn(*inputs)
        for static, each in zip(self.current.inputs, inputs, strict=True):
            static.copy_(each)
        if self.current.forward.draws:
            self.seed()
        replay(self.current.forward.calls)
        return self.current.loss, {name: value.clone() for name, value in self.current.metrics.items()}

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of the step that `forward` returned the loss of."""
        if self.current is None:
            self.run_backward(loss)
        elif self.kind not in self.recorded:
            with self.current.backward:
                self.run_backward(loss)
            self._keep(self.current)
        else:
            replay(self.current.backward.calls)
            for param, grad in self.current.grads:
                param.grad = grad

    def _record(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Run `learn`, and note its calls."""
        static, recorder = tuple(each.clone() for each in inputs), Recorder()
        with recorder:
            loss, metrics = self.learn(*static)
        detached = {name: value.detach() for name, value in metrics.items()}
        self.current = Recorded(recorder, Recorder(), static, loss.detach(), detached, [])
        return loss, {name: value.clone() for name, value in metrics.items()}

    def _keep(self, recorded: Recorded) -> None:
        """Take the second recording of a kind of step for those to come, if it is like the first."""
        recorded.grads.extend((param, param.grad) for param in self.params if param.grad is not None)
        before = self.seen.pop(self.kind, None)
        if not recorded.is_replayable or before not in (None, recorded.described):
            self.recorded[self.kind] = None
        elif before is None:
            self.seen[self.kind] = recorded.described
        else:
            self.recorded[self.kind] = recorded


def replay(calls: list[Callable[[], object]]) -> None:
    with torch.inference_mode():
        for call in calls:
            call()


def into(outs: list[Tensor], func: Operation, positional: tuple, named: dict) -> Callable[[], object]:
    """The call of a function that writes its results into these tensors."""
    if func.overloadpacket.__name__ == "_to_copy":
        return partial(outs[0].copy_, positional[0])
    name = func.overloadpacket.__name__
    form = None if name in FOR_GRADIENTS else out_form(func)
    if form is not None and len(form[1]) == len(outs):  # fewer if some results are None
        return partial(kernel(form[0]), *positional, **named, **dict(zip(form[1], outs, strict=True)))

    def run() -> None:
        with torch.inference_mode(name not in FOR_GRADIENTS), torch.set_grad_enabled(name in FOR_GRADIENTS):
            results = func(*positional, **named)
        for out, result in zip(outs, tensors(results), strict=True):
            out.copy_(result)

    return run


def plain(value: Any) -> Any:
    """The same with all tensors outside of the graph of gradients."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from tensors(each)


def described(value: Any) -> Hashable:
    """What must be equal in two calls of a function: all but the values of tensors."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype
    if isinstance(value, dict):
        return tuple((key, described(each)) for key, each in value.items())
    if isinstance(value, list | tuple):
        return tuple(map(described, value))
    own: Hashable = torch.Generator if isinstance(value, torch.Generator) else value
    return own
