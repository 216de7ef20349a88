"""InfoGAN: a generator of images from noise and codes, and a critic that also guesses the codes of an image.

Source: Chen et al. 2016, appendix C.1: the convolutions of a DCGAN (form=paper in models/gan.py), with a dense layer
before those of the generator and one after those of the critic. The critic and Q, which guesses, share all of this; Q
has one more dense layer of its own.
"""

from typing import Annotated, cast

import torch
from torch import Tensor, nn

from dlrun.models.conditional_gan import ClassGenerator
from dlrun.models.gan import SLOPE, Pair, gan
from dlrun.models.layers import initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image, Unlabelled
from dlrun.types import Init, Norm, Range, Size

OWN = 128  # units of Q's own layer


class InfoPair(Pair):
    """A generator of images from codes, and a critic that guesses the codes.

    A code (B, latent) is noise, then `codes` numbers, then a number for each of the categories, the greatest of which
    chooses the category. All are drawn from N(0, 1): the generator turns noise and codes into numbers that are uniform
    in (-1, 1), and all categories are drawn equally often.
    """

    generator: "CodeGenerator"
    critic: "GuessingCritic"

    def __init__(self, generator: "CodeGenerator", critic: "GuessingCritic", latent: int) -> None:
        super().__init__(generator, critic, latent)
        self.categories, self.codes = generator.classes, generator.codes


class CodeGenerator(ClassGenerator):
    """Codes (B, noise + codes + categories) -> images (B, C, H, W) in [-1, 1]."""

    def __init__(self, layers: nn.Module, codes: int, categories: int) -> None:
        super().__init__(layers, categories)
        self.codes = codes

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(torch.cat((uniform(z[:, : -self.classes]), self.classes_of(z)), 1))


class GuessingCritic(nn.Module):
    """Images (B, C, H, W) -> (B, 1 + categories + 2 codes): a score without a final activation, then Q's guesses.

    The guesses are a logit for each category, and the mean and the logarithm of the standard deviation of each code.
    """

    def __init__(self, trunk: nn.Module, score: nn.Module, guesses: nn.Module) -> None:
        super().__init__()
        self.trunk, self.score, self.guesses = trunk, score, guesses

    def forward(self, x: Tensor) -> Tensor:
        features = self.trunk(x)  # (B, features)
        return torch.cat((self.score(features), self.guesses(features)), 1)


def uniform(z: Tensor) -> Tensor:
    """Map numbers drawn from N(0, 1) to uniform ones in (-1, 1): 2 F(x) - 1, with the normal distribution F."""
    return torch.erf(z * 0.5**0.5)


def infogan(
    spec: Image | Unlabelled,
    *,
    noise: Size,
    categories: Annotated[int, Range(2, 1000)],
    codes: Annotated[int, Range(0, 100)],
    units: Size,
    width: Size,
    norm: Norm,
    critic_norm: Norm,
    init: Init,
) -> InfoPair:
    """Convolutional nets. noise: numbers of the noise vector. categories: values of the categorical code.

    codes: number of continuous codes. units: of the dense layers of generator and critic. width, norm,
    critic_norm: see gan(); the dense layers of the critic and of Q have the critic's norm.
    """
    latent = noise + codes + categories
    pair = gan(
        spec, latent=units, hidden=[], form="paper", width=width, norm=norm, critic_norm=critic_norm,
        attention=False, init="torch",
    )  # fmt: skip
    before = _dense(latent, units, norm, nn.ReLU())
    generator = nn.Sequential(*before, *cast(nn.Sequential, pair.generator))
    *trunk, last, _ = cast(nn.Sequential, pair.critic)  # the last ones turn all features into scores (B,)
    features = cast(nn.Linear, last).in_features
    trunk += _dense(features, units, critic_norm, nn.LeakyReLU(SLOPE))
    guesses = [*_dense(units, OWN, critic_norm, nn.LeakyReLU(SLOPE)), nn.Linear(OWN, categories + 2 * codes)]
    critic = GuessingCritic(nn.Sequential(*trunk), nn.Linear(units, 1), nn.Sequential(*guesses))
    return initialise(InfoPair(CodeGenerator(generator, codes, categories), critic, latent), init)


def _dense(features: int, units: int, norm: str, activation: nn.Module) -> list[nn.Module]:
    """A dense layer with its norm (layer instead of instance, which needs positions) and its activation."""
    norm = "layer" if norm == "instance" else norm
    return [nn.Linear(features, units, bias=norm == "none"), norm_layer(norm, units, ndim=0), activation]
