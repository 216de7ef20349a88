"""Optimizers by name, with fused kernels if torch has them. Notes state defaults that differ between libraries.

Each function takes the parameters and returns a `torch.optim.Optimizer`. Schedules multiply `lr` by a factor.
"""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from dlrun.errors import UserError
from dlrun.optim.muon import Muon
from dlrun.optim.others import Lamb, Lion, Lookahead, ScheduleFree
from dlrun.types import Few, NonNegative, Positive, Probability, Share


def sgd(
    params: Iterable[Tensor],
    *,
    lr: Positive,
    momentum: Probability,
    nesterov: bool,
    dampening: Probability,
    weight_decay: NonNegative,
) -> Optimizer:
    """Stochastic gradient descent with Nesterov momentum (Sutskever et al. 2013). weight_decay is coupled."""
    nesterov = nesterov and momentum > 0  # torch refuses nesterov without momentum, where it would have no effect
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
    """Adam (Kingma and Ba 2015). eps is 1e-8 in torch, 1e-7 in Keras. weight_decay is coupled."""
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
    """RMSprop (Tieleman and Hinton 2012). alpha and eps are 0.99 and 1e-8 in torch, 0.9 and 1e-7 in Keras.

    torch has no fused kernel for it.
    """
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


def adagrad(
    params: Iterable[Tensor], *, lr: Positive, initial: NonNegative, eps: Positive, weight_decay: NonNegative
) -> Optimizer:
    """AdaGrad (Duchi et al. 2011): lr over the root of the sum of all squared gradients. initial: where the sum starts.

    weight_decay is coupled. The fused kernel, which not every device has, is seven times as fast on a CPU.
    """
    groups = list(params)
    tensors = [p for group in groups for p in (group["params"] if isinstance(group, dict) else [group])]
    on_cpu = all(p.device.type == "cpu" for p in tensors)
    way = {"fused": True} if on_cpu else {"foreach": True}
    return torch.optim.Adagrad(
        groups, lr=lr, initial_accumulator_value=initial, eps=eps, weight_decay=weight_decay, **way
    )


def nadam(
    params: Iterable[Tensor],
    *,
    lr: Positive,
    betas: tuple[Probability, Probability],
    eps: Positive,
    weight_decay: NonNegative,
    momentum_decay: NonNegative,
    decoupled_weight_decay: bool,
) -> Optimizer:
    """Adam with Nesterov's momentum (Dozat 2016). torch has no fused kernel for it."""
    return torch.optim.NAdam(
        params,
        lr=lr,
        betas=_floats(betas),
        eps=eps,
        weight_decay=weight_decay,
        momentum_decay=momentum_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        foreach=True,
    )


def adafactor(
    params: Iterable[Tensor], *, lr: Positive, beta2_decay: float, clip: Positive, weight_decay: NonNegative
) -> Optimizer:
    """Adam without momentum; second moments of matrices are products of rows and columns (Shazeer and Stern 2018)."""
    return torch.optim.Adafactor(params, lr=lr, beta2_decay=beta2_decay, d=clip, weight_decay=weight_decay)


def lion(
    params: Iterable[Tensor], *, lr: Positive, betas: tuple[Probability, Probability], weight_decay: NonNegative
) -> Optimizer:
    """The sign of momentum (optim/others.py). weight_decay is decoupled."""
    return Lion(params, dict(lr=lr, betas=_floats(betas), weight_decay=weight_decay))


def lamb(
    params: Iterable[Tensor], *, lr: Positive, betas: tuple[Probability, Probability], weight_decay: NonNegative
) -> Optimizer:
    """Adam for large batches (optim/others.py). weight_decay is part of the step that is scaled."""
    return Lamb(params, dict(lr=lr, betas=_floats(betas), weight_decay=weight_decay))


def lookahead(
    params: Iterable[Tensor],
    *,
    base: Literal["sgd", "adamw"],
    lr: Positive,
    momentum: Probability,
    betas: tuple[Probability, Probability],
    weight_decay: NonNegative,
    every: Few,
    share: Share,
) -> Optimizer:
    """SGD (Nesterov) or AdamW with slow weights, which follow after `every` steps by `share` (optim/others.py)."""
    defaults = dict(base=base, lr=lr, momentum=momentum, betas=_floats(betas), weight_decay=weight_decay)
    return Lookahead(params, defaults | dict(every=every, share=share))


def schedule_free(
    params: Iterable[Tensor],
    *,
    lr: Positive,
    betas: tuple[Share, Probability],
    weight_decay: NonNegative,
) -> Optimizer:
    """AdamW that is evaluated with an average of its weights (optim/others.py); for schedule=constant or a warm-up."""
    return ScheduleFree(params, dict(lr=lr, betas=_floats(betas), weight_decay=weight_decay))


def muon(
    kinds: Iterable[dict[str, Any]],
    *,
    lr: Positive,
    momentum: Probability,
    nesterov: bool,
    weight_decay: NonNegative,
    iterations: Few,
    fixed_norm: bool,
    rest: Literal["adamw", "sgd"],
    rest_lr: Positive,
    rest_momentum: Probability,
    rest_betas: tuple[Probability, Probability],
) -> Optimizer:
    """Muon (optim/muon.py) for filters and matrices; AdamW or SGD, with `rest_lr`, for all other parameters.

    kinds: groups of parameters of one kind each (optim/kinds.py). fixed_norm: before each step scale every weight that
    Muon moves to a norm of sqrt(outputs); without it a step is scaled by sqrt(max(1, rows / columns)), and decay is
    decoupled.
    """
    return Muon(
        kinds,
        lr=lr,
        momentum=momentum,
        nesterov=nesterov,
        weight_decay=weight_decay,
        iterations=iterations,
        fixed_norm=fixed_norm,
        rest=rest,
        rest_lr=rest_lr,
        rest_momentum=rest_momentum,
        rest_betas=_floats(rest_betas),
    )


def _floats(betas: tuple[float, float]) -> tuple[float, float]:
    return float(betas[0]), float(betas[1])  # torch refuses integers, and YAML reads 0 as one
