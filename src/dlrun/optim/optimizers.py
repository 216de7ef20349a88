"""Optimizers by name, with fused kernels where torch offers them. Defaults that differ between libraries are stated.

Each takes the parameters and gives a `torch.optim.Optimizer`; the learning rate is the schedule's 1.0.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlrun.errors import UserError
from dlrun.types import NonNegative, Positive, Probability


def sgd(
    params: Iterable[Tensor],
    *,
    lr: Positive,
    momentum: Probability,
    nesterov: bool,
    dampening: Probability,
    weight_decay: NonNegative,
) -> Optimizer:
    """Stochastic gradient descent, with momentum as Sutskever et al. 2013 have it. weight_decay: coupled."""
    nesterov = nesterov and momentum > 0  # without momentum there is nothing to look ahead along
    if nesterov and dampening:
        raise UserError(f"optimizer.dampening={dampening:g} with optimizer.nesterov=true: expected dampening 0")
    return torch.optim.SGD(
        params, lr=lr, momentum=momentum, nesterov=nesterov, dampening=dampening, weight_decay=weight_decay, fused=True
    )


def adam(
    params: Iterable[Tensor],
    *,
    lr: Positive,
    betas: tuple[Probability, Probability],
    eps: Positive,
    weight_decay: NonNegative,
) -> Optimizer:
    """Adam (Kingma and Ba 2015). torch has eps 1e-8, Keras 1e-7. weight_decay is coupled."""
    return torch.optim.Adam(params, lr=lr, betas=_floats(betas), eps=eps, weight_decay=weight_decay, fused=True)


def adamw(
    params: Iterable[Tensor],
    *,
    lr: Positive,
    betas: tuple[Probability, Probability],
    eps: Positive,
    weight_decay: NonNegative,
) -> Optimizer:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(params, lr=lr, betas=_floats(betas), eps=eps, weight_decay=weight_decay, fused=True)


def rmsprop(
    params: Iterable[Tensor],
    *,
    lr: Positive,
    alpha: Probability,
    eps: Positive,
    momentum: Probability,
    centered: bool,
    weight_decay: NonNegative,
) -> Optimizer:
    """RMSprop (Tieleman and Hinton 2012), not fused: torch has none. Keras: alpha 0.9, eps 1e-7; torch: 0.99, 1e-8."""
    return torch.optim.RMSprop(
        params,
        lr=lr,
        alpha=alpha,
        eps=eps,
        momentum=momentum,
        centered=centered,
        weight_decay=weight_decay,
        foreach=True,
    )


def _floats(betas: tuple[float, float]) -> tuple[float, float]:
    return float(betas[0]), float(betas[1])  # torch refuses the integer that YAML makes of 0
