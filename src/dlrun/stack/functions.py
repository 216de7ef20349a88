"""torch's functions with parameters, for the parameters of several jobs at once.

A stacked network runs the forward code of one job on the inputs of all K jobs, which follow each other along the batch:
(K * B, ...). Layers without parameters treat samples one by one and run unchanged. A parameter is a `Handle`
(handle.py): a torch function that gets one is replaced by the function of this module. Functions without a replacement,
such as products with a parameter, run job by job (`handle.of_each`).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.stack.axes import along, is_channels_last, one_after_another, per_job, side_by_side

if TYPE_CHECKING:
    from dlrun.stack.handle import Handle

SMALL = 2**14  # numbers in a job's input from which one convolution after another is faster than a grouped one (CPU)


class NotStackable(Exception):
    """Jobs cannot train as one network. The message names the obstacle.

    parts: the jobs of smaller stacks that might.
    """

    def __init__(self, why: str, parts: Sequence[list[int]] = ()) -> None:
        super().__init__(why)
        self.parts = list(parts)


def expect_batch(x: Tensor, param: "Handle", has_axis: bool = True) -> None:
    """Raise NotStackable for an input that cannot be (K * B, ...), such as a constant. has_axis: for the batch."""
    if hasattr(x, "stack"):
        raise NotStackable(f"{param.owner}: an input computed from parameters alone has no stacked form")
    if not has_axis or len(x) % len(param.stack):
        raise NotStackable(f"{param.owner}: an input without an axis for the batch has no stacked form")


def scaled(x: Tensor, weight: "Handle | None", bias: "Handle | None", axis: int) -> Tensor:
    """x (K * B, ...) times each job's weight plus its bias; `axis` of x (K, B, ...) is that of weight.shape[0]."""
    some = weight if weight is not None else bias
    if some is None:
        return x
    expect_batch(x, some, axis > 1)
    out = per_job(x, len(some.stack))
    if weight is not None:
        out = out * along(weight.stack, out.dim(), axis)
    if bias is not None:
        out = out + along(bias.stack, out.dim(), axis)
    return out.flatten(0, 1)


class _Dense(torch.autograd.Function):
    """x (K * N, ..., inputs), weights (K, outputs, inputs), biases (K, outputs) or None -> (K * N, ..., outputs).

    One node of the graph instead of five. torch's own backward pass of `bmm` gives the transpose of a weight's
    gradient, which has to be copied.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weights: Tensor, biases: Tensor | None) -> Tensor:
        rows = x.reshape(len(weights), -1, x.shape[-1])
        ctx.save_for_backward(rows, weights)
        ctx.shape = x.shape
        product = torch.bmm(rows, weights.mT)
        if biases is not None:
            product += biases[:, None]  # in half the time of baddbmm
        return product.view(*x.shape[:-1], weights.shape[1])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        rows, weights = ctx.saved_tensors
        grad = grad.reshape(*rows.shape[:2], -1)
        of_rows = torch.bmm(grad, weights).view(ctx.shape) if ctx.needs_input_grad[0] else None
        of_weights = torch.bmm(grad.mT, rows) if ctx.needs_input_grad[1] else None
        return of_rows, of_weights, grad.sum(1) if ctx.needs_input_grad[2] else None


def linear(x: Tensor, weight: "Handle", bias: "Handle | None" = None) -> Tensor:
    """(K * B, ..., inputs) -> (K * B, ..., outputs)"""
    expect_batch(x, weight, x.dim() > 1)
    stack, biases = weight.stack, None if bias is None else bias.stack
    if not torch.is_autocast_enabled(x.device.type):
        out: Tensor = _Dense.apply(x, stack, biases)
        return out
    rows = per_job(x, len(stack)).flatten(1, -2)  # one call, which rounds to the low precision once, as that of a job
    product = torch.bmm(rows, stack.mT) if biases is None else torch.baddbmm(biases[:, None], rows, stack.mT)
    return product.reshape(*x.shape[:-1], stack.shape[1])


def convolution(
    function: Callable,
    x: Tensor,
    weight: "Handle",
    bias: "Handle | None" = None,
    stride: Any = 1,
    padding: Any = 0,
    sixth: Any = None,
    groups: int = 1,
    *last: Any,
    **keys: Any,
) -> Tensor:
    """Convolutions of all jobs: (K * B, C, ...) -> (K * B, channels, ...).

    sixth: dilation, or the output padding of a transposed convolution. last: the dilation of the latter.
    """
    expect_batch(x, weight, x.dim() == weight.dim())
    k, biases = len(weight.stack), None if bias is None else bias.stack
    sixth = sixth if sixth is not None else keys.pop("dilation", 1)
    if keys:
        raise NotStackable(f"{weight.owner}: {function.__name__} with {', '.join(keys)} has no stacked form")
    is_last = is_channels_last(x) or is_channels_last(weight)  # torch's rule
    if x.device.type == "cpu" and x.numel() > SMALL * k:
        each = zip(x.chunk(k), weight.stack, biases if biases is not None else [None] * k, strict=True)
        out = torch.cat([function(one, w, b, stride, padding, sixth, groups, *last) for one, w, b in each])
        return out.contiguous(memory_format=torch.channels_last) if is_last else out
    flat = None if biases is None else biases.flatten(0, 1)
    both = side_by_side(x, k), weight.stack.flatten(0, 1)
    return one_after_another(function(*both, flat, stride, padding, sixth, groups * k, *last), k, is_last)


def batch_norm(
    x: Tensor,
    running_mean: "Handle | None",
    running_var: "Handle | None",
    weight: "Handle | None" = None,
    bias: "Handle | None" = None,
    *rest: Any,
    function: Callable = F.batch_norm,
    **keys: Any,
) -> Tensor:
    """Normalise each job's channels by its own samples: (K * B, C, ...) -> the same."""
    handles = (running_mean, running_var, weight, bias)
    some = next(handle for handle in handles if handle is not None)
    expect_batch(x, some, x.dim() > 1)
    k = len(some.stack)
    flat = [None if handle is None else handle.stack.flatten(0, 1) for handle in handles]
    return one_after_another(function(side_by_side(x, k), *flat, *rest, **keys), k, is_channels_last(x))


