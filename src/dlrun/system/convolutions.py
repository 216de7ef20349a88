"""Weight gradients of wide convolutions as matrix products, for CPUs.

On a CPU with AVX2, in fp32, the weight gradient of oneDNN (torch 2.13) reaches half the speed of its forward pass for
256 channels on 7x7 positions, and a product with the rows of the input three quarters of it. On one with AMX, in bf16,
a product takes three quarters of oneDNN's time on 7x7 positions, and an eighth on 3x3 (docs/benchmarks.md).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.errors import counted

WIDE = 128  # input channels from which products are faster


class ProductConv2d(nn.Conv2d):
    """A convolution with odd square windows that keeps the size: (B, C, H, W) -> (B, channels, H, W).

    It has no second derivatives.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled(x.device.type):
            dtype = torch.get_autocast_dtype(x.device.type)
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        out: Tensor = _SameConvolution.apply(x, weight)
        return out if bias is None else out + bias.view(-1, 1, 1)


class _SameConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=weight.shape[2] // 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        (x, weight), (needs_x, needs_weight) = ctx.saved_tensors, ctx.needs_input_grad
        pad, of_x = weight.shape[2] // 2, None
        if needs_x:
            sizes: list[Any] = [[1, 1], [pad, pad], [1, 1], False, [0, 0], 1]  # stride, padding, dilation, ..., groups
            of_x = torch.ops.aten.convolution_backward(grad, x, weight, None, *sizes, [True, False, False])[0]
        return of_x, weight_gradient(x, grad, weight.shape[2]) if needs_weight else None


def weight_gradient(x: Tensor, grad: Tensor, side: int) -> Tensor:
    """The gradient of a convolution's weight, a product for each row of the window: (channels, C, side, side).

    x: (B, C, H, W). grad: (B, channels, H, W), of the output.
    """
    batch, features, height, width = x.shape
    pad, channels = side // 2, grad.shape[1]
    rows = F.pad(x.permute(0, 2, 3, 1), (0, 0, pad, pad, pad, pad)).contiguous()  # (B, H + 2 pad, W + 2 pad, C)
    strides = rows.stride()
    merged = rows.as_strided((*rows.shape[:2], width, side * features), strides)  # the columns of a window side by side
    of_output = grad.permute(0, 2, 3, 1).reshape(-1, channels)
    products = [of_output.T @ merged[:, row : row + height].reshape(batch * height * width, -1) for row in range(side)]
    return torch.stack(products, 1).view(channels, side, side, features).permute(0, 3, 1, 2)


def use_products(net: nn.Module) -> int:
    """Let the wide convolutions of a net compute their weight gradients as products, in place; return their number."""
    wide = [module for module in net.modules() if _is_wide(module)]
    for module in wide:
        module.__class__ = ProductConv2d
    return len(wide)


def describe_products(net: nn.Module) -> str:
    """A note for the run's header; "" without such convolutions."""
    count = sum(isinstance(module, ProductConv2d) for module in net.modules())
    return f"; weight gradients of {counted(count, 'convolution')} as products" if count else ""


def _is_wide(module: nn.Module) -> bool:
    if type(module) is not nn.Conv2d or module.in_channels < WIDE or module.groups > 1:
        return False
    sides, is_plain = set(module.kernel_size), set(module.stride) == set(module.dilation) == {1}
    side = max(sides)
    is_same = side > 1 and side % 2 == 1 and len(sides) == 1 and module.padding in ("same", (side // 2, side // 2))
    return is_plain and is_same and module.padding_mode == "zeros"
