"""The layers of a policy before its heads: convolutions, if observations are images, then dense layers.

Source: Mnih et al. 2015 (convolutions without padding or pooling); gain sqrt(2) for orthogonal weights: Huang et al.
2022, detail 2.
"""

from math import prod, sqrt

from torch import nn

from dlrun.errors import UserError
from dlrun.models.layers import activation as activation_layer
from dlrun.models.layers import initialise
from dlrun.spec import Env
from dlrun.types import Convolution


def trunk_width(spec: Env, convolutions: list[Convolution], hidden: list[int]) -> int:
    """The width of a trunk's output. Raises UserError if the convolutions do not fit the observations."""
    if convolutions and not spec.has_pixels:
        raise UserError(
            f"model.convolutions={convolutions} take images, and the data is {spec}\n"
            "  expected model.convolutions=[], or data with images, such as data=breakout"
        )
    channels, sides = spec.shape[0], spec.shape[1:]
    for width, kernel, stride in convolutions:
        if min(sides) < kernel:
            raise UserError(
                f"model.convolutions={convolutions}: a kernel of {kernel} on {'x'.join(map(str, sides))} pixels\n"
                f"  expected kernels that fit into images of {'x'.join(map(str, spec.shape[1:]))} pixels"
            )
        channels, sides = width, tuple((side - kernel) // stride + 1 for side in sides)
    return hidden[-1] if hidden else channels * prod(sides)


def trunk(spec: Env, convolutions: list[Convolution], hidden: list[int], activation: str, init: str) -> nn.Sequential:
    """The layers before the heads: convolutions if observations are images, then dense ones."""
    layers: list[nn.Module] = []
    channels = spec.shape[0]
    for width, kernel, stride in convolutions:
        layers += [initialised(nn.Conv2d(channels, width, kernel, stride), init), activation_layer(activation)]
        channels = width
    layers += [nn.Flatten()] * spec.has_pixels
    features = trunk_width(spec, convolutions, [])
    for width in hidden:
        layers += [initialised(nn.Linear(features, width), init), activation_layer(activation)]
        features = width
    return nn.Sequential(*layers)


def initialised(layer: nn.Linear | nn.Conv2d, init: str) -> nn.Module:
    """The layer with its weights set; init=orthogonal uses gain sqrt(2)."""
    initialise(layer, init)
    if init == "orthogonal":
        nn.init.orthogonal_(layer.weight, sqrt(2))
    return layer
