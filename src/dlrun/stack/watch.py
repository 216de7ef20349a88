"""What a step of a stack must not do: watched in its trial, in networks and tasks that are not of this package.

A stack runs the Python code of one of its jobs on batches that hold the samples of all jobs. A number in that code, a
draw from torch's common generator, a decision by the values of a batch, or the largest value of a batch would be the
same for all of them.
"""

import pickle
import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from dlrun.errors import UserError
from dlrun.output.failures import within_memory
from dlrun.stack.functions import NotStackable
from dlrun.stack.handle import Handle
from dlrun.system.torch_internals import READS, DispatchMode, Operation
from dlrun.tasks.base import Task

OF_MODULES = frozenset(vars(nn.Module()))  # attributes that torch keeps
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PLAIN = int | float | str | bytes | None
# they read values, unseen by a DispatchMode
EXPORTS = {torch.Tensor.numpy, torch.Tensor.tolist, torch.Tensor.__array__}
ROWS_LEFT = ("aten::new_", "aten::_scaled_dot_product")  # their other outputs hold no sums over the samples


@contextmanager
def watched(task: Task, net: nn.Module) -> Iterator[None]:
    """Raise NotStackable, with the reason, if steps within the block cannot be stacked, or fail.

    task, net: the stack's, whose attributes the steps change.
    """
    before, draws, error = python_state(task, net), random_state(task), None
    with Layers(net) as layers, Exports(layers):
        try:
            with within_memory():
                yield
        except UserError:
            raise
        except Exception as raised:
            error = raised
    after = python_state(task, net)
    if changed := next((name for name, value in after.items() if before.get(name) != value), None):
        raise NotStackable(f"{changed} in a step: expected a buffer instead")
    if random_state(task) != draws:
        raise NotStackable("a step draws random numbers itself: expected nn.Dropout, or task.jobs.randn in a task")
    if layers.found:
        raise NotStackable(layers.found)
    if isinstance(error, NotStackable):
        raise error
    if error is not None:
        raise NotStackable(f"{place(error, net)}: {type(error).__name__}: {error}") from error


def is_known(code: object) -> bool:
    """Whether an object and its hooks are of torch or of this package, whose code does nothing of the kind."""
    hooks = [each for name in HOOKS for each in getattr(code, name, {}).values()]
    return all(str(each.__module__).startswith(("torch.nn.", "dlrun.")) for each in (type(code), *hooks))


def label(net: nn.Module, module: nn.Module) -> str:
    """A module's name and type, for messages."""
    name = next((name for name, each in net.named_modules() if each is module), "")
    return f"{name} ({type(module).__name__}) of the network" if name else f"the network ({type(module).__name__})"


def python_state(task: Task, net: nn.Module) -> dict[str, bytes]:
    """The values of attributes that are not known to be stacked, by words for messages."""
    owners: dict[str, dict[str, Any]] = {}
    for module in net.modules():
        if not is_known(module):
            own = {key: value for key, value in vars(module).items() if key not in OF_MODULES}
            owners[label(net, module)] = own
    if not is_known(task):
        owners[type(task).__name__] = {key: value for key, value in vars(task).items() if is_plain(value)}
    return {
        f"{owner} changes its attribute {key}": as_bytes
        for owner, attributes in owners.items()
        for key, value in attributes.items()
        if (as_bytes := pickled(value)) is not None
    }


def is_plain(value: object) -> bool:
    """Whether a value is a number, a text, or a collection of these."""
    if isinstance(value, dict):
        return all(map(is_plain, value.values()))
    return all(map(is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, PLAIN)


def pickled(value: object) -> bytes | None:
    """A value as bytes; None if it has no such form, as functions and stacked parameters."""
    try:
        return pickle.dumps(value)
    except Exception:  # of classes that are not of this package
        return None


def random_state(task: Task) -> list[Any]:
    """The states of the generators that all jobs would share."""
    device, numpy = task.device.torch_device, np.random.get_state(legacy=False)
    states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else [])]
    return [random.getstate(), pickle.dumps(numpy), *(state.numpy().tobytes() for state in states)]


