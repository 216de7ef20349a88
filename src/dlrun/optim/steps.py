"""Steps of SGD and AdamW on lists of tensors, for optimizers that are built on them."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

States = list[dict[str, Any]]
EPS = 1e-8


def learning(optimizer: Optimizer) -> Iterator[tuple[dict[str, Any], list[Tensor], list[Tensor], States]]:
    """Yield each group with its parameters that have a gradient, the gradients and the states."""
    for group in optimizer.param_groups:
        params = [param for param in group["params"] if param.grad is not None]
        if params:
            yield group, params, [param.grad for param in params], [optimizer.state[param] for param in params]


def momentum(grads: list[Tensor], states: States, factor: float, nesterov: bool) -> list[Tensor]:
    """Return the gradients with momentum: g + m b with Nesterov's, else b, where b becomes m b + g."""
    for grad, state in zip(grads, states, strict=True):
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(grad)
    buffers = [state["momentum"] for state in states]
    torch._foreach_mul_(buffers, factor)
    torch._foreach_add_(buffers, grads)
    return list(torch._foreach_add(grads, buffers, alpha=factor)) if nesterov else buffers


def sgd_step(
    params: list[Tensor], grads: list[Tensor], states: States, *, lr: float, factor: float, nesterov: bool, decay: float
) -> None:
    """Stochastic gradient descent with momentum; decay is coupled."""
    if decay:
        grads = list(torch._foreach_add(grads, params, alpha=decay))
    torch._foreach_add_(params, momentum(grads, states, factor, nesterov), alpha=-lr)


def adam_direction(grads: list[Tensor], states: States, betas: tuple[float, float]) -> list[Tensor]:
    """Return Adam's direction: the mean of the gradients over the root of that of their squares, both corrected."""
    for grad, state in zip(grads, states, strict=True):
        if "step" not in state:
            state["step"] = grad.new_zeros(())
            state["mean"], state["square"] = torch.zeros_like(grad), torch.zeros_like(grad)
    steps, means, squares = ([state[name] for state in states] for name in ("step", "mean", "square"))
    first, second = betas
    torch._foreach_add_(steps, 1)
    torch._foreach_lerp_(means, grads, 1 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_addcmul_(squares, grads, grads, 1 - second)
    roots = torch._foreach_sqrt(squares)
    torch._foreach_div_(roots, [(1 - second**step).sqrt() for step in steps])
    torch._foreach_add_(roots, EPS)
    torch._foreach_mul_(roots, [1 - first**step for step in steps])
    return list(torch._foreach_div(means, roots))


def adamw_step(
    params: list[Tensor], grads: list[Tensor], states: States, *, lr: float, betas: tuple[float, float], decay: float
) -> None:
    """Adam with decoupled weight decay."""
    direction = adam_direction(grads, states, betas)
    torch._foreach_mul_(params, 1 - lr * decay)
    torch._foreach_add_(params, direction, alpha=-lr)
