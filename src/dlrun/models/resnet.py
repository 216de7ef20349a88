"""ResNet with basic blocks (18, 34) or bottlenecks (50, 101, 152), in three forms.

imagenet: the paper's net, with torchvision's names (resnet_imagenet.py).
cifar: the usual net for CIFAR: a 3x3 stem without pooling, convolutions without bias, a normalised 1x1 shortcut.
book: an unpadded 3x3 stem, then a 2x2 max pooling of stride 1, convolutions with bias, a 1x1 shortcut without
normalisation, and Keras's 'same' padding throughout.

Source: He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition", table 1; the book, sections 10.12
and 10.14. Deviations: cifar and book replace the paper's 7x7 stem of stride 2 and its 3x3 pooling, which are made for
224x224 pixels. In the book's listing batch normalisation stays in evaluation mode; here it trains.
"""

from collections import OrderedDict
from typing import Literal

from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.heads import Head, WithHead, dense_head, global_pool
from dlrun.models.layers import SameConv2d, check_positions, initialise, same_max_pool, zero_scale
from dlrun.models.layers import norm as norm_layer
from dlrun.models.resnet_imagenet import residual_net
from dlrun.spec import Image, form_for
from dlrun.types import Init, Norm, Pool, Probability, Size

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # in each of the four stages


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut: (B, C, H, W) -> (B, channels, ceil(H / stride), ceil(W / stride))."""

    def __init__(self, features: int, channels: int, stride: int, *, form: str, norm: str, residual: bool = True):
        super().__init__()
        self.residual = residual
        bias = form == "book" or norm == "none"  # a norm's shift makes a bias redundant
        convolution = SameConv2d if form == "book" else nn.Conv2d
        padding = 0 if form == "book" else 1  # SameConv2d pads by itself
        self.conv1 = convolution(features, channels, 3, stride=stride, padding=padding, bias=bias)
        self.norm1 = norm_layer(norm, channels, ndim=2)
        self.conv2 = convolution(channels, channels, 3, padding=padding, bias=bias)
        self.norm2 = norm_layer(norm, channels, ndim=2)
        self.shortcut = nn.Sequential()
        if residual and (stride != 1 or features != channels):
            self.shortcut.append(nn.Conv2d(features, channels, 1, stride=stride, bias=bias))
            if form == "cifar":
                self.shortcut.append(norm_layer(norm, channels, ndim=2))
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.norm1(self.conv1(x)))  # (B, channels, ceil(H / stride), ceil(W / stride))
        out = self.norm2(self.conv2(out))
        return self.relu(out + self.shortcut(x) if self.residual else out)


def resnet(
    spec: Image,
    *,
    depth: Literal[18, 34, 50, 101, 152],
    form: Literal["auto", "cifar", "book", "imagenet"],
    width: Size,
    norm: Norm,
    residual: bool,
    zero_init_residual: bool,
    pool: Pool,
    head: list[Size],
    head_dropout: Probability,
    init: Init,
) -> nn.Module:
    """ResNet: (B, C, H, W) -> (B, outputs).

    width: channels of the first stage; each later stage doubles them. residual: false leaves out the shortcuts, which
    gives the paper's plain nets (depth 18 or 34, form=cifar or book). zero_init_residual: initialise the last norm of
    every block with scale 0, so that a block starts as its shortcut (Goyal et al. 2017, section 5.1). pool, head,
    head_dropout: see heads.py.
    """
    channels, height, columns = spec.shape
    form = form_for(spec.shape) if form == "auto" else form
    if form == "book" and min(height, columns) < 3:
        raise UserError(
            f"resnet in form=book cannot take images of {height}x{columns}: its first convolution needs at least 3x3; "
            "choose model.form=cifar, or data with larger images"
        )
    if zero_init_residual and norm == "none":
        raise UserError(
            "model.zero_init_residual=true starts the last norm of every block at scale 0, and model.norm=none has no "
            "norms; expected another norm, or false: set model.zero_init_residual=false or model.norm=batch"
        )
    if not residual and (form == "imagenet" or depth not in BLOCKS or zero_init_residual):
        raise UserError(
            f"model.residual=false with model.depth={depth} model.form={form} "
            f"model.zero_init_residual={str(zero_init_residual).lower()}: expected a depth of 18 or 34, and form=cifar "
            "or book, the plain nets that there are, and zero_init_residual=false"
        )
    end = Head(pool, head, head_dropout)
    if form == "imagenet" or depth not in BLOCKS and form == "cifar":
        return initialise(residual_net(spec, depth, form, width, norm, zero_init_residual, end), init)
    if depth not in BLOCKS:
        raise UserError(
            f"model.form=book with model.depth={depth}: the book has depths 18 and 34; expected one of these, "
            "or model.form=cifar or imagenet"
        )
    cut = 2 if form == "book" else 0  # pixels by which the unpadded stem shortens the sides
    check_positions(norm, -(-(height - cut) // 8), -(-(columns - cut) // 8))
    stem = _stem(channels, width, form, norm)
    net = WithHead(OrderedDict(stem=stem), ("stem.", "stage"))  # (B, width, H - cut, W - cut)
    features = width
    for stage, count in enumerate(BLOCKS[depth]):
        size = width * 2**stage
        strides = [1 if stage == 0 else 2] + [1] * (count - 1)
        blocks = [
            Block(features if i == 0 else size, size, stride, form=form, norm=norm, residual=residual)
            for i, stride in enumerate(strides)
        ]
        net.add_module(f"stage{stage + 1}", nn.Sequential(*blocks))  # (B, size, H / 2**stage, W / 2**stage), rounded up
        features = size
    net.add_module("pool", nn.Sequential(global_pool(pool), nn.Flatten()))  # (B, features)
    net.add_module("head", dense_head(features, spec.outputs, norm, end))  # (B, outputs)
    if zero_init_residual:
        for block in net.modules():
            if isinstance(block, Block):
                zero_scale(block.norm2)
    return initialise(net, init)


def _stem(channels: int, width: int, form: str, norm: str) -> nn.Module:
    bias = form == "book" or norm == "none"
    convolution = nn.Conv2d(channels, width, 3, padding=0 if form == "book" else 1, bias=bias)
    stem = nn.Sequential(convolution, norm_layer(norm, width, ndim=2), nn.ReLU())
    return stem.append(same_max_pool()) if form == "book" else stem
