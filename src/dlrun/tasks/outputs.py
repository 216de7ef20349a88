"""Check what a network of the user's own returns: on samples of zeros, before data is read, and in every step."""

from typing import cast

import torch
from torch import Tensor, nn

from dlrun.errors import UserError, raised
from dlrun.spec import Tokens
from dlrun.system.device import Device
from dlrun.tasks.targets import Learnable


def check_outputs(net: nn.Module, spec: Learnable, device: Device) -> None:
    """Raise UserError unless, in evaluation mode, two samples become (2, outputs) or (2, members, outputs)."""
    kind = torch.int32 if isinstance(spec, Tokens) else torch.float32
    x = torch.zeros(2, *spec.shape, dtype=kind, device=device.torch_device)
    wanted = f"  expected outputs (2, {spec.outputs}) of inputs {tuple(x.shape)} of type {str(kind)[6:]}"
    with torch.random.fork_rng(devices=[]), torch.no_grad(), device.autocast():
        try:
            out = net.eval()(x)
        except Exception as error:  # the user's code raises anything
            raise UserError(f"the network raised {raised(error)}\n{wanted}") from error
    if not isinstance(out, Tensor) or out.dim() not in (2, 3) or (len(out), out.shape[-1]) != (2, spec.outputs):
        described = f"a tensor {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise UserError(f"the network returned {described}\n{wanted}")


def returned(net: object, out: object, samples: int, *last: int) -> Tensor:
    """Return what a network returned. Raises UserError unless it is a tensor (samples, *last), or with members between.

    Networks of this package are not checked, nor is one that is exported, whose batch has no fixed size. Costs a step
    less than two microseconds.
    """
    if torch.compiler.is_compiling() or type(net).__module__.startswith("dlrun."):
        return cast(Tensor, out)
    if isinstance(out, Tensor) and out.shape[:1] == (samples,) and out.shape[-len(last) :] == last:
        return out
    kind = type(net)
    described = f"a tensor {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {type(out).__name__}"
    raise UserError(
        f"the network {kind.__module__}.{kind.__qualname__} returned {described}\n"
        f"  expected outputs {(samples, *last)} of {samples} inputs"
    )
