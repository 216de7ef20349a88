"""A linear model: one dense layer. Linear regression on a table, softmax regression on images.

Source: the book, chapter 2 (linear regression, started from zero).
"""

from typing import Literal

from torch import nn

from dlrun.models.columns import entry
from dlrun.models.layers import initialise
from dlrun.spec import Columns, Image, Series, Table
from dlrun.types import Init


def linear(spec: Image | Table | Columns | Series, *, init: Init | Literal["zeros"], bias: bool) -> nn.Module:
    """One dense layer: (B, *spec.shape) -> (B, outputs). init=zeros works here, since there is no symmetry to break.

    Categories of a table are one-hot: with embeddings it would not be a linear model.
    """
    first, features = entry(spec, one_hot=True)  # (B, features)
    net = nn.Sequential(
        first,
        nn.Linear(features, spec.outputs, bias=bias),  # (B, outputs)
    )
    return initialise(net, init)
