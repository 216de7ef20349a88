"""A network of sigmoid layers whose gradients are written out by hand: backpropagation as formulas.

Source: the book, section 7.9 (2-25-50-25-2 on the moons). With o_i the outputs of layer i and an error e on the last:
delta_k = e_k o_k (1 - o_k) in the last layer, delta_j = o_j (1 - o_j) sum_k delta_k w_jk before it, and the gradient of
w_ij is o_i delta_j (section 7.7).
"""

from math import sqrt

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from dlrun.spec import Table
from dlrun.types import Size


class Layers(torch.autograd.Function):
    """Sigmoid layers as one operation: torch differentiates the loss by their output, `backward` does the rest."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, *parameters: Tensor) -> Tensor:
        """x (B, features); parameters: weight (in, out) and bias (out,) of each layer -> (B, classes) in (0, 1)."""
        outputs = [x]
        for weight, bias in zip(parameters[::2], parameters[1::2], strict=True):
            outputs.append(torch.sigmoid(outputs[-1] @ weight + bias))
        ctx.save_for_backward(*parameters[::2], *outputs)
        return outputs[-1]

    @staticmethod
    def backward(ctx: FunctionCtx, error: Tensor) -> tuple[Tensor | None, ...]:
        """error: the loss's gradient by the outputs (B, classes) -> the gradients by the arguments of `forward`."""
        saved: tuple[Tensor, ...] = ctx.saved_tensors  # type: ignore[attr-defined]  # torch's stubs leave it out
        num = len(saved) // 2
        weights, outputs = saved[:num], saved[num:]
        gradients: list[Tensor] = []
        for weight, before, after in zip(weights[::-1], outputs[-2::-1], outputs[:0:-1], strict=True):
            delta = error * after * (1 - after)  # (B, out)
            gradients = [before.T @ delta, delta.sum(0), *gradients]
            error = delta @ weight.T  # (B, in)
        return (None, *gradients)


class HandWritten(nn.Module):
    """Sigmoid layers: (B, features) -> (B, classes), an output in (0, 1) for each class.

    Weights start as N(0, 1 / out), biases as uniform on [0, 0.1), as in the book. learn_biases: the book's code never
    changes them.
    """

    def __init__(self, widths: list[int], learn_biases: bool) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for before, after in zip(widths, widths[1:], strict=False):
            self.weights.append(nn.Parameter(torch.randn(before, after) / sqrt(after)))
            self.biases.append(nn.Parameter(0.1 * torch.rand(after), requires_grad=learn_biases))

    def forward(self, x: Tensor) -> Tensor:
        pairs = zip(self.weights, self.biases, strict=True)
        return Layers.apply(x, *(parameter for pair in pairs for parameter in pair))


def handwritten(spec: Table, *, hidden: list[Size], learn_biases: bool) -> HandWritten:
    """Sigmoid layers of these widths, with an output for each class."""
    return HandWritten([spec.features, *hidden, spec.classes or 0], learn_biases)
