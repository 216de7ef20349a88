"""A linear model: one dense layer. Linear regression on a table, softmax regression on images.

Source: the book, chapter 2 (linear regression, started from zero).
"""

from typing import Literal

from torch import nn

from dlrun.models.layers import initialise
from dlrun.spec import Image, Table
from dlrun.types import Init


def linear(spec: Image | Table, *, init: Init | Literal["zeros"], bias: bool) -> nn.Module:
    """One dense layer: (B, *spec.shape) -> (B, outputs). init=zeros works here, since there is no symmetry to break."""
    net = nn.Sequential(
        nn.Flatten(),  # (B, features)
        nn.Linear(spec.features, spec.outputs, bias=bias),  # (B, outputs)
    )
    return initialise(net, init)
