"""A network for tables: embedded columns, then several perceptrons that share most of their weights.

Source: Gorishniy et al. 2025 (TabM: ensemble members share matrices and differ in the scales of their inputs and
outputs and in their heads); Holzmueller et al. 2024 (RealMLP: waves, one-hot for few levels, a learned scale per
feature); Gorishniy et al. 2022 (embeddings of numbers).
"""

from math import log

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.columns import Categories, Mixed, Waves
from dlrun.models.layers import activation as activation_layer
from dlrun.spec import Columns, Table
from dlrun.types import Activation, Few, NonNegative, Probability, Size

FEW_LEVELS = 8  # categories of at most this number of levels are one-hot
CATEGORY_SIZE = 8  # numbers in the vector of a category with more levels


def tabular(
    spec: Table | Columns,
    *,
    hidden: list[Size],
    members: Few,
    activation: Activation,
    dropout: Probability,
    frequencies: Size,
    sigma: NonNegative,
    size: Size,
) -> nn.Module:
    """Rows (B, features) -> (B, outputs); in training (B, members, outputs) if there are several ensemble members.

    hidden: widths of the hidden layers. frequencies: waves of each number; sigma: standard deviation of their
    frequencies at the start, 0: numbers enter as they are. size: numbers that each number becomes.
    """
    levels = spec.levels if isinstance(spec, Columns) else ()
    count = spec.features - len(levels)
    has_waves = sigma > 0 and size > 1 and count > 0
    first: nn.Module = Waves(count, frequencies, sigma, size) if has_waves else nn.Identity()
    features = count * size if has_waves else count
    if levels:
        sizes = [0 if level <= FEW_LEVELS else CATEGORY_SIZE for level in levels]
        categories = Categories(levels, sizes)
        first, features = Mixed(count, first, categories), features + categories.size
    first = nn.Sequential(first, Scale(features))
    layers: list[nn.Module] = []
    for i, width in enumerate(hidden):
        layers += [Shared(features, width, members, is_first=i == 0), activation_layer(activation)]
        layers += [nn.Dropout(dropout)] if dropout else []
        features = width
    return Tabular(first, nn.Sequential(*layers), Heads(features, spec.outputs, members), spec)


class Tabular(nn.Module):
    """In training the outputs of all ensemble members (B, members, outputs); else those of their mean (B, outputs).

    Ensemble members are averaged as probabilities, or as real outputs.
    """

    def __init__(self, first: nn.Module, layers: nn.Module, heads: nn.Module, spec: Table | Columns) -> None:
        super().__init__()
        self.first, self.layers, self.heads, self.classes = first, layers, heads, spec.classes

    def forward(self, x: Tensor) -> Tensor:
        out = self.heads(self.layers(self.first(x)[:, None]))  # (B, members, outputs)
        if out.shape[1] == 1:
            return out[:, 0]
        if self.training:
            return out
        if not self.classes:
            return out.mean(1)
        if self.classes == 2:  # the logit of the mean probability
            return _log_mean(F.logsigmoid(out)) - _log_mean(F.logsigmoid(-out))
        return _log_mean(out.log_softmax(2))


def _log_mean(logs: Tensor) -> Tensor:
    """The logarithm of the members' mean probability: (B, members, outputs) -> (B, outputs)."""
    return logs.logsumexp(1) - log(logs.shape[1])


class Scale(nn.Module):
    """A learned factor for each feature."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Shared(nn.Linear):
    """A dense layer with one matrix for all ensemble members: (B, 1 or members, in) -> (B, members, out).

    Each of them scales its inputs and outputs and has a bias of its own. is_first: its inputs have random signs, so
    that they begin apart (Wen et al. 2020, BatchEnsemble).
    """

    def __init__(self, features: int, width: int, members: int, is_first: bool) -> None:
        super().__init__(features, width)
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        signs = torch.randint(2, (members, features)).float() * 2 - 1
        self.inputs = nn.Parameter(signs if is_first and members > 1 else torch.ones(members, features))
        self.outputs = nn.Parameter(torch.ones(members, width))
        self.bias = nn.Parameter(self.bias.detach().repeat(members, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x * self.inputs, self.weight) * self.outputs + self.bias


class Heads(nn.Module):
    """A dense layer for each ensemble member: (B, members, width) -> (B, members, outputs)."""

    def __init__(self, width: int, outputs: int, members: int) -> None:
        super().__init__()
        bound = width**-0.5
        self.weight = nn.Parameter(bound * (2 * torch.rand(members, width, outputs) - 1))
        self.bias = nn.Parameter(bound * (2 * torch.rand(members, outputs) - 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bmw,mwo->bmo", x, self.weight) + self.bias
