"""Pairs of networks for adversarial learning: a generator of samples and a critic (or discriminator).

For images there are four forms; all sizes follow from the spec.
dense: dense layers, as in the first GAN (the book, section 13.4).
paper: 4x4 convolutions with stride 2 between the smallest maps, of 4x4 to 7x7, and the image: 2, 3 or 4 layers for 28,
32 or 64 pixels.
book: the same generator with a ReLU on the noise; a critic of five convolutions and an average over its maps.
small: three layers each; the generator's maps have sides 3 -> 9 -> 21 -> 64, the critic's 64 -> 20 -> 6 -> 1.

With attention=true, both nets attend to all positions of the maps of half the image's side (Zhang et al. 2019).

Source: Goodfellow et al. 2014; Radford et al. 2016 (DCGAN); the book, section 13.3 (3,576,704 and 6,561,665 parameters
at 64x64). Deviations: a dense layer on the noise, which equals the book's transposed convolution over one pixel.
Convolutions without padding get some if images are too small without it. The last kernel of the generator in form=small
is enlarged to fit the image.
"""

from typing import Literal, cast

from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.attention import SelfAttention
from dlrun.models.layers import initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image, Table, Unlabelled
from dlrun.types import Init, Norm, Size

BASE = 7  # the sides of the smallest maps are at most this
SLOPE = 0.2  # of leaky ReLU, as in the papers
SMALLEST = 28  # smallest sides of images in form=small


class Pair(nn.Module):
    """A generator (B, latent) -> (B, *shape) and a critic (B, *shape) -> (B,), without a final activation."""

    def __init__(self, generator: nn.Module, critic: nn.Module, latent: int) -> None:
        super().__init__()
        self.generator, self.critic, self.latent = generator, critic, latent

    def forward(self, z: Tensor) -> Tensor:
        """The critic's scores of generated samples: (B, latent) -> (B,)."""
        return self.critic(self.generator(z))


def gan(
    spec: Image | Table | Unlabelled,
    *,
    latent: Size,
    hidden: list[Size],
    form: Literal["paper", "book", "small", "dense"],
    width: Size,
    norm: Norm,
    critic_norm: Norm,
    attention: bool,
    init: Init,
) -> Pair:
    """Dense nets for tables, dense or convolutional nets for images with pixels in [-1, 1].

    hidden: widths of both nets, for tables and form=dense.
    width: channels of the largest maps, for images; each layer doubles them.
    norm, critic_norm: for images; the critic's first layer has none, except in form=book.
    attention: for images in form=paper and form=book.
    """
    if attention and (isinstance(spec, Table) or form not in ("paper", "book")):
        raise UserError(f"model.attention=true with model.form={form}: expected images, and form=paper or form=book")
    if isinstance(spec, Table) or form == "dense":
        return initialise(_dense(spec, latent, hidden), init)
    make = {"paper": _paper, "book": _book, "small": _small}[form]
    pair = make(spec, latent, width, norm, critic_norm)
    if attention:  # before the generator's last convolution, and after the critic's first and its activation
        generator, critic = cast(nn.Sequential, pair.generator), cast(nn.Sequential, pair.critic)
        first = next(i for i, layer in enumerate(critic) if isinstance(layer, nn.LeakyReLU))
        generator.insert(len(generator) - 2, SelfAttention(width))
        critic.insert(first + 1, SelfAttention(width))
    return initialise(pair, init)


def _dense(spec: Image | Table, latent: int, hidden: list[int]) -> Pair:
    generator = hidden_layers([latent, *hidden], nn.ReLU())
    critic = hidden_layers([spec.features, *hidden], nn.LeakyReLU(SLOPE))
    generator.append(nn.Linear(hidden[-1] if hidden else latent, spec.features))  # (B, features)
    critic += [nn.Linear(hidden[-1] if hidden else spec.features, 1), nn.Flatten(0)]  # (B,)
    if isinstance(spec, Image):
        generator += [nn.Unflatten(1, tuple(spec.shape)), nn.Tanh()]  # (B, C, H, W)
        critic = [nn.Flatten(), *critic]
    return Pair(nn.Sequential(*generator), nn.Sequential(*critic), latent)


def hidden_layers(widths: list[int], activation: nn.Module) -> list[nn.Module]:
    """Dense layers from the first width to the last, each followed by the activation."""
    layers: list[nn.Module] = []
    for a, b in zip(widths, widths[1:], strict=False):
        layers += [nn.Linear(a, b), activation]
    return layers


def _paper(spec: Image, latent: int, width: int, norm: str, critic_norm: str) -> Pair:
    """For 64x64 pixels and width 64: 4x4x512, 8x8x256, 16x16x128, 32x32x64, 64x64, and back."""
    generator, maps, features = _doubling_generator(spec, latent, width, norm)
    critic: list[nn.Module] = []
    for i, (a, b) in enumerate(zip([spec.shape[0], *maps[:0:-1]], maps[::-1], strict=True)):
        critic += _layer(a, b, 4, 2, 1, critic_norm if i else "none")
    critic += [nn.Flatten(), nn.Linear(features, 1), nn.Flatten(0)]  # (B,)
    return Pair(nn.Sequential(*generator), nn.Sequential(*critic), latent)


