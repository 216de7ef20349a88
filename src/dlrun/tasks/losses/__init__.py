"""Losses of supervised learning. Each public function is one, and its name is the word for it in task.loss.

Each maps raw outputs float32 (B, outputs) and targets to the mean over the batch, or with reduction="none" to the
losses of the samples, (B,) or (B, targets). Targets are classes int64 (B,), of which two share one output, or real
numbers (B, targets). criterion.py lists which loss fits which data. Source: the book, section 6.6, unless stated.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.types import NonNegative


def cross_entropy(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """-log p of the right class."""
    return F.cross_entropy(out, y, reduction=reduction)


def bce(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Cross-entropy of two classes."""
    return F.binary_cross_entropy_with_logits(out.squeeze(1), y.to(out.dtype), reduction=reduction)


def focal(out: Tensor, y: Tensor, reduction: str = "mean", *, gamma: NonNegative = 2.0) -> Tensor:
    """Cross-entropy times (1 - p)^gamma, p the probability of the right class (Lin et al. 2017, equation 4).

    gamma: 0 is the cross-entropy; the higher, the less samples count that are right already.
    """
    losses = bce(out, y, "none") if out.shape[1] == 1 else cross_entropy(out, y, "none")
    wrong = -torch.expm1(-losses)  # 1 - p
    return _reduced(losses * wrong.clamp(min=1e-12) ** gamma, reduction)  # at 0 the slope of a root is infinite


def mse_one_hot(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error from the one-hot labels: sum over the classes, mean over the samples (the book, chapter 3; that of
    chapter 4 is a tenth of it). Of two classes: from the label, after a sigmoid.
    """
    if out.shape[1] == 1:
        return F.mse_loss(torch.sigmoid(out.squeeze(1)), y.to(out.dtype), reduction=reduction)
    wanted = F.one_hot(y, out.shape[1]).to(out.dtype)
    if reduction == "none":
        return (out - wanted).square().sum(1)
    return F.mse_loss(out, wanted, reduction="sum") / len(y)


def hinge(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean over the other classes of max(0, 1 - h(right) + h(other)); of two max(0, 1 - y h), y in {-1, 1}."""
    if out.shape[1] > 1:
        return F.multi_margin_loss(out, y, reduction=reduction)
    return _reduced((1 - (2 * y - 1) * out.squeeze(1)).clamp(min=0), reduction)


def perceptron(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """-y h(x) of the samples on the wrong side, y in {-1, 1} (the book, section 6.1).

    Its gradient for one such sample is -y x: with a batch of one, gradient descent is the perceptron's learning rule.
    """
    h = out.squeeze(1)
    is_wrong = (h > 0).long() != y
    return _reduced(-(is_wrong * (2 * y - 1) * h), reduction)


def mse(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error."""
    return F.mse_loss(out, y, reduction=reduction)


def mae(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Absolute error."""
    return F.l1_loss(out, y, reduction=reduction)


def huber(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Squared error up to 1, absolute error beyond."""
    return F.huber_loss(out, y, reduction=reduction)


def _reduced(losses: Tensor, reduction: str) -> Tensor:
    return losses.mean() if reduction == "mean" else losses
