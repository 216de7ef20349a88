"""Losses of supervised learning: each maps raw outputs (B, outputs) and targets to the mean over the batch, or with
reduction="none" to the losses of the samples, (B,) or (B, targets).

The spec decides which losses fit: labels or real targets, one logit or several. Source: the book, section 6.6.
"""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.errors import UserError
from dlrun.spec import Columns, Image, Series, Table, Tokens

Loss = Callable[..., Tensor]  # (outputs, targets, reduction="mean") -> loss
LossName = Literal["auto", "cross_entropy", "bce", "mse_one_hot", "hinge", "perceptron", "mse", "mae", "huber"]


def make_loss(name: str, spec: Image | Table | Columns | Series | Tokens, label_smoothing: float) -> tuple[str, Loss]:
    """Return the loss's name and the loss. `auto` is cross-entropy, its binary form, or the mean squared error.

    Raises UserError if the loss does not fit the spec.
    """
    fitting: dict[str, Loss]
    binary = spec.classes == 2
    if binary:
        fitting = {"bce": _bce, "mse_one_hot": _mse_binary, "hinge": _hinge_binary, "perceptron": _perceptron}
    elif spec.classes:
        fitting = {"cross_entropy": F.cross_entropy, "mse_one_hot": _mse_one_hot, "hinge": _hinge}
    else:
        fitting = {"mse": F.mse_loss, "mae": F.l1_loss, "huber": F.huber_loss}
    name = next(iter(fitting)) if name == "auto" else name
    if name not in fitting:
        kind = "two classes" if binary else f"{spec.classes} classes" if spec.classes else "real targets"
        raise UserError(f"task.loss={name} does not fit data with {kind}: expected one of auto, {', '.join(fitting)}")
    if not label_smoothing:
        return name, fitting[name]
    smoothed = {"cross_entropy": _smooth_cross_entropy, "bce": _smooth_bce}
    if name not in smoothed:
        raise UserError(f"task.label_smoothing={label_smoothing} with task.loss={name}: expected 0 for this loss")
    return name, partial(smoothed[name], amount=label_smoothing)


def _smooth_cross_entropy(out: Tensor, y: Tensor, reduction: str = "mean", *, amount: float) -> Tensor:
    return F.cross_entropy(out, y, label_smoothing=amount, reduction=reduction)


def _bce(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.binary_cross_entropy_with_logits(out.squeeze(1), y.to(out.dtype), reduction=reduction)


def _smooth_bce(out: Tensor, y: Tensor, reduction: str = "mean", *, amount: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(out.squeeze(1), y * (1 - amount) + amount / 2, reduction=reduction)


def _mse_one_hot(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """Sum over the classes, mean over the samples (the book, chapter 3; that of chapter 4 is a tenth of it)."""
    wanted = F.one_hot(y, out.shape[1]).to(out.dtype)
    if reduction == "none":
        return (out - wanted).square().sum(1)
    return F.mse_loss(out, wanted, reduction="sum") / len(y)


def _mse_binary(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.mse_loss(torch.sigmoid(out.squeeze(1)), y.to(out.dtype), reduction=reduction)


def _hinge(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    return F.multi_margin_loss(out, y, reduction=reduction)


def _hinge_binary(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of max(0, 1 - y h(x)) with y in {-1, 1}."""
    losses = (1 - (2 * y - 1) * out.squeeze(1)).clamp(min=0)
    return losses.mean() if reduction == "mean" else losses


def _perceptron(out: Tensor, y: Tensor, reduction: str = "mean") -> Tensor:
    """The mean of -y h(x) over the samples on the wrong side, y in {-1, 1} (the book, section 6.1).

    Its gradient for one such sample is -y x: with a batch of one, gradient descent is the perceptron's learning rule.
    """
    h = out.squeeze(1)
    is_wrong = (h > 0).long() != y
    losses = -(is_wrong * (2 * y - 1) * h)
    return losses.mean() if reduction == "mean" else losses
