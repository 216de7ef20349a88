"""All that dl-run uses of torch's private parts, with what each gains, or why no public part will do.

tests/system/test_torch_internals.py tests each. The gains were measured with torch 2.13, on one core.
`torch._foreach_*`, which clipping and averages call, are documented as beta and not listed here.
"""

from collections.abc import Callable
from functools import cache, partial
from inspect import unwrap
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.optim import Optimizer
from torch.utils._python_dispatch import TorchDispatchMode

Operation = torch._ops.OpOverload  # what a DispatchMode sees
# what `.item()`, `if tensor:` and torch.equal call: no public part tells
READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.equal.default)
BatchNorm = _BatchNorm  # the only base class of batch normalisation in 1, 2 and 3 dimensions and over processes
DropoutBase = _DropoutNd  # that of all kinds of dropout: of numbers, channels and features


class DispatchMode(TorchDispatchMode):
    """Sees each call below the graph of gradients: replay.py records steps with it.

    It does not import torch's compiler when it is entered, which takes 1.0 s and 70 MB.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


def plain_step(optimizer: Optimizer) -> Callable[[], object]:
    """The step of an optimizer's class without the profiler's record around it. Call it under torch.no_grad().

    It saves 0.2 ms of the 0.8 ms of Adam's step for an MLP and, with `skip_compiler_import`, the import of torch's
    compiler at the first step: 0.9 s (5 s on a busy machine) and 70 MB.
    """
    return partial(unwrap(type(optimizer).step), optimizer)


def quick_step(optimizer: Optimizer) -> Callable[[], object]:
    """As `plain_step`, for optimizers whose parameters keep their shapes. Call it under torch.no_grad()."""
    is_on_cpu = optimizer.param_groups[0]["params"][0].device.type == "cpu"  # not measured elsewhere
    is_fused_adam = type(optimizer) in (torch.optim.Adam, torch.optim.AdamW) and optimizer.defaults["fused"]
    return FusedAdam(optimizer) if is_fused_adam and is_on_cpu else plain_step(optimizer)


class FusedAdam:
    """The step of Adam or AdamW with fused=True, to the bit, in half of the time if the parameters are small.

    Their states are looked up once, and one tensor counts the steps of all.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer, self.plain = optimizer, plain_step(optimizer)
        self.groups: list[tuple[list[Tensor], ...]] = []  # of each: parameters, both moments, views of its counter
        self.counters: list[Tensor] = []

    def __call__(self) -> None:
        grads = [[param.grad for param in group["params"]] for group in self.optimizer.param_groups]
        if not self.counters or any(grad is None for each in grads for grad in each):
            self.plain()
            self._look_up()
            return
        for group, mine, lists, counter in zip(
            self.optimizer.param_groups, grads, self.groups, self.counters, strict=True
        ):
            counter.add_(1)
            params, first, second, steps = lists
            (torch._fused_adamw_ if group["decoupled_weight_decay"] else torch._fused_adam_)(
                params, mine, first, second, [], steps, lr=group["lr"], beta1=group["betas"][0],
                beta2=group["betas"][1], weight_decay=group["weight_decay"], eps=group["eps"],
                amsgrad=False, maximize=group["maximize"],
            )  # fmt: skip

    def _look_up(self) -> None:
        state, groups = self.optimizer.state, self.optimizer.param_groups
        if not all(state.get(param) for group in groups for param in group["params"]):
            return
        self.groups, self.counters = [], []
        for group in groups:
            states = [state[param] for param in group["params"]]
            counter = torch.stack([each["step"] for each in states])
            for each, view in zip(states, counter.unbind(), strict=True):
                each["step"] = view
            moments = ([each[name] for each in states] for name in ("exp_avg", "exp_avg_sq", "step"))
            self.groups.append((group["params"], *moments))
            self.counters.append(counter)


def skip_compiler_import() -> None:
    """Keep optimizers from importing torch's compiler just to mark methods as not compiled; see `plain_step`.

    Do not call this if anything is compiled.
    """
    for method in (Optimizer.add_param_group, Optimizer.state_dict, Optimizer.load_state_dict):
        plain = getattr(method, "__wrapped__", None)
        if plain is not None:
            plain.__dict__.setdefault("__dynamo_disable", plain)


def check_overflow_first(optimizer: Optimizer, check: bool) -> None:
    """Make GradScaler check the gradients before it calls the optimizer's step, which waits for the device.

    A fused optimizer otherwise checks inside its step. That is faster, but if the first step overflows, fused SGD later
    reads momentum that was never written.
    """
    optimizer._step_supports_amp_scaling = not check  # type: ignore[attr-defined]  # GradScaler reads it


def configure_compiler(deterministic: bool) -> None:
    """Set the options of torch.compile that a run needs. Takes a second: it imports the compiler.

    deterministic: choose kernels by rule. Kernels that are chosen by timing may sum in another order.
    """
    from torch._inductor import config

    config.deterministic = deterministic
    torch._dynamo.config.wrap_top_frame = True  # otherwise it silently skips nn.Sequential
    torch._dynamo.config.recompile_limit = 64  # one compilation per batch size and mode, over all submodules


def cpu_has_bf16() -> bool:
    """Whether the CPU has bf16 instructions. Without them bf16 takes 4 to 12 times as long as fp32 (steps of CNNs)."""
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def cpu_has_tiles() -> bool:
    """Whether the CPU multiplies tiles of bf16 matrices (AMX): products that took 342 and 258 ms take 258 and 33."""
    return torch.cpu._is_amx_tile_supported()


def own_tensors(module: nn.Module) -> tuple[dict[str, Tensor | None], dict[str, Tensor | None]]:
    """A module's dictionaries of parameters and of buffers, without those of its children.

    A tensor that is put there stands for the parameter. setattr would refuse one that is no nn.Parameter, and
    torch.func.functional_call, which swaps them in each call, takes 0.44 ms where this takes 0.38 (an MLP of 8 jobs).
    """
    return module._parameters, module._buffers  # type: ignore[return-value]  # a parameter is a tensor


def refresh_flat_weights(module: nn.RNNBase) -> None:
    """Make a recurrent layer, which keeps a list of its parameters, use those in its dictionary (`own_tensors`).

    Otherwise it computes with those that it was built with. No public function renews the list.
    """
    module._flat_weights = [module._parameters[key] for key in module._flat_weights_names]


def kernel(function: Operation) -> Callable[..., Any]:
    """An operation without a layer of Python, which takes 3 us of a call."""
    return function._op


def is_in_place(function: Operation) -> bool:
    """Whether an operation writes into one of its arguments.

    Its name does not say so: `rrelu_with_noise` writes its noise. No tag of torch says it either.
    """
    return function._schema.is_mutable


@cache
def out_form(function: Operation) -> tuple[Operation, list[str]] | None:
    """The form of an operation that writes into given tensors, and the names of these; None if it has none.

    A replayed step of an MLP takes 0.15 ms, where copies of the results would make it 0.19.
    """
    wanted = [(each.name, str(each.type)) for each in function._schema.arguments]
    for name in function.overloadpacket.overloads():
        form: Operation = getattr(function.overloadpacket, name)
        outs = [each.name for each in form._schema.arguments if each.is_out]
        others = [(each.name, str(each.type)) for each in form._schema.arguments if not each.is_out]
        if outs and others == wanted and len(outs) == len(function._schema.returns):
            return form, outs
    return None