def _book(spec: Image, latent: int, width: int, norm: str, critic_norm: str) -> Pair:
    """The critic for 64x64 pixels and width 64: 31x31x64, 14x14x128, 6x6x256, 4x4x512, 2x2x1024, then the average."""
    generator = [nn.ReLU(), *_doubling_generator(spec, latent, width, norm, last_bias=False)[0]]
    kernels, strides = (4, 4, 4, 3, 3), (2, 2, 2, 1, 1)
    padding = 0 if _fits(spec, kernels, strides) else 1
    widths = [spec.shape[0], *(width << i for i in range(5))]
    critic: list[nn.Module] = []
    for a, b, kernel, stride in zip(widths, widths[1:], kernels, strides, strict=False):
        critic += _layer(a, b, kernel, stride, padding, critic_norm)
    critic += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 1), nn.Flatten(0)]  # (B,)
    return Pair(nn.Sequential(*generator), nn.Sequential(*critic), latent)


def _small(spec: Image, latent: int, width: int, norm: str, critic_norm: str) -> Pair:
    """For 64x64 pixels and width 64: 3x3x512, 9x9x256, 21x21x128, 64x64, and 20x20x64, 6x6x128, 1x1x256."""
    channels, *sides = spec.shape
    if min(sides) < SMALLEST:
        raise UserError(
            f"gan in form=small cannot make images of {sides[0]}x{sides[1]}: its three layers make "
            f"{SMALLEST}x{SMALLEST} or more; expected sides such as 28, 32, 64; choose model.form=paper or other data"
        )
    first = [(side - 10) // 18 for side in sides]  # three layers turn a side of n into 18 n + 10
    last = 4 + (sides[0] - 10) % 18, 4 + (sides[1] - 10) % 18
    generator: list[nn.Module] = [nn.Linear(latent, 8 * width * first[0] * first[1])]
    generator += [nn.Unflatten(1, (8 * width, *first)), nn.ReLU()]
    for a, b, kernel, stride in ((8 * width, 4 * width, 3, 3), (4 * width, 2 * width, 5, 2)):
        generator.append(nn.ConvTranspose2d(a, b, kernel, stride=stride, bias=norm == "none"))
        generator += [norm_layer(norm, b, ndim=2), nn.ReLU()]
    generator += [nn.ConvTranspose2d(2 * width, channels, last, stride=3), nn.Tanh()]  # (B, C, H, W)
    padding = 0 if _fits(spec, (5, 5, 5), (3, 3, 3)) else 2
    critic: list[nn.Module] = []
    for i, (a, b) in enumerate(zip([channels, width, 2 * width], [width, 2 * width, 4 * width], strict=True)):
        critic += _layer(a, b, 5, 3, padding, critic_norm if i else "none")
        sides = [(side + 2 * padding - 5) // 3 + 1 for side in sides]
    critic += [nn.Flatten(), nn.Linear(4 * width * sides[0] * sides[1], 1), nn.Flatten(0)]  # (B,)
    return Pair(nn.Sequential(*generator), nn.Sequential(*critic), latent)


def _doubling_generator(
    spec: Image, latent: int, width: int, norm: str, last_bias: bool = True
) -> tuple[list[nn.Module], list[int], int]:
    """The layers, the channels from the smallest maps to the largest, and the number of values in the smallest maps."""
    channels, height, width_px = spec.shape
    times = _doublings(height, width_px)
    maps = [width << i for i in reversed(range(times))]
    first = (maps[0], height >> times, width_px >> times)
    features = first[0] * first[1] * first[2]
    layers: list[nn.Module] = [nn.Linear(latent, features, bias=norm == "none"), nn.Unflatten(1, first)]
    for a, b in zip(maps, maps[1:], strict=False):
        layers += [norm_layer(norm, a, ndim=2), nn.ReLU()]
        layers.append(nn.ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=norm == "none"))
    layers += [norm_layer(norm, maps[-1], ndim=2), nn.ReLU()]
    layers += [nn.ConvTranspose2d(maps[-1], channels, 4, stride=2, padding=1, bias=last_bias), nn.Tanh()]
    return layers, maps, features


def _layer(a: int, b: int, kernel: int, stride: int, padding: int, norm: str) -> list[nn.Module]:
    """A convolution of the critic with its norm and leaky ReLU."""
    norms = [norm_layer(norm, b, ndim=2)] if norm != "none" else []
    return [nn.Conv2d(a, b, kernel, stride, padding, bias=norm == "none"), *norms, nn.LeakyReLU(SLOPE)]


def _fits(spec: Image, kernels: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the maps of these convolutions keep at least one pixel without padding."""
    side = min(spec.shape[1:])
    for kernel, stride in zip(kernels, strides, strict=True):
        side = (side - kernel) // stride + 1 if side >= kernel else 0
    return side > 0


def _doublings(height: int, width: int) -> int:
    """Number of doublings from the smallest maps to the image. Raises UserError if there is no such number."""
    times, h, w = 0, height, width
    while min(h, w) > BASE and h % 2 == 0 and w % 2 == 0:
        h, w, times = h // 2, w // 2, times + 1
    if times == 0 or min(h, w) > BASE:
        raise UserError(
            f"gan cannot make images of {height}x{width}: its maps start with sides of {BASE} or less and double; "
            "expected sides such as 8, 16, 28, 32, 48, 64 or 96; choose other data, or another data.spec.shape"
        )
    return times
