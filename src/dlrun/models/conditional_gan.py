"""A generator and a critic that are both given the class of an image (Mirza and Osindero 2014, section 3.1).

The paper has separate layers for noise and class, and maxout in the critic; here both are joined before the first
layer.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.gan import SLOPE, Pair
from dlrun.models.layers import initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image
from dlrun.types import Init, Norm, Probability, Size


class ConditionalPair(Pair):
    """A generator of images of a class, and a critic of an image with its class.

    A code (B, latent) is noise, then a number for each class; the greatest of these chooses the class. Random codes
    draw all classes equally often.
    """

    generator: "ClassGenerator"
    critic: "ClassCritic"

    def __init__(self, generator: "ClassGenerator", critic: "ClassCritic", latent: int) -> None:
        super().__init__(generator, critic, latent)
        self.classes = generator.classes

    def forward(self, z: Tensor) -> Tensor:
        """The critic's scores of generated images of the codes' classes: (B, latent) -> (B,)."""
        return self.critic(self.generator(z), self.generator.classes_of(z))


class ClassGenerator(nn.Module):
    """Codes (B, noise + classes) -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, layers: nn.Module, classes: int) -> None:
        super().__init__()
        self.layers, self.classes = layers, classes

    def classes_of(self, z: Tensor) -> Tensor:
        """One-hot classes (B, classes) of codes."""
        return F.one_hot(z[:, -self.classes :].argmax(1), self.classes).to(z)

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(torch.cat((z[:, : -self.classes], self.classes_of(z)), 1))


class ClassCritic(nn.Module):
    """Images (B, C, H, W) and one-hot classes (B, classes) -> scores (B,), without a final activation."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, x: Tensor, classes: Tensor) -> Tensor:
        return self.layers(torch.cat((x.flatten(1), classes), 1)).squeeze(1)


def conditional_gan(
    spec: Image,
    *,
    noise: Size,
    hidden: list[Size],
    critic_hidden: list[Size],
    norm: Norm,
    dropout: Probability,
    init: Init,
) -> ConditionalPair:
    """Dense nets. noise: numbers of the noise vector. hidden, critic_hidden: widths of generator and critic.

    norm: after each hidden layer of the generator. dropout: after each hidden layer of the critic, as in the paper;
    without it the critic recognises the few samples that it has seen.
    """
    classes = spec.classes or 0
    generator: list[nn.Module] = []
    critic: list[nn.Module] = []
    width = noise + classes
    for size in hidden:
        generator += [nn.Linear(width, size), norm_layer(norm, size, ndim=0), nn.ReLU()]  # (B, size)
        width = size
    generator += [nn.Linear(width, spec.features), nn.Unflatten(1, tuple(spec.shape)), nn.Tanh()]  # (B, C, H, W)
    width = spec.features + classes
    for size in critic_hidden:
        critic += [nn.Linear(width, size), nn.LeakyReLU(SLOPE), nn.Dropout(dropout)]  # (B, size)
        width = size
    critic.append(nn.Linear(width, 1))
    pair = ConditionalPair(
        ClassGenerator(nn.Sequential(*generator), classes), ClassCritic(nn.Sequential(*critic)), noise + classes
    )
    return initialise(pair, init)
