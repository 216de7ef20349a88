"""L1 and L2 penalties on weights (the book, section 9.5), and the range of the penalised weights (table 9.1)."""

from fnmatch import fnmatch
from functools import partial

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.output.report import Report
from dlrun.output.surfaces import weights


class Penalty:
    """l1 times the sum of |w| plus l2 times the sum of w^2 over the weights whose names match a pattern.

    False if both are 0.
    """

    def __init__(self, net: nn.Module, l1: float, l2: float, patterns: list[str]) -> None:
        self.l1, self.l2 = l1, l2
        self.weights = penalised_weights(net, patterns) if l1 or l2 else {}

    def __bool__(self) -> bool:
        return bool(self.weights)

    def __call__(self) -> Tensor:
        terms = []
        if self.l1:
            terms.append(self.l1 * torch.stack([w.abs().sum() for w in self.weights.values()]).sum())
        if self.l2:
            terms.append(self.l2 * torch.stack([w.square().sum() for w in self.weights.values()]).sum())
        return sum(terms[1:], terms[0])

    def report(self, net: nn.Module) -> Report:
        """A figure of the largest penalised matrix, and the least, greatest and mean entry of each, in this network."""
        matrices = {name: net.get_parameter(name).detach().flatten(1).cpu().numpy() for name in self.weights}
        if not matrices:
            return Report()
        name = max(matrices, key=lambda name: matrices[name].size)
        ranges = {
            name: {"least": float(w.min()), "greatest": float(w.max()), "mean": float(w.mean())}
            for name, w in matrices.items()
        }
        return Report({"weights": partial(weights, name, matrices[name])}, numbers={"penalised_weights": ranges})


def penalised_weights(net: nn.Module, patterns: list[str]) -> dict[str, Tensor]:
    """The weights (two dimensions or more) whose names match a pattern. Raises UserError if one matches nothing."""
    weights = {name: p for name, p in net.named_parameters() if p.dim() > 1}
    if not patterns:
        raise UserError(
            "task.penalise=[] leaves task.l1 and task.l2 nothing to act on: expected patterns, such as ['*']"
        )
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in weights):
            raise UserError(
                f"task.penalise has {pattern!r}, which matches no weight: expected a pattern over {', '.join(weights)}"
            )
    return {name: p for name, p in weights.items() if any(fnmatch(name, pattern) for pattern in patterns)}
