"""CycleGAN: two generators, each of which translates images of one domain into the other, and a critic for each domain.

Source: Zhu et al. 2017, section 4 and appendix 7.2: two convolutions with stride 2, residual blocks and two transposed
convolutions; critics that judge patches. Deviations: borders are zeros instead of reflections; critics have two
convolutions with stride 2 instead of three or more, so they judge patches of 22x22 pixels.
"""

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.gan import SLOPE
from dlrun.models.layers import check_positions, initialise
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image
from dlrun.types import Few, Init, Norm, Size

QUARTER = 4  # the smallest maps have a quarter of the image's sides
SMALLEST = 8  # smallest side of an image


class Cycle(nn.Module):
    """generator[d] translates images into domain d, critic[d] tells images of domain d from translations.

    Generators: (B, C, H, W) -> (B, C, H, W) in [-1, 1]. Critics: (B, C, H, W) -> (B, h, w), a score for each patch.
    """

    def __init__(self, generator: nn.ModuleList, critic: nn.ModuleList) -> None:
        super().__init__()
        self.generator, self.critic = generator, critic

    def forward(self, x: Tensor) -> Tensor:
        """The scores of images translated into each domain: (B, C, H, W) -> (B, 2, h, w)."""
        return torch.stack([critic(to(x)) for to, critic in zip(self.generator, self.critic, strict=True)], 1)


class Residual(nn.Module):
    """x plus two 3x3 convolutions of x: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none"), norm_layer(norm, channels, ndim=2),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=norm == "none"), norm_layer(norm, channels, ndim=2),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


def cyclegan(spec: Image, *, width: Size, critic_width: Size, blocks: Few, norm: Norm, init: Init) -> Cycle:
    """Two generators and two critics; the domains are the two classes of the images.

    width, critic_width: channels of the largest maps of a generator and of a critic. blocks: residual blocks.
    norm: in all layers but the last of each network and the critics' first.
    """
    channels, height, width_px = spec.shape
    if spec.classes != 2:
        raise UserError(
            f"cyclegan translates between two domains, which are the classes of the images, and there are "
            f"{spec.classes}\n  expected data.spec.classes=2: data=coloured_digits, or an image_folder with two folders"
        )
    if height % QUARTER or width_px % QUARTER or min(height, width_px) < SMALLEST:
        raise UserError(
            f"cyclegan cannot take images of {height}x{width_px}: it halves both sides twice and doubles them again; "
            f"expected sides that {QUARTER} divides, of {SMALLEST} or more, such as 28, 32 or 64; choose other data, "
            "or another data.spec.shape"
        )
    check_positions(norm, height // QUARTER, width_px // QUARTER)
    generator = nn.ModuleList(_translator(channels, width, blocks, norm) for _ in range(2))
    critic = nn.ModuleList(_critic(channels, critic_width, norm) for _ in range(2))
    return initialise(Cycle(generator, critic), init)


def _translator(channels: int, width: int, blocks: int, norm: str) -> nn.Sequential:
    """For 28x28 pixels and width 16: 28x28x16, 14x14x32, 7x7x64, and back."""
    bias = norm == "none"
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 7, padding=3, bias=bias)]
    for a in (width, 2 * width):
        layers += [norm_layer(norm, a, ndim=2), nn.ReLU(), nn.Conv2d(a, 2 * a, 3, stride=2, padding=1, bias=bias)]
    layers += [norm_layer(norm, 4 * width, ndim=2), nn.ReLU()]
    layers += [Residual(4 * width, norm) for _ in range(blocks)]
    for a in (4 * width, 2 * width):
        layers.append(nn.ConvTranspose2d(a, a // 2, 3, stride=2, padding=1, output_padding=1, bias=bias))
        layers += [norm_layer(norm, a // 2, ndim=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(width, channels, 7, padding=3), nn.Tanh())


def _critic(channels: int, width: int, norm: str) -> nn.Sequential:
    """For 28x28 pixels and width 32: 14x14x32, 7x7x64, 6x6."""
    return nn.Sequential(
        nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(SLOPE),
        nn.Conv2d(width, 2 * width, 4, stride=2, padding=1, bias=norm == "none"),
        norm_layer(norm, 2 * width, ndim=2), nn.LeakyReLU(SLOPE),
        nn.Conv2d(2 * width, 1, 4, padding=1), nn.Flatten(1, 2),
    )  # fmt: skip
