"""Pairs of networks for adversarial learning: a generator of samples and a critic (or discriminator) of them.

Source: Goodfellow et al. 2014; Radford et al. 2016 (DCGAN); the book, section 13.2, notes E45. Deviations from the
book: every size comes from the spec, so the first maps are 4x4 to 7x7 and the number of layers follows (28, 32 and 64
pixels give 2, 3 and 4 doublings); the critic ends in a dense layer over its last maps, where the book averages them;
noise goes through a dense layer, which is the same as the book's transposed convolution over one pixel.
"""

from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.layers import initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image, Table
from dlrun.types import Count, Init, Norm

BASE = 7  # the sides of the smallest maps are this or less
SLOPE = 0.2  # of leaky ReLU, as in the papers


class Pair(nn.Module):
    """latent: numbers of noise. generator: (B, latent) -> (B, *shape); critic: (B, *shape) -> (B,), raw."""

    def __init__(self, generator: nn.Module, critic: nn.Module, latent: int) -> None:
        super().__init__()
        self.generator, self.critic, self.latent = generator, critic, latent

    def forward(self, z: Tensor) -> Tensor:
        """(B, latent) -> (B,), the critic's view of what is generated."""
        return self.critic(self.generator(z))


def gan(
    spec: Image | Table,
    *,
    latent: Count,
    hidden: list[Count],
    width: Count,
    norm: Norm,
    critic_norm: Norm,
    init: Init,
) -> nn.Module:
    """Dense nets for tables, convolutional ones for pictures, whose pixels are in [-1, 1].

    hidden: widths of both nets, for tables. width: channels of the largest maps, for pictures, doubled per halving.
    norm, critic_norm: for pictures; the critic's first layer has none.
    """
    if isinstance(spec, Table):
        return initialise(_dense(spec, latent, hidden), init)
    return initialise(_convolutional(spec, latent, width, norm, critic_norm), init)


def _dense(spec: Table, latent: int, hidden: list[int]) -> Pair:
    generator: list[nn.Module] = []
    critic: list[nn.Module] = []
    for a, b in zip([latent, *hidden], hidden, strict=False):
        generator += [nn.Linear(a, b), nn.ReLU()]
    for a, b in zip([spec.features, *hidden], hidden, strict=False):
        critic += [nn.Linear(a, b), nn.LeakyReLU(SLOPE)]
    generator.append(nn.Linear(hidden[-1] if hidden else latent, spec.features))  # (B, features)
    critic += [nn.Linear(hidden[-1] if hidden else spec.features, 1), nn.Flatten(0)]  # (B,)
    return Pair(nn.Sequential(*generator), nn.Sequential(*critic), latent)


def _convolutional(spec: Image, latent: int, width: int, norm: str, critic_norm: str) -> Pair:
    """4x4 convolutions with stride 2; for 64x64 pixels and width 64: 4x4x512, 8x8x256, 16x16x128, 32x32x64, 64x64."""
    channels, height, width_px = spec.shape
    times = _doublings(height, width_px)
    maps = [width << i for i in reversed(range(times))]  # from the smallest to the largest
    first = (maps[0], height >> times, width_px >> times)
    features = first[0] * first[1] * first[2]
    generator: list[nn.Module] = [nn.Linear(latent, features, bias=norm == "none"), nn.Unflatten(1, first)]
    for a, b in zip(maps, maps[1:], strict=False):
        generator += [norm_layer(norm, a, ndim=2), nn.ReLU()]
        generator.append(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=norm == "none"))
    generator += [norm_layer(norm, maps[-1], ndim=2), nn.ReLU()]
    generator += [nn.ConvTranspose2d(maps[-1], channels, 4, stride=2, padding=1), nn.Tanh()]  # (B, C, H, W)
    critic: list[nn.Module] = []
    for i, (a, b) in enumerate(zip([channels, *maps[:0:-1]], maps[::-1], strict=True)):
        has_norm = i > 0 and critic_norm != "none"
        critic.append(nn.Conv2d(a, b, 4, stride=2, padding=1, bias=not has_norm))
        critic += [norm_layer(critic_norm, b, ndim=2)] if has_norm else []
        critic.append(nn.LeakyReLU(SLOPE))
    critic += [nn.Flatten(), nn.Linear(features, 1), nn.Flatten(0)]  # (B,)
    return Pair(nn.Sequential(*generator), nn.Sequential(*critic), latent)


def _doublings(height: int, width: int) -> int:
    """How often both sides double from the smallest maps. Raises UserError where they do not come from such."""
    times, h, w = 0, height, width
    while min(h, w) > BASE and h % 2 == 0 and w % 2 == 0:
        h, w, times = h // 2, w // 2, times + 1
    if times == 0 or min(h, w) > BASE:
        raise UserError(
            f"gan cannot make images of {height}x{width}: its maps start at {BASE}x{BASE} or less and double; "
            "expected sides such as 8, 16, 28, 32, 48, 64 or 96; choose other data, or another data.spec.shape"
        )
    return times
