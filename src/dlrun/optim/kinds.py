"""The kinds of a net's parameters, for optimizers that treat them differently and for optimizer.groups.

filters: weights of convolutions. matrices: weights of two dimensions. embeddings: tables of embeddings. head: the
weight of the last layer. norms: scales and shifts of normalisations. biases: all other biases. others: the rest.
"""

from collections.abc import Callable, Iterable

from torch import nn
from torch.optim import Optimizer

from dlrun.errors import UserError
from dlrun.system.torch_internals import BatchNorm
from dlrun.types import KINDS, Kind

NORMS = (BatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm)


def kinds_of(net: nn.Module) -> dict[nn.Parameter, Kind]:
    """The kind of every parameter of a net."""
    kinds: dict[nn.Parameter, Kind] = {}
    weights: list[nn.Parameter] = []
    for module in net.modules():
        for name, param in module.named_parameters(recurse=False):
            if isinstance(module, NORMS):
                kind: Kind = "norms"
            elif isinstance(module, nn.Embedding | nn.EmbeddingBag):
                kind = "embeddings"
            elif param.dim() >= 2:
                kind = "matrices" if param.dim() == 2 else "filters"
                weights.append(param)
            else:
                kind = "biases" if "bias" in name else "others"
            kinds.setdefault(param, kind)
    if weights:
        kinds[weights[-1]] = "head"
    return kinds


def split_by_kind(
    net: nn.Module, groups: Iterable[tuple[float, list[nn.Parameter]]]
) -> list[tuple[Kind, float, list[nn.Parameter]]]:
    """Split groups of (factor on lr, parameters) so that each holds one kind: (kind, factor, parameters)."""
    kinds = kinds_of(net)
    split = []
    for factor, params in groups:
        split += [(kind, factor, [param for param in params if kinds[param] == kind]) for kind in KINDS]
    return [group for group in split if group[2]]


def make_optimizer(
    make: Callable[..., Optimizer],
    net: nn.Module,
    groups: list[tuple[float, list[nn.Parameter]]],
    kinds: dict[str, dict[str, float]] | None,
) -> tuple[Optimizer, list[float]]:
    """Make an optimizer from groups of (factor on lr, parameters), and return it with the factor of each of its groups.

    kinds: see Update. Raises UserError if the optimizer lacks a setting.
    """
    if kinds is None:
        return make([{"params": params} for _, params in groups]), [factor for factor, _ in groups]
    split = split_by_kind(net, groups)
    settings = [{"params": params, "kind": kind, **kinds.get(kind, {})} for kind, _, params in split]
    optimizer = make(settings)
    if unknown := {key for each in kinds.values() for key in each} - optimizer.defaults.keys():
        raise UserError(
            f"optimizer.groups sets {', '.join(sorted(unknown))}, which {type(optimizer).__name__} does not have\n"
            f"  expected lr{' or weight_decay' if 'weight_decay' in optimizer.defaults else ''}"
        )
    return optimizer, [factor for _, factor, _ in split]
