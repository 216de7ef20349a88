"""A small convolutional net that learns CIFAR-10 in few operations: whitened patches, three groups, max pooling.

A fixed 2x2 convolution whitens the patches of the train split; each group is convolution, pooling, batch
normalisation, activation, and then one or two more convolutions; a maximum over all positions and a dense layer without
bias follow. Every 3x3 convolution starts as the identity on its first channels.

Source: Page 2018, "How to train your ResNet", parts 1 to 8 (whitening, three groups, batch norms of fixed scale, scaled
logits); Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (arXiv 2404.00498), sections 3.1 to 3.3
(whitening with both signs, identity initialisation), appendix A (the deeper form with shortcuts). Deviations: the
filters have a fixed sign; their bias starts at 0; the dense layer starts with weights of standard deviation
1 / sqrt(features).
"""

from collections import OrderedDict
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.layers import activation as activation_layer
from dlrun.models.layers import check_size
from dlrun.spec import Image
from dlrun.types import Activation, Positive, Share, Size

PATCH = 2  # side of a patch
EPS = 5e-4  # added to the variances of the patches, which are those of normalised pixels
SEEN = 5000  # images whose patches are whitened


class Whiten(nn.Module):
    """A convolution that whitens patches, with a bias that learns: (B, C, H, W) -> (B, 8 C, H - 1, W - 1).

    Its filters are a buffer: they do not learn, and checkpoints hold them. Until `init_from_data` they are the single
    pixels.
    """

    weight: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        values = channels * PATCH**2
        self.register_buffer("weight", with_signs(torch.eye(values)).view(-1, channels, PATCH, PATCH))
        self.bias = nn.Parameter(torch.zeros(2 * values))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias)

    @torch.no_grad()
    def init_from_data(self, images: Tensor) -> None:
        """Set the filters to the principal components of the images' patches, scaled to a variance of 1."""
        patches = [F.unfold(each, PATCH).transpose(0, 1).flatten(1) for each in images.float().split(500)]
        total = sum((each @ each.T for each in patches), torch.zeros((), device=images.device))
        second_moments = total / sum(each.shape[1] for each in patches)
        variances, components = torch.linalg.eigh(second_moments.cpu())  # ascending; components are the columns
        filters = (components / (variances + EPS).sqrt()).T.flip(0)
        largest = filters.gather(1, filters.abs().argmax(1, keepdim=True))
        self.weight.copy_(with_signs(filters * largest.sign()).view_as(self.weight))


class Group(nn.Module):
    """Convolutions at half the side: (B, features, H, W) -> (B, channels, H // 2, W // 2).

    depth: number of convolutions, 2 or 3; of three, the last two have a shortcut beside them.
    """

    def __init__(
        self, features: int, channels: int, *, depth: int, act: str, identity: bool, momentum: float, scale: bool
    ) -> None:
        super().__init__()
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in range(depth):
            conv = nn.Conv2d(channels if i else features, channels, 3, padding=1, bias=False)
            if identity:
                nn.init.dirac_(conv.weight[: conv.in_channels].detach())  # the other outputs keep random filters
            norm = nn.BatchNorm2d(channels, momentum=momentum)
            norm.weight.requires_grad_(scale)
            self.convs.append(conv)
            self.norms.append(norm)
        self.pool, self.act = nn.MaxPool2d(2), activation_layer(act)

    def forward(self, x: Tensor) -> Tensor:
        x = start = self.act(self.norms[0](self.pool(self.convs[0](x))))
        for conv, norm in zip(self.convs[1:-1], self.norms[1:-1], strict=True):
            x = self.act(norm(conv(x)))
        x = self.norms[-1](self.convs[-1](x))
        return self.act(x + start if len(self.convs) > 2 else x)


class Maximum(nn.Module):
    """The maximum over all positions: (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, x.shape[2:]).flatten(1)


class Scaled(nn.Linear):
    """A dense layer without bias whose outputs are multiplied by a number: (B, features) -> (B, outputs)."""

    def __init__(self, features: int, outputs: int, scale: float) -> None:
        super().__init__(features, outputs, bias=False)
        nn.init.normal_(self.weight, 0, features**-0.5)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.scale


class FastCNN(nn.Sequential):
    """The whole net: (B, C, H, W) -> (B, outputs)."""

    num_init_samples = SEEN

    def init_from_data(self, images: Tensor) -> None:
        """Whiten with the patches of these normalised images of the train split, if this net whitens."""
        if isinstance(self[0], Whiten):
            self[0].init_from_data(images)


def fast_cnn(
    spec: Image,
    *,
    widths: tuple[Size, Size, Size],
    depth: Literal[2, 3],
    whiten: bool,
    identity: bool,
    activation: Activation,
    norm_momentum: Share,
    norm_scale: bool,
    logit_scale: Positive,
) -> nn.Module:
    """The net for CIFAR-10 of the module's sources: (B, C, H, W) -> (B, outputs).

    widths: channels of the three groups. depth: convolutions in a group; with 3 there are shortcuts.
    whiten: false makes the first convolution one that learns. identity: whether convolutions start as the identity.
    norm_momentum: share of a batch in the running statistics. norm_scale: whether the scales of the norms learn.
    logit_scale: factor on the outputs.
    """
    channels, height, width = spec.shape
    check_size("fast_cnn", height, width, 9, "another model")
    features = 2 * channels * PATCH**2
    first = Whiten(channels) if whiten else nn.Conv2d(channels, features, PATCH)
    net = FastCNN(OrderedDict(stem=first, act=activation_layer(activation)))
    for i, size in enumerate(widths, 1):
        group = Group(
            features, size, depth=depth, act=activation, identity=identity, momentum=norm_momentum, scale=norm_scale
        )
        net.add_module(f"group{i}", group)
        features = size
    net.add_module("pool", Maximum())
    net.add_module("head", Scaled(features, spec.outputs, logit_scale))
    return net


def with_signs(filters: Tensor) -> Tensor:
    """The filters, then the same with the other sign: (N, values) -> (2 N, values)."""
    return torch.cat((filters, -filters))
