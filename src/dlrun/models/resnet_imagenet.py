"""The ResNet of the paper for 224x224 pixels, with torchvision's names; with bottlenecks, for small images too.

Source: He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition", table 1.
Deviation, as in torchvision: a bottleneck's stride is in its 3x3 convolution, in the paper in its first 1x1.
form=cifar: as in kuangliu/pytorch-cifar, a 3x3 stem without pooling.
"""

from collections import OrderedDict

from torch import Tensor, nn

from dlrun.models.heads import Head, WithHead, dense_head, global_pool
from dlrun.models.layers import check_positions, check_size, zero_scale
from dlrun.models.layers import norm as norm_layer
from dlrun.spec import Image

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
LEAST = {"imagenet": 17, "cifar": 5}  # smallest sides in pixels: 17 -> 9 -> 5 -> 3 -> 2 -> 1


class Block(nn.Module):
    """Convolutions beside a shortcut: (B, C, H, W) -> (B, channels, ceil(H / stride), ceil(W / stride)).

    kernels: 3 and 3 (a basic block), or 1, 3 and 1 (a bottleneck, inner channels a quarter).
    """

    def __init__(self, features: int, channels: int, stride: int, kernels: tuple[int, ...], norm: str):
        super().__init__()
        bias = norm == "none"
        inner = channels if len(kernels) == 2 else channels // 4
        self.depth = len(kernels)
        before, strided = features, kernels.index(3)  # the first 3x3 has the stride
        for i, kernel in enumerate(kernels):
            size = channels if i == self.depth - 1 else inner
            step = stride if i == strided else 1
            self.add_module(f"conv{i + 1}", nn.Conv2d(before, size, kernel, step, kernel // 2, bias=bias))
            self.add_module(f"bn{i + 1}", norm_layer(norm, size, ndim=2))
            before = size
        self.relu = nn.ReLU()
        self.downsample = None
        if stride != 1 or features != channels:
            shortcut = nn.Conv2d(features, channels, 1, stride, bias=bias)
            self.downsample = nn.Sequential(shortcut, norm_layer(norm, channels, ndim=2))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for i in range(1, self.depth + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            out = self.relu(out) if i < self.depth else out
        return self.relu(out + (x if self.downsample is None else self.downsample(x)))

    def last_norm(self) -> nn.Module:
        return getattr(self, f"bn{self.depth}")


def residual_net(
    spec: Image, depth: int, form: str, width: int, norm: str, zero_init_residual: bool, head: Head
) -> nn.Sequential:
    """ResNet, with the keys of `resnet`: (B, C, H, W) -> (B, outputs). Initialises for `zero_init_residual` only."""
    channels, height, columns = spec.shape
    advice = "model.form=cifar" if form == "imagenet" else "model=lenet"
    check_size(f"resnet{depth}", height, columns, LEAST[form], advice)
    halvings = 32 if form == "imagenet" else 8
    check_positions(norm, -(-height // halvings), -(-columns // halvings))
    kernels, expansion = ((3, 3), 1) if depth < 50 else ((1, 3, 1), 4)
    net = WithHead(OrderedDict(), ("conv1.", "bn1.", "layer"))
    if form == "imagenet":
        net.add_module("conv1", nn.Conv2d(channels, width, 7, 2, 3, bias=norm == "none"))  # (B, width, H / 2, W / 2)
    else:
        net.add_module("conv1", nn.Conv2d(channels, width, 3, padding=1, bias=norm == "none"))  # (B, width, H, W)
    net.add_module("bn1", norm_layer(norm, width, ndim=2))
    net.add_module("relu", nn.ReLU())
    if form == "imagenet":
        net.add_module("maxpool", nn.MaxPool2d(3, 2, 1))  # (B, width, H / 4, W / 4), rounded up
    features = width
    for stage, count in enumerate(BLOCKS[depth]):
        size = width * expansion * 2**stage
        blocks = [
            Block(size if i else features, size, 2 if stage and not i else 1, kernels, norm) for i in range(count)
        ]
        net.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))  # all but the first halve the sides
        features = size
    net.add_module("pool", nn.Sequential(OrderedDict(avgpool=global_pool(head.pool), flatten=nn.Flatten())))
    net.add_module("fc", dense_head(features, spec.outputs, norm, head))  # (B, outputs)
    if zero_init_residual:
        for block in net.modules():
            if isinstance(block, Block):
                zero_scale(block.last_norm())
    return net
