"""Muon: momentum made orthogonal, for the filters and matrices of a net; SGD or AdamW for all other parameters.

Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Bernstein and Newhouse 2024,
"Old optimizer, new norm". The Newton-Schulz iteration is a quintic whose coefficients favour speed: after five
iterations all singular values are between about 0.7 and 1.2. Equal shapes are iterated together.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

ORTHOGONAL = ("filters", "matrices")  # kinds of parameters (optim/kinds.py)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """See `optimizers.muon` for the keys. params: groups of parameters, each with its "kind"."""

    def __init__(self, params: Iterable[dict[str, Any]], *, rest_lr: float, rest: str, **defaults: Any) -> None:
        self.rest = rest
        super().__init__([group if _is_orthogonal(group) else {"lr": rest_lr} | group for group in params], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if not params:
                continue
            grads = [param.grad for param in params]
            if _is_orthogonal(group):
                self._orthogonal(group, params, grads)
            elif self.rest == "sgd":
                self._sgd(group, params, grads)
            else:
                self._adamw(group, params, grads)

    def _orthogonal(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        moved = self._momentum(params, grads, group["momentum"], group["nesterov"])
        if group["fixed_norm"]:
            norms = torch._foreach_norm(params)
            torch._foreach_mul_(params, [len(p) ** 0.5 / norm for p, norm in zip(params, norms, strict=True)])
        elif group["weight_decay"]:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        for rows in _of_equal_shape(moved):
            matrices = torch.stack([moved[row].flatten(1) for row in rows])
            updates = orthogonalised(matrices, group["iterations"])
            scale = 1.0 if group["fixed_norm"] else max(1.0, matrices.shape[1] / matrices.shape[2]) ** 0.5
            for row, update in zip(rows, updates, strict=True):
                params[row].add_(update.view_as(params[row]), alpha=-group["lr"] * scale)

    def _momentum(self, params: list[Tensor], grads: list[Tensor], momentum: float, nesterov: bool) -> list[Tensor]:
        """Return the gradients with momentum: g + m b with Nesterov's, else b, where b becomes m b + g."""
        for param in params:
            if "momentum" not in self.state[param]:
                self.state[param]["momentum"] = torch.zeros_like(param)
        buffers = [self.state[param]["momentum"] for param in params]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, grads)
        return list(torch._foreach_add(grads, buffers, alpha=momentum)) if nesterov else buffers

    def _sgd(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        moved = self._momentum(params, grads, group["rest_momentum"], group["nesterov"])
        torch._foreach_add_(params, moved, alpha=-group["lr"])

    def _adamw(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> None:
        for param in params:
            if "step" not in self.state[param]:
                self.state[param]["step"] = torch.zeros((), device=param.device)
                self.state[param]["mean"], self.state[param]["square"] = (
                    torch.zeros_like(param),
                    torch.zeros_like(param),
                )
        states = [self.state[param] for param in params]
        steps, means, squares = ([state[name] for state in states] for name in ("step", "mean", "square"))
        first, second = group["rest_betas"]
        torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
        torch._foreach_add_(steps, 1)
        torch._foreach_lerp_(means, grads, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, grads, grads, 1 - second)
        roots = torch._foreach_sqrt(squares)
        torch._foreach_div_(roots, [(1 - second**step).sqrt() for step in steps])
        torch._foreach_add_(roots, 1e-8)
        torch._foreach_mul_(roots, [1 - first**step for step in steps])
        torch._foreach_addcdiv_(params, means, roots, -group["lr"])


def orthogonalised(matrices: Tensor, iterations: int) -> Tensor:
    """Bring all singular values of each matrix near 1: (N, rows, columns) -> the same, by Newton-Schulz iterations.

    In bf16 on CUDA, where it is much faster and accurate enough (Jordan et al. 2024).
    """
    a, b, c = COEFFICIENTS
    x = matrices.to(torch.bfloat16 if matrices.is_cuda else matrices.dtype)
    is_tall = x.shape[1] > x.shape[2]
    x = x.mT if is_tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)  # then no singular value is above 1
    for _ in range(iterations):
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrices.dtype)


def _is_orthogonal(group: dict[str, Any]) -> bool:
    return group["kind"] in ORTHOGONAL


def _of_equal_shape(tensors: list[Tensor]) -> list[list[int]]:
    """The indices of tensors, in lists of equal shapes."""
    rows: dict[tuple[int, int], list[int]] = {}
    for row, tensor in enumerate(tensors):
        rows.setdefault((len(tensor), tensor[0].numel()), []).append(row)
    return list(rows.values())
