"""The network of a finished run as a module of its own."""

from copy import deepcopy
from functools import partial

from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.runs.model_files import Graph
from dlrun.spec import Tokens
from dlrun.train.finished import FinishedRun


def guarded(run: FinishedRun) -> nn.Module:
    """Return a copy of the evaluated network that refuses inputs of another shape than the data's."""
    net = deepcopy(run.task.evaluated()).eval()
    if run.task.takes[0] == "inputs":
        net.register_forward_pre_hook(partial(_check, tuple(run.data.spec.shape), isinstance(run.data.spec, Tokens)))
    return net


def full(run: FinishedRun) -> nn.Module:
    """Return the network with normalisation inside, as `dl-runs export` writes it."""
    return Graph(run, run.task.takes[0]).eval()


def _check(shape: tuple[int, ...], has_any_length: bool, module: nn.Module, args: tuple[object, ...]) -> None:
    x = args[0] if args else None
    if not isinstance(x, Tensor):
        return
    fits = x.dim() == len(shape) + 1 and (has_any_length or tuple(x.shape[1:]) == shape)
    if not fits:
        raise UserError(
            f"the module got an input of shape {tuple(x.shape)}\n"
            f"  expected (batch, {', '.join(map(str, shape))}); one sample: x[None]"
        )
