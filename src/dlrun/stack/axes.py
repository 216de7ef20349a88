"""The axis of the jobs of a stack: along the batch, as an axis of their own, or side by side with the channels."""

from torch import Tensor


def per_job(x: Tensor, k: int) -> Tensor:
    """(K * B, ...) -> (K, B, ...)"""
    return x.unflatten(0, (k, -1))


def side_by_side(x: Tensor, k: int) -> Tensor:
    """(K * B, C, ...) -> (B, K * C, ...)"""
    return per_job(x, k).transpose(0, 1).flatten(1, 2)


def one_after_another(x: Tensor, k: int, channels_last: bool = False) -> Tensor:
    """(B, K * C, ...) -> (K * B, C, ...), with the channels last in memory if wanted"""
    each = x.unflatten(1, (k, -1)).transpose(0, 1)
    return each.movedim(2, -1).flatten(0, 1).movedim(-1, 1) if channels_last else each.flatten(0, 1)


def is_channels_last(x: Tensor) -> bool:
    """Whether maps (B, C, H, W) on a CPU have their channels last in memory. Layers of torch keep that, and so do
    stacked ones: a CPU draws random numbers in the order of the memory. On CUDA masks are others than those of a job
    alone in any case.
    """
    if x.dim() != 4 or x.device.type != "cpu":
        return False
    _, channels, height, width = x.shape
    return x.stride()[1:] == (1, channels * width, channels) and channels * height * width > 1


def along(values: Tensor, ndim: int, axis: int) -> Tensor:
    """(K, *shape) -> a view that broadcasts against (K, B, ...) of `ndim` axes, with shape[0] at `axis`."""
    gap, rest = axis - 1, ndim - axis - (values.dim() - 1)
    return values.reshape(len(values), *[1] * gap, *values.shape[1:], *[1] * rest)
