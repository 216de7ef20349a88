"""Gradient clipping: by value, by the norm of each tensor, by the global norm."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


@torch.no_grad()
def clip_gradients(
    params: Sequence[Tensor], value: float | None, norm: float | None, global_norm: float | None
) -> Tensor | None:
    """Clip in place, in this order: each entry to [-value, value], each tensor to L2 `norm`, all to `global_norm`.

    The book, section 11.6.1: W * max_norm / max(|W|, max_norm). None for no limit. Returns the global norm before it
    was clipped, or None if it is not limited.
    """
    grads = [p.grad for p in params if p.grad is not None]
    if value is not None:
        torch._foreach_clamp_min_(grads, -value)
        torch._foreach_clamp_max_(grads, value)
    if norm is not None:
        torch._foreach_mul_(grads, [norm / n.clamp(min=norm) for n in torch._foreach_norm(grads)])
    if global_norm is not None:
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        torch._foreach_mul_(grads, global_norm / total.clamp(min=global_norm))
        return total
    return None


@torch.no_grad()
def tensor_norms(params: Iterable[tuple[str, Tensor]], prefix: str) -> dict[str, Tensor]:
    """The L2 norm of each tensor's gradient as prefix/name, of those that have one."""
    grads = {name: param.grad for name, param in params if param.grad is not None}
    norms = torch._foreach_norm(list(grads.values())) if grads else ()
    return {f"{prefix}/{name}": norm for name, norm in zip(grads, norms, strict=True)}
