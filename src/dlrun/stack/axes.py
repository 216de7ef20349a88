"""The axis of the jobs of a stack: along the batch, as an axis of their own, or side by side with the channels."""

from torch import Tensor


def per_job(x: Tensor, k: int) -> Tensor:
    """(K * B, ...) -> (K, B, ...)"""
    return x.unflatten(0, (k, -1))


def side_by_side(x: Tensor, k: int) -> Tensor:
    """(K * B, C, ...) -> (B, K * C, ...)"""
    return per_job(x, k).transpose(0, 1).flatten(1, 2)


def one_after_another(x: Tensor, k: int) -> Tensor:
    """(B, K * C, ...) -> (K * B, C, ...)"""
    return x.unflatten(1, (k, -1)).transpose(0, 1).flatten(0, 1)


def along(values: Tensor, ndim: int, axis: int) -> Tensor:
    """(K, *shape) -> a view that broadcasts against (K, B, ...) of `ndim` axes, with shape[0] at `axis`."""
    gap, rest = axis - 1, ndim - axis - (values.dim() - 1)
    return values.reshape(len(values), *[1] * gap, *values.shape[1:], *[1] * rest)
