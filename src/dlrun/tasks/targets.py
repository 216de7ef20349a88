"""What the spec says about targets: whether there are any, and by what they are standardised."""

import torch
from torch import Tensor

from dlrun.errors import UserError, counted
from dlrun.spec import Columns, Image, Mask, Series, Table, Tokens

Learnable = Image | Table | Columns | Series | Tokens  # what a supervised task learns from


def target_scaling(spec: Learnable, device: torch.device) -> tuple[Tensor, Tensor] | None:
    """Return the means and deviations (targets,) by which targets are standardised; None if they are learned as is."""
    if isinstance(spec, Image | Tokens) or not spec.target_means:
        return None
    means, stds = torch.tensor([spec.target_means, spec.target_stds], device=device)
    return means, stds


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
