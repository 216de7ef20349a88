"""A multi-layer perceptron: dense layers of any widths.

Source: the book, chapter 3 (784-256-128-10), sections 6.2 and 6.3 (four layers), 6.8 (Auto MPG) and 9.8 (depth, L2 and
dropout on the moons), chapter 10 (784-256-256-256-10). Two classes give one logit; the book has one sigmoid output.
"""

from torch import nn

from dlrun.errors import UserError, counted
from dlrun.models.columns import entry
from dlrun.models.layers import activation as activation_layer
from dlrun.models.layers import initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Columns, Image, Series, Table
from dlrun.types import Activation, Init, Norm, Probability, Size


def mlp(
    spec: Image | Table | Columns | Series,
    *,
    hidden: list[Size],
    activation: Activation,
    dropout: Probability | list[Probability],
    norm: Norm,
    init: Init,
) -> nn.Module:
    """Hidden layers of dense, norm, activation, dropout, then a dense output: (B, *spec.shape) -> (B, outputs).

    hidden: widths, from the input on; [] is a linear model. dropout: probability of dropping a unit after each hidden
    layer, or a list with one probability per hidden layer.
    """
    rates = [dropout] * len(hidden) if isinstance(dropout, (int, float)) else list(dropout)
    if len(rates) != len(hidden):
        raise UserError(
            f"model.dropout has {counted(len(rates), 'number')} {rates} for {counted(len(hidden), 'hidden layer')} "
            f"{list(hidden)}; expected one number for all, or one per hidden layer: "
            f"write {counted(len(hidden), 'number')}, with 0.0 for layers without dropout"
        )
    first, features = entry(spec)  # (B, features)
    layers: list[nn.Module] = [first]
    for width, rate in zip(hidden, rates, strict=True):
        layers.append(nn.Linear(features, width))  # (B, width)
        if norm != "none":
            layers.append(norm_layer(norm, width, ndim=0))
        layers.append(activation_layer(activation))
        if rate > 0:
            layers.append(nn.Dropout(rate))
        features = width
    layers.append(nn.Linear(features, spec.outputs))  # (B, outputs)
    return initialise(nn.Sequential(*layers), init)
