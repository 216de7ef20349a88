"""The targets that a spec describes: whether there are any, and how they are standardised."""

import torch
from torch import Tensor

from dlrun.errors import UserError, counted
from dlrun.spec import Columns, Image, Mask, Series, Table, Tokens

Learnable = Image | Table | Columns | Series | Tokens  # what a supervised task learns from


class TargetScaling:
    """Standardises targets by their means and deviations over the train split. Does nothing if the spec has none."""

    def __init__(self, spec: Learnable, device: torch.device) -> None:
        self.statistics: tuple[Tensor, Tensor] | None = None  # means and deviations (targets,)
        if not isinstance(spec, Image | Tokens) and spec.target_means:
            means, stds = torch.tensor([spec.target_means, spec.target_stds], device=device)
            self.statistics = means, stds

    def standardised(self, y: Tensor) -> Tensor:
        """Turn targets (B, targets) in their own unit into those that the loss compares with."""
        if self.statistics is None:
            return y
        means, stds = self.statistics
        return (y - means) / stds

    def in_unit(self, out: Tensor) -> Tensor:
        """Turn a network's outputs (B, targets) into targets in their own unit."""
        if self.statistics is None:
            return out
        means, stds = self.statistics
        return out * stds + means


def check_spec(spec: Learnable | Mask) -> None:
    """Raise UserError if the data has no labels or targets, or if the number of class names is wrong."""
    if not spec.outputs:
        raise UserError(
            f"the data is {spec}: there are no labels to learn\n"
            f"  expected classes{', or targets: data.spec.targets' if isinstance(spec, Table) else ''}"
        )
    if spec.labels and len(spec.labels) != spec.classes:
        raise UserError(
            f"data.spec.labels has {counted(len(spec.labels), 'name')}, data.spec.classes={spec.classes}: "
            "expected one each, or []"
        )
