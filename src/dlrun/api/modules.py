"""The network of a finished run as a module of its own."""

from copy import deepcopy
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.runs.model_files import Graph
from dlrun.spec import Env, Image, Mask, Table, Tokens
from dlrun.train.finished import FinishedRun


class Expected(NamedTuple):
    """What a module takes. shape: of a sample. values: float, of the network's precision; any real numbers; or ids."""

    shape: tuple[int, ...]
    values: Literal["float", "real", "uint8", "ids"]
    has_any_length: bool = False


def guarded(run: FinishedRun) -> nn.Module:
    """Return a copy of the evaluated network that refuses inputs of another shape or type than it was trained on."""
    net, spec = deepcopy(run.task.evaluated()).eval(), run.data.spec
    if run.task.accepts == ("latent",):
        expected = _codes(run)
    elif isinstance(spec, Env) and spec.has_pixels:
        expected = Expected(spec.shape, "uint8")
    else:
        has_ids = isinstance(spec, Tokens)
        expected = Expected(tuple(spec.shape), "ids" if has_ids else "float", has_ids)
    net.register_forward_pre_hook(partial(_check, expected), with_kwargs=True)
    return net


def full(run: FinishedRun) -> nn.Module:
    """Return the network with normalisation inside, as `dl-runs export` writes it; it refuses wrong inputs, too."""
    graph, spec, way = Graph(run, run.task.accepts[0]).eval(), run.data.spec, run.task.accepts[0]
    if way == "latent":
        expected = _codes(run)
    elif isinstance(spec, Image | Mask) or isinstance(spec, Env) and spec.has_pixels:
        expected = Expected(tuple(getattr(run.data, "stored", spec.shape)), "uint8")
    elif isinstance(spec, Tokens):
        expected = Expected(tuple(spec.shape), "ids", True)
    else:
        expected = Expected(tuple(spec.shape), "real" if isinstance(spec, Table) else "float")
    graph.register_forward_pre_hook(partial(_check, expected), with_kwargs=True)
    return graph


def _codes(run: FinishedRun) -> Expected:
    return Expected((cast(int, run.task.net.latent),), "float")


def _check(expected: Expected, module: nn.Module, args: tuple[object, ...], named: dict[str, object]) -> None:
    """Raise UserError for a wrong input, by its place or by its name."""
    if not args and not named:
        return
    x, (shape, values, has_any_length) = [*args, *named.values()][0], expected
    sizes = ", ".join(["batch", *map(str, shape)])
    if not isinstance(x, Tensor):
        raise UserError(f"the module got a {type(x).__name__}\n  expected a tensor ({sizes})")
    if x.is_nested or x.layout is not torch.strided and not x.is_mkldnn:
        kind = "nested" if x.is_nested else "sparse"
        raise UserError(f"the module got a {kind} tensor\n  expected a dense one ({sizes})")
    if x.dim() != len(shape) + 1 or not (has_any_length or tuple(x.shape[1:]) == shape):
        raise UserError(f"the module got an input of shape {tuple(x.shape)}\n  expected ({sizes}); one sample: x[None]")
    own = next((p for p in module.parameters() if p.is_floating_point()), x)
    is_moved = isinstance(module, Graph) and module.encodes
    if x.is_meta and (own is x or own.device != x.device):
        raise UserError("the module got a tensor on the device meta, which has no values\n  expected one with values")
    if x.device != own.device and not is_moved:
        wanted = f"one on that of the weights: x.to({str(own.device)!r})"
        raise UserError(f"the module got a tensor on the device {x.device}\n  expected {wanted}")
    if values == "float":
        kind = own.device.type
        may_cast = own is not x and x.is_floating_point() and torch.amp.is_autocast_available(kind)
        is_cast = may_cast and torch.is_autocast_enabled(kind)
        types = [x.dtype if is_cast else own.dtype]
    elif values == "real":
        types = [x.dtype] if x.dtype != torch.bool and not x.is_complex() else [torch.float32]
    else:
        types = [torch.uint8] if values == "uint8" else [torch.int64, torch.int32]
    if x.dtype not in types:
        wanted, actual = (str(each).removeprefix("torch.") for each in (types[0], x.dtype))
        what = {"uint8": "pixels as they are stored, ", "ids": "ids of words, "}.get(values, "")
        raise UserError(f"the module got an input of type {actual}\n  expected {what}{wanted}: x.to(torch.{wanted})")
