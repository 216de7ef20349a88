"""Convert an item of your own loader into a batch of the right types."""

from typing import Any, Literal

import torch
from torch import Tensor

from dlrun.data.base import Batch
from dlrun.errors import DataError, first_line

Kind = Literal["auto", "images", "rows", "series", "tokens"]
AXES = {"rows": 1, "series": 2, "images": 3, "tokens": 1}  # of a sample


def as_batch(item: Any, loader: str, kind: Kind, classes: int | None, vocab: int | None) -> Batch:
    """Return inputs and targets as tensors.

    Inputs: float32 (B, ...), tokens int32 (B, length). Targets: int64 (B,), without classes float32 (B, targets).
    loader: its name for messages. Raises DataError if the item is no such batch.
    """
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"{loader} yields a {type(item).__name__}\n  expected batches (x, y) of two tensors")
    try:
        x, y = (torch.as_tensor(each).detach() for each in item)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{loader}: {first_line(error)}\n  expected tensors") from None
    if any(each.is_complex() or each.layout is not torch.strided for each in (x, y)):
        raise DataError(
            f"{loader} yields x of type {_kind(x)} and y of type {_kind(y)}\n  expected dense tensors of real numbers"
        )
    axes = {name: count for name, count in AXES.items() if kind == name or kind == "auto" and name != "tokens"}
    if x.dim() - 1 not in axes.values():
        expected = " or ".join(f"{count + 1} ({name})" for name, count in axes.items())
        raise DataError(
            f"{loader} yields x of shape {tuple(x.shape)}, and data.kind={kind}\n"
            f"  expected this number of axes, with that of the batch: {expected}"
        )
    if not y.dim() or len(x) != len(y) or not x.numel():
        raise DataError(
            f"{loader} yields x of shape {tuple(x.shape)} and y of shape {tuple(y.shape)}\n"
            "  expected (batch, ...) with a target for each sample"
        )
    return _inputs(x, loader, kind, vocab or 0), _targets(y, loader, classes)


def _inputs(x: Tensor, loader: str, kind: Kind, vocab: int) -> Tensor:
    if kind != "tokens":
        return x.float()
    if x.is_floating_point() or int(x.min()) < 0 or int(x.max()) >= vocab:
        raise DataError(
            f"{loader} yields x of type {_kind(x)}, from {x.min()} to {x.max()}\n"
            f"  expected tokens (batch, length) from 0 to {vocab - 1}, by data.vocab"
        )
    return x.int()


def _targets(y: Tensor, loader: str, classes: int | None) -> Tensor:
    if classes:
        if y.is_floating_point() or y.dim() != 1 or int(y.min()) < 0 or int(y.max()) >= classes:
            raise DataError(
                f"{loader} yields y of type {_kind(y)}, shape {tuple(y.shape)}, from {y.min()} to {y.max()}\n"
                f"  expected labels (batch,) from 0 to {classes - 1}"
            )
        return y.long()
    if y.dim() > 2 or not y.numel():
        raise DataError(
            f"{loader} yields y of shape {tuple(y.shape)}\n"
            "  expected real targets (batch,) or (batch, targets); for labels, data.classes"
        )
    if y.numel() == len(y) and not y.is_floating_point():
        raise DataError(
            f"{loader} yields y of type {_kind(y)}, and data.classes is null: are they labels or real targets?\n"
            "  expected data.classes=<number of classes> for labels (batch,); for real targets floats: y.float()"
        )
    return y.float() if y.dim() == 2 else y.float()[:, None]


def _kind(x: Tensor) -> str:
    sparse = "" if x.layout is torch.strided else f" ({str(x.layout).removeprefix('torch.')})"
    return str(x.dtype).removeprefix("torch.") + sparse
