"""Fit vectors of words to counts of pairs of words, by weighted least squares on the counts' logarithms.

Source: Pennington et al. 2014, equations 8 and 9: the weight of a count x is (x / x_max)^alpha, at most 1.
Deviation: a step takes all pairs of some words, where the authors' program takes one pair.
"""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.models.glove import GloVe
from dlrun.optim.update import Update
from dlrun.spec import Unlabelled, Words
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.types import Positive


class FitCounts(SampleTask):
    """Learns word vectors. loss: the mean weighted squared error of the logarithms; val and test: of held-out pairs."""

    compiled = ()

    def __init__(
        self,
        net: GloVe,
        spec: Words | Unlabelled,
        device: Device,
        update: Callable[..., Update],
        *,
        x_max: Positive,
        alpha: Positive,
    ) -> None:
        super().__init__(net, device)
        self.net: GloVe = net
        self.update = update(net)
        self.components["update"] = self.update
        self.x_max, self.alpha = x_max, alpha
        self.scores, self.goal = {"loss": "min"}, "loss"

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        error, weight = self.errors(self.net, batch)
        if not self.update.step(error / len(batch[0]), clock):
            return {}
        return {"loss": error.detach() / weight.clamp(min=1e-12)}

    def errors(self, net: GloVe, batch: Batch) -> tuple[Tensor, Tensor]:
        """The sum of the weighted squared errors, and that of the weights."""
        words, counts = batch
        weights = (counts / self.x_max).clamp(max=1).pow(self.alpha)  # 0 for pairs that do not occur
        logs = counts.clamp(min=1e-12).log()
        return (weights * (net.logs(words) - logs).square()).sum(), weights.sum()

    @torch.no_grad()
    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        net = cast(GloVe, self.evaluated())
        error, weight = (torch.stack(each).sum() for each in zip(*self._parts(net, data, split), strict=True))
        return {"loss": (error / weight).item()}

    def _parts(self, net: GloVe, data: SampleData, split: str) -> list[tuple[Tensor, Tensor]]:
        pairs = [self.errors(net, batch) for batch in data.batches(split)]
        return [(error.double().cpu(), weight.double().cpu()) for error, weight in pairs]

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """The mean vectors of texts (B, T): (B, size)."""
        return self.evaluated()(batch).float()
