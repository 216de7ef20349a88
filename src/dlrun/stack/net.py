"""The networks of several jobs as one.

`StackedNet` runs the forward code of the first job on the inputs of all (stack/functions.py). The jobs keep their own
networks: their parameters become views of the stacked ones, so that evaluating, saving and drawing a job work as
if it had run alone.
"""

from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from dlrun.stack.axes import along, per_job
from dlrun.stack.functions import NotStackable
from dlrun.stack.handle import Handle
from dlrun.stack.jobs import Jobs
from dlrun.stack.recurrent import Reading
from dlrun.stack.watch import is_known
from dlrun.system.torch_internals import BatchNorm, DropoutBase, own_tensors, refresh_flat_weights

RANDOM = (DropoutBase, nn.RReLU)  # modules that draw random numbers; of these nn.Dropout has a stacked form


class StackedNet(nn.Module):
    """The networks of K jobs: (K * B, ...) -> (K * B, ...).

    nets: those of the jobs. channels_last: the memory format of their maps (system/device.py). Raises NotStackable if
    they differ in more than their numbers.
    leaves: by parameter of the first job, the parameter of all (K, *shape).
    """

    def __init__(self, nets: list[nn.Module], channels_last: bool = False) -> None:
        super().__init__()
        param = next(nets[0].parameters(), None)
        if param is None:
            raise NotStackable("a network without parameters has no stacked form")
        self.jobs = Jobs(len(nets), param.device)
        self.leaves: dict[nn.Parameter, Tensor] = {}
        self.buffer_stacks: list[Tensor] = []
        self.hooks: list[RemovableHandle] = []
        try:
            self.net = deepcopy(nets[0])
        except Exception as error:  # of code that is not of this package, and of torch's old weight_norm
            raise NotStackable(f"the network cannot be copied: {type(error).__name__}: {error}") from None
        if channels_last:  # also of networks that have been in a stack, whose parameters have lost it
            self.net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs leave it out
        every = [dict(net.named_modules()) for net in nets]
        for name, module in list(self.net.named_modules()):
            modules = [found.get(name) for found in every]
            if hasattr(module, "parametrizations"):
                raise NotStackable(f"{name}: parametrized layers, as by weight_norm, have no stacked form")
            if isinstance(module, BatchNorm) and not any(
                each is not None for own in own_tensors(module) for each in own.values()
            ):
                raise NotStackable(
                    f"{name}: {type(module).__name__} without weights and statistics has no stacked form"
                )
            if isinstance(module, BatchNorm) and module.momentum is None:
                raise NotStackable(f"{name}: {type(module).__name__} with momentum=None has no stacked form")
            if any(type(each) is not type(modules[0]) for each in modules):
                raise NotStackable(f"{name} is not the same layer in all jobs")
            self._stack(name, module, modules)

    def _stack(self, name: str, module: nn.Module, modules: list[Any]) -> None:
        """Replace the parameters, the buffers and the random draws of a module by those of all jobs."""
        kind, path = type(modules[0]).__name__, f"{name}." if name else ""
        params, buffers = own_tensors(module)
        all_params, all_buffers = zip(*map(own_tensors, modules), strict=True)
        for key, param in all_params[0].items():
            mine = params[key]
            if param is None or mine is None:
                continue
            if param not in self.leaves:
                self.leaves[param] = as_views([each[key] for each in all_params], f"{path}{key}")
            params[key] = Handle.of(mine, self.leaves[param], f"{path}{key} of {kind}")
        for key, buffer in all_buffers[0].items():
            if buffer is None:
                continue
            stack = torch.stack([each[key] for each in all_buffers])
            for each, values in zip(all_buffers, stack, strict=True):
                each[key] = values
            self.buffer_stacks.append(stack)
            buffers[key] = Handle.of(buffer, stack, f"{path}{key} of {kind}")
        for each, own in zip((module, *modules), (buffers, *all_buffers), strict=True):
            if own and not is_known(modules[0]):
                self.hooks.append(each.register_forward_hook(partial(keep_buffers, dict(own), own)))
        if isinstance(module, nn.RNNBase):
            refresh_flat_weights(module)
            module.forward = Reading(module, self.jobs.num, f"{name} of {kind}")
        if type(module) is nn.Dropout:
            parent, _, child = name.rpartition(".")
            setattr(self.net.get_submodule(parent), child, Dropouts([each.p for each in modules], self.jobs))
        elif isinstance(module, RANDOM):
            raise NotStackable(f"{name}: {kind} has no stacked form")

    def release(self) -> None:
        """Let go of the jobs' networks."""
        for hook in self.hooks:
            hook.remove()

    def of(self, module: nn.Module, net: nn.Module) -> nn.Module:
        """The stacked form of a module of `net`, the first job's network."""
        return self.net.get_submodule(next(name for name, each in net.named_modules() if each is module))

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


@torch.no_grad()
def keep_buffers(kept: dict[str, Any], buffers: dict[str, Any], *_: object) -> None:
    """Write what a forward pass assigned to buffers, as in `self.n = self.n + 1`, into those of the stack."""
    for key, buffer in kept.items():
        if (new := buffers[key]) is not buffer and buffer is not None:
            is_alike = type(new) is type(buffer) and (new.shape, new.dtype) == (buffer.shape, buffer.dtype)
            if not is_alike:
                raise NotStackable(f"a forward pass replaces the buffer {key} by another kind of value")
            target, value = (buffer.stack, new.stack) if isinstance(buffer, Handle) else (buffer, new)
            target.copy_(value)
            buffers[key] = buffer


class Dropouts(nn.Module):
    """Dropout with a rate for each job. It draws what nn.Dropout draws for a job alone, on a CPU.

    p: the largest rate, for code that asks a layer for its rate.
    """

    def __init__(self, rates: list[float], jobs: Jobs) -> None:
        super().__init__()
        self.rates, self.jobs, self.p = rates, jobs, max(rates)
        self.kept = torch.tensor([1 - rate if rate < 1 else 1.0 for rate in rates], device=jobs.device)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        noise = torch.empty_like(x)  # in the layout of x, whose numbers torch draws in the order of the memory
        each = per_job(noise, self.jobs.num)
        for one, rate, generator in zip(each, self.rates, self.jobs.generators, strict=True):
            if 0 < rate < 1:  # else nn.Dropout draws nothing
                one.bernoulli_(1 - rate, generator=generator)
            else:
                one.fill_(1 - rate)
        each.div_(along(self.kept, each.dim(), 1))
        return x * noise


@torch.no_grad()
def as_views(params: list[nn.Parameter], name: str = "") -> Tensor:
    """Stack one parameter of each job into a new one (K, *shape), of which they become views. name: for messages."""
    shapes = list(dict.fromkeys(tuple(param.shape) for param in params))
    if len(shapes) > 1:
        raise NotStackable(f"{name}: shapes {' and '.join(map(str, shapes))}")
    stack = torch.stack([param.detach() for param in params])
    for param, values in zip(params, stack, strict=True):
        param.data = values
    return stack.requires_grad_(params[0].requires_grad)
