"""What a step of a stack must not do: watched in its trial, in networks and tasks that are not of this package.

A stack runs the Python code of one of its jobs. A number in that code, a draw from torch's common generator, or a
decision by the values of a batch, which holds the samples of all jobs, would be the same for all of them.
"""

import pickle
import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from dlrun.errors import UserError
from dlrun.output.failures import within_memory
from dlrun.stack.functions import NotStackable
from dlrun.system.torch_internals import VALUE_OF, DispatchMode, Operation
from dlrun.tasks.base import Task

OF_MODULES = frozenset(vars(nn.Module()))  # attributes that torch keeps
PLAIN = int | float | str | bytes | None


@contextmanager
def watched(task: Task, net: nn.Module) -> Iterator[None]:
    """Raise NotStackable, with the reason, if steps within the block cannot be stacked, or fail.

    task, net: the stack's, whose attributes the steps change.
    """
    before, draws, error = python_state(task, net), random_state(task), None
    with Reads(net) as reads:
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
    if reads.found:
        raise NotStackable(f"{reads.found} decides by values of the whole batch, as `if` and item() do")
    if isinstance(error, NotStackable):
        raise error
    if error is not None:
        raise NotStackable(f"{place(error, net)}: {type(error).__name__}: {error}") from error


def is_known(code: object) -> bool:
    """Whether an object is of torch or of this package, whose code does nothing of the kind."""
    return type(code).__module__.startswith(("torch.nn.", "dlrun."))


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


class Reads(DispatchMode):
    """While it is entered, notes which layer that is not known reads a value of a tensor.

    found: the layer, for messages; empty if there is none.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.found, self.running, self.hooks = net, "", list[nn.Module](), ExitStack()

    def __enter__(self) -> "Reads":
        for module in self.net.modules():
            if not is_known(module):
                self.hooks.enter_context(module.register_forward_pre_hook(lambda m, _: self.running.append(m)))
                self.hooks.enter_context(module.register_forward_hook(self._leave, always_call=True))
        super().__enter__()
        return self

    def _leave(self, *_: object) -> None:
        self.running.pop()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.hooks.close()

    def __torch_dispatch__(self, func: Operation, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        is_read = self.running and func is VALUE_OF
        if is_read and not sys._getframe(1).f_globals["__name__"].startswith("torch."):  # as packed sequences do
            self.found = self.found or label(self.net, self.running[-1])
        return func(*args, **(kwargs or {}))


def place(error: Exception, net: nn.Module) -> str:
    """The innermost layer that was running when an error was raised, for messages."""
    traceback, innermost = error.__traceback__, None
    modules = {id(module) for module in net.modules()}
    while traceback is not None:
        owner = traceback.tb_frame.f_locals.get("self")
        innermost = owner if id(owner) in modules else innermost
        traceback = traceback.tb_next
    return label(net, innermost) if innermost is not None else "a step of the stack"
