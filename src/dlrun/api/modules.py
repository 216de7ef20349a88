"""The network of a finished run as a module of its own."""

from copy import deepcopy
from functools import partial
from typing import Literal, NamedTuple, cast

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.runs.model_files import Graph
from dlrun.spec import Image, Mask, Table, Tokens
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
    else:
        has_ids = isinstance(spec, Tokens)
        expected = Expected(tuple(spec.shape), "ids" if has_ids else "float", has_ids)
    net.register_forward_pre_hook(partial(_check, expected))
    return net


def full(run: FinishedRun) -> nn.Module:
    """Return the network with normalisation inside, as `dl-runs export` writes it; it refuses wrong inputs, too."""
    graph, spec, way = Graph(run, run.task.accepts[0]).eval(), run.data.spec, run.task.accepts[0]
    if way == "latent":
        expected = _codes(run)
    elif isinstance(spec, Image | Mask):
        expected = Expected(tuple(getattr(run.data, "stored", spec.shape)), "uint8")
    elif isinstance(spec, Tokens):
        expected = Expected(tuple(spec.shape), "ids", True)
    else:
        expected = Expected(tuple(spec.shape), "real" if isinstance(spec, Table) else "float")
    graph.register_forward_pre_hook(partial(_check, expected))
    return graph


def _codes(run: FinishedRun) -> Expected:
    return Expected((cast(int, run.task.net.latent),), "float")


def _check(expected: Expected, module: nn.Module, args: tuple[object, ...]) -> None:
    """Raise UserError for a wrong input. Arguments by name are passed on as they are."""
    if not args:
        return
    x, (shape, values, has_any_length) = args[0], expected
    sizes = ", ".join(["batch", *map(str, shape)])
    if not isinstance(x, Tensor):
        raise UserError(f"the module got a {type(x).__name__}\n  expected a tensor ({sizes})")
    if x.dim() != len(shape) + 1 or not (has_any_length or tuple(x.shape[1:]) == shape):
        raise UserError(f"the module got an input of shape {tuple(x.shape)}\n  expected ({sizes}); one sample: x[None]")
    if values == "float":
        parameter = next((p for p in module.parameters() if p.is_floating_point()), x)
        is_cast = parameter is not x and x.is_floating_point() and torch.is_autocast_enabled(parameter.device.type)
        types = [x.dtype if is_cast else parameter.dtype]
    elif values == "real":
        types = [x.dtype] if x.dtype != torch.bool and not x.is_complex() else [torch.float32]
    else:
        types = [torch.uint8] if values == "uint8" else [torch.int64, torch.int32]
    if x.dtype not in types:
        wanted, actual = (str(each).removeprefix("torch.") for each in (types[0], x.dtype))
        what = {"uint8": "pixels as they are stored, ", "ids": "ids of words, "}.get(values, "")
        raise UserError(f"the module got an input of type {actual}\n  expected {what}{wanted}: x.to(torch.{wanted})")
