"""Operations on images with fixed numbers: the kernels of the book's table 10.2, pooling, and kinds of convolution.

Source: the book, sections 10.2 (kernels), 10.6 and 10.7 (gradient, pooling) and 10.11 (dilated, transposed and
separable convolutions); Zeiler and Fergus 2014 for unpooling.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.spec import Image, Unlabelled
from dlrun.types import Entry, Few, Index

Operation = Callable[[Tensor], Tensor]  # (B, C, H, W) -> (B, C', H', W')

IDENTITY = [[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
SHARPEN = [[0.0, -1.0, 0.0], [-1.0, 5.0, -1.0], [0.0, -1.0, 0.0]]
BLUR = [[1 / 16, 2 / 16, 1 / 16], [2 / 16, 4 / 16, 2 / 16], [1 / 16, 2 / 16, 1 / 16]]
EDGES = [[-1.0, -1.0, -1.0], [-1.0, 8.0, -1.0], [-1.0, -1.0, -1.0]]
SOBEL_X = [[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]
SOBEL_Y = [[-1.0, -2.0, -1.0], [0.0, 0.0, 0.0], [1.0, 2.0, 1.0]]
BILINEAR = [[a * b / 16 for b in (1, 3, 3, 1)] for a in (1, 3, 3, 1)]  # of a transposed convolution of stride 2


class Operations(nn.Module):
    """Applies each operation to the same images: (B, C, H, W) -> its outputs by name."""

    def __init__(self, operations: dict[str, Operation]) -> None:
        super().__init__()
        self.operations = operations

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {name: operation(x) for name, operation in self.operations.items()}


def filtered(
    x: Tensor,
    kernel: list[list[float]],
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    is_transposed: bool = False,
) -> Tensor:
    """Convolve each channel with the same kernel: (B, C, H, W) -> (B, C, H', W').

    As in networks the kernel is not mirrored. Transposed: H' = (H - 1) stride - 2 padding + dilation (kernel - 1) + 1.
    """
    weight = torch.tensor(kernel, device=x.device, dtype=x.dtype)[None, None]
    planes = x.flatten(0, 1)[:, None]  # (B C, 1, H, W)
    if is_transposed:
        out = F.conv_transpose2d(planes, weight, stride=stride, padding=padding, dilation=dilation)
    else:
        out = F.conv2d(planes, weight, stride=stride, padding=padding, dilation=dilation)
    return out.unflatten(0, x.shape[:2]).squeeze(2)


def sobel(x: Tensor) -> Tensor:
    """The length of the gradient of the brightness."""
    return torch.hypot(filtered(x, SOBEL_X, padding=1), filtered(x, SOBEL_Y, padding=1))


def unpool(x: Tensor) -> Tensor:
    """Max pooling undone: each maximum returns to its place among zeros."""
    maxima, places = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(maxima, places, (2, 2), output_size=list(x.shape[2:]))


OPERATIONS: dict[str, Operation] = {
    "identity": partial(filtered, kernel=IDENTITY, padding=1),
    "sharpen": partial(filtered, kernel=SHARPEN, padding=1),
    "blur": partial(filtered, kernel=BLUR, padding=1),
    "edges": partial(filtered, kernel=EDGES, padding=1),
    "sobel_x": partial(filtered, kernel=SOBEL_X, padding=1),
    "sobel_y": partial(filtered, kernel=SOBEL_Y, padding=1),
    "sobel": sobel,
    "strided": partial(filtered, kernel=EDGES, padding=1, stride=2),
    "dilated": partial(filtered, kernel=EDGES, padding=3, dilation=3),
    "separable": lambda x: filtered(x, BLUR, padding=1).mean(1, keepdim=True),  # each channel, then a 1x1 convolution
    "max_pool": lambda x: F.max_pool2d(x, 2),
    "average_pool": lambda x: F.avg_pool2d(x, 2),
    "unpool": unpool,
    "transposed": partial(filtered, kernel=BILINEAR, stride=2, padding=1, is_transposed=True),
}


def operations(
    spec: Image | Unlabelled,
    *,
    names: list[
        Literal[
            "identity", "sharpen", "blur", "edges", "sobel_x", "sobel_y", "sobel", "strided", "dilated", "separable",
            "max_pool", "average_pool", "unpool", "transposed"
        ]
    ],
) -> Operations:  # fmt: skip
    """Operations of the table above, in the order of `names`."""
    if not names:
        raise UserError(f"model.names=[]: expected some of {', '.join(OPERATIONS)}")
    if min(spec.shape[1:]) < 2:
        raise UserError(f"pooling needs images of 2x2 or more, and the data is {spec}\n  expected larger images")
    return Operations({name: OPERATIONS[name] for name in names})


def convolution(
    spec: Image | Unlabelled, *, kernel: list[list[Entry]], stride: Few, padding: Index, dilation: Few
) -> Operations:
    """A convolution of each channel with a kernel, and operations that follow from it.

    transposed: the transposed convolution of its outputs with the same kernel. kernel_gradient: the gradient of the
    outputs' sum for each weight of the kernel, which is the sum of the inputs that it meets.
    """
    if not kernel or not kernel[0] or len({len(row) for row in kernel}) > 1:
        raise UserError(f"model.kernel={kernel}: expected rows of equally many numbers, such as [[1,0],[0,-1]]")
    size = len(kernel), len(kernel[0])
    for side, length in zip(spec.shape[1:], size, strict=True):
        if side + 2 * padding < (reach := dilation * (length - 1) + 1):
            raise UserError(
                f"model.kernel={kernel} with model.dilation={dilation} reaches over {reach} pixels, and the images "
                f"have {side + 2 * padding} with their padding\n  expected a smaller kernel, or larger images"
            )
    geometry = (kernel, stride, padding, dilation)

    def convolve(x: Tensor) -> Tensor:
        return filtered(x, *geometry)

    def kernel_gradient(x: Tensor) -> Tensor:
        met = F.unfold(x.flatten(0, 1)[:, None], size, dilation=dilation, padding=padding, stride=stride)
        return met.sum(2).view(*x.shape[:2], *size)

    return Operations(
        {
            "convolution": convolve,
            "transposed": lambda x: filtered(convolve(x), *geometry, is_transposed=True),
            "kernel_gradient": kernel_gradient,
        }
    )
