"""Mixed samples: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019), for a whole batch on its device."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Beta

from dlrun.data.boxes import boxes
from dlrun.errors import UserError
from dlrun.spec import Columns, Image, Series, Spec, Tokens
from dlrun.types import NonNegative


class Mixed(NamedTuple):
    """A mixed batch. other: the targets of the samples mixed in. share: of the batch's own targets, in [0, 1]."""

    x: Tensor
    other: Tensor
    share: Tensor


class Mixing:
    """Mixes each sample of a batch with another one; the batch has one share, drawn from Beta(alpha, alpha).

    mixup, cutmix: alpha, 0 for none; with both, a coin decides for each batch. Raises UserError if the data cannot be
    mixed. The numbers come from torch's default generators, which depend on (seed, step).
    """

    def __init__(self, spec: Spec, mixup: NonNegative, cutmix: NonNegative) -> None:
        self.mixup, self.cutmix = mixup, cutmix
        if mixup and (isinstance(spec, Tokens) or isinstance(spec, Columns | Series) and spec.levels):
            raise UserError(
                f"task.mixup={mixup} cannot mix words or categories: expected 0 for data of {type(spec).__name__}"
            )
        if cutmix and not isinstance(spec, Image):
            raise UserError(f"task.cutmix={cutmix} needs images: expected 0 for data of {type(spec).__name__}")

    def __bool__(self) -> bool:
        return bool(self.mixup or self.cutmix)

    def __call__(self, x: Tensor, y: Tensor) -> Mixed:
        others = x.flip(0)  # the batch is shuffled, so its reverse pairs at random
        if self.mixup and self.cutmix:
            coin = torch.rand((), device=x.device) < 0.5
            uped, cut = self._up(x, others), self._cut(x, others)
            return Mixed(torch.where(coin, uped.x, cut.x), y.flip(0), torch.where(coin, uped.share, cut.share))
        mixed = self._up(x, others) if self.mixup else self._cut(x, others)
        return Mixed(mixed.x, y.flip(0), mixed.share)

    def _up(self, x: Tensor, others: Tensor) -> Mixed:
        share = _beta(self.mixup, x.device)
        return Mixed(others + share * (x - others), others, share)

    def _cut(self, x: Tensor, others: Tensor) -> Mixed:
        side = (1 - _beta(self.cutmix, x.device)).sqrt()
        sides = torch.stack((side * x.shape[2], side * x.shape[3]))
        box = boxes(x, torch.rand(1, 2, device=x.device), sides[None])  # (1, 1, H, W), clipped at the borders
        return Mixed(torch.where(box, others, x), others, 1 - box.float().mean())


def _beta(alpha: float, device: torch.device) -> Tensor:
    """A draw from Beta(alpha, alpha), as a tensor without dimensions."""
    concentration = torch.full((), float(alpha), device=device)  # a tensor from the host could not be recorded
    return Beta(concentration, concentration, validate_args=False).sample()