def layer_norm(
    x: Tensor, shape: Any, weight: "Handle | None" = None, bias: "Handle | None" = None, eps: float = 1e-5
) -> Tensor:
    """(K * B, ..., *shape) -> the same."""
    return scaled(F.layer_norm(x, shape, None, None, eps), weight, bias, x.dim() + 1 - len(shape))


def rms_norm(x: Tensor, shape: Any, weight: "Handle | None" = None, eps: float | None = None) -> Tensor:
    """(K * B, ..., *shape) -> the same."""
    return scaled(F.rms_norm(x, shape, None, eps), weight, None, x.dim() + 1 - len(shape))


def group_norm(
    x: Tensor, groups: int, weight: "Handle | None" = None, bias: "Handle | None" = None, eps: float = 1e-5
) -> Tensor:
    """(K * B, C, ...) -> the same."""
    return scaled(F.group_norm(x, groups, None, None, eps), weight, bias, 2)


def embedding(
    ids: Tensor,
    weight: "Handle",
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Integers (K * B, ...) -> vectors (K * B, ..., size). The vector of `padding_idx` does not learn."""
    if max_norm is not None or scale_grad_by_freq or sparse:
        raise NotStackable(f"{weight.owner}: an embedding with max_norm, scale_grad_by_freq or sparse=True")
    expect_batch(ids, weight, ids.dim() > 0)
    k, rows = weight.stack.shape[:2]
    first = torch.arange(k, device=ids.device).mul(rows).view(k, *[1] * ids.dim())
    out = F.embedding((per_job(ids, k) + first).flatten(0, 1), weight.stack.flatten(0, 1))
    if padding_idx is None or padding_idx < 0:
        return out
    return torch.where((ids == padding_idx)[..., None], out.detach(), out)


def prelu(x: Tensor, weight: "Handle") -> Tensor:
    """(K * B, C, ...) -> the same; one slope for all channels, or one each."""
    expect_batch(x, weight, x.dim() > 0)
    out = per_job(x, len(weight.stack))
    slopes = along(weight.stack, out.dim(), 2 if weight.stack.shape[1] > 1 else 1)
    return torch.where(out >= 0, out, out * slopes).flatten(0, 1)


def count_up(buffer: "Handle", by: int = 1) -> "Handle":
    """The counter of batch normalisation."""
    if not isinstance(by, int):
        raise NotStackable(f"{buffer.owner}: add_ has no stacked form")
    buffer.stack.add_(by)
    return buffer


def freeze(handle: "Handle", requires_grad: bool = True) -> "Handle":
    """requires_grad_, of all jobs."""
    handle.stack.requires_grad_(requires_grad)
    return handle


def copy(target: "Handle", source: "Handle") -> "Handle":
    """copy_, of all jobs."""
    target.stack.copy_(source.stack)
    return target


def in_place(function: Callable, handles: list["Handle"], *rest: Any) -> None:
    """A torch._foreach function that treats each number by itself."""
    function([handle.stack for handle in handles], *rest)


GRADIENT: Any = torch.Tensor.requires_grad  # an attribute
FUNCTIONS: dict[Callable, Callable] = {
    F.linear: linear,
    F.batch_norm: batch_norm,
    F.instance_norm: partial(batch_norm, function=F.instance_norm),
    F.layer_norm: layer_norm,
    F.rms_norm: rms_norm,
    F.group_norm: group_norm,
    F.embedding: embedding,
    torch.prelu: prelu,
    torch.Tensor.add_: count_up,
    GRADIENT.__get__: lambda handle: handle.stack.requires_grad,
    torch.Tensor.requires_grad_: freeze,
    torch.Tensor.copy_: copy,
}
CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d, F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)
FUNCTIONS |= {function: partial(convolution, function) for function in CONVOLUTIONS}
FUNCTIONS |= {f: partial(in_place, f) for f in (torch._foreach_clamp_min_, torch._foreach_clamp_max_)}