class Layers(DispatchMode):
    """While it is entered, notes which layer that is not known reads a value of a tensor, or mixes the samples.

    A layer mixes samples if it computes, from tensors with numbers of each sample, one whose size is no multiple of the
    number of samples, such as the mean over a batch. trial.py finds what mixes and keeps the size, such as torch.roll.
    found: the layer and what it does; empty if there is none.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.found, self.running, self.hooks = net, "", list[nn.Module](), ExitStack()
        self.rows = 1  # samples of all jobs
        self.of_samples = set[StorageWeakRef]()  # memory with numbers of each sample

    def __enter__(self) -> "Layers":
        modules = list(self.net.modules())
        for module in modules if not all(map(is_known, modules)) else ():
            self.hooks.enter_context(module.register_forward_pre_hook(self._start, prepend=True, with_kwargs=True))
            self.hooks.enter_context(module.register_forward_hook(self._leave, always_call=True))
        super().__enter__()
        return self

    def _start(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if not self.running:  # the batch; inputs of layers may be constants, such as masks
            inputs = list(tensors((*args, *kwargs.values())))
            self.rows = max(1, len(inputs[0])) if inputs and inputs[0].dim() else self.rows
            self.of_samples |= set(map(memory, inputs))
        self.running.append(module)

    def _leave(self, *_: object) -> None:
        self.running.pop()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.hooks.close()

    def __torch_dispatch__(self, func: Operation, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if self.running:
            callers = running_code()
            if func in READS and not callers[0].startswith("torch."):  # as packed sequences do
                self.note_read()
            elif any(memory(each) in self.of_samples for each in tensors(args)):
                outs = list(tensors([out]))
                if any(each.numel() % self.rows for each in outs):
                    self._note_mixing(func.name(), callers)
                self.of_samples |= set(map(memory, outs))
        return out

    def note_read(self) -> None:
        self._note("decides by values of the whole batch, as `if` and item() do")

    def _note_mixing(self, name: str, callers: list[str]) -> None:
        of_a_stack = callers[-1].startswith("dlrun.")  # such as its batch normalisation
        if not (of_a_stack or callers[0] == "torch.nn.utils.rnn" or name.startswith(ROWS_LEFT)):
            self._note(f"mixes the samples of a batch ({name.removeprefix('aten::')})")

    def _note(self, what: str) -> None:
        if self.running and not is_known(self.running[-1]):
            self.found = self.found or f"{label(self.net, self.running[-1])} {what}"


class Exports(TorchFunctionMode):
    """Tells `layers` of values that leave torch."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.layers = layers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in EXPORTS:
            self.layers.note_read()
        return func(*args, **(kwargs or {}))


def running_code() -> list[str]:
    """The modules whose code called the operation, from the innermost to the first that is not of torch."""
    frame, names = sys._getframe(1), list[str]()
    while frame is not None and not (names and not names[-1].startswith("torch.")):
        name = frame.f_globals["__name__"]
        names += [] if name == __name__ else [name]
        frame = frame.f_back  # type: ignore[assignment]  # None at the end, which ends the loop
    return names


def tensors(values: Iterable) -> Iterator[Tensor]:
    """The tensors among values and their lists, without parameters."""
    for value in values:
        if isinstance(value, Tensor) and not isinstance(value, Handle):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors(value)


def memory(tensor: Tensor) -> StorageWeakRef:
    """The memory of a tensor's numbers, which views share; another one at the same place later is not equal."""
    return StorageWeakRef(tensor.untyped_storage())


def place(error: Exception, net: nn.Module) -> str:
    """The innermost layer that was running when an error was raised, for messages."""
    traceback, innermost = error.__traceback__, None
    modules = {id(module) for module in net.modules()}
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        innermost = owner if id(owner) in modules else innermost
        traceback = traceback.tb_next
    return label(net, innermost) if innermost is not None else "a step of the stack"
