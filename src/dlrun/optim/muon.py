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

from dlrun.optim.steps import adamw_step, learning, momentum, sgd_step

ORTHOGONAL = ("filters", "matrices")  # kinds of parameters (optim/kinds.py)
COEFFICIENTS = (3.4445, -4.7750, 2.0315)


class Muon(Optimizer):
    """See `optimizers.muon` for the keys. params: groups of parameters, each with its "kind"."""

    def __init__(self, params: Iterable[dict[str, Any]], *, rest_lr: float, **defaults: Any) -> None:
        super().__init__([group if _is_orthogonal(group) else {"lr": rest_lr} | group for group in params], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closures: see Update
        for group, params, grads, states in learning(self):
            lr, decay = group["lr"], group["weight_decay"]
            if _is_orthogonal(group):
                self._orthogonal(group, params, momentum(grads, states, group["momentum"], group["nesterov"]))
            elif group["rest"] == "sgd":
                factor, nesterov = group["rest_momentum"], group["nesterov"]
                sgd_step(params, grads, states, lr=lr, factor=factor, nesterov=nesterov, decay=decay)
            else:
                adamw_step(params, grads, states, lr=lr, betas=group["rest_betas"], decay=decay)

    def _orthogonal(self, group: dict[str, Any], params: list[Tensor], moved: list[Tensor]) -> None:
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
