"""Least squares: the weights with the smallest squared error over all train samples, in one step and without gradients.

Source: the book, section 2.1 (the closed form), chapter 9 (polynomials).
"""

from collections.abc import Callable

import torch

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.errors import UserError
from dlrun.models.polynomial import Polynomial
from dlrun.optim.update import Update
from dlrun.spec import Table
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.plain import PLAIN
from dlrun.tasks.supervised import Supervised


class LeastSquares(Supervised):
    """Solves for the weights. The optimizer does nothing; a second epoch would give the same weights."""

    def __init__(self, net: Polynomial, spec: Table, device: Device, update: Callable[..., Update]) -> None:
        super().__init__(net, spec, device, update, loss="mse", grad_accum_steps=1, **PLAIN)
        self.net: Polynomial = net

    def steps(self, data: SampleData) -> int:
        """One. Raises UserError unless all train samples are in one batch."""
        if data.batch_size < (size := data.size("train")):
            raise UserError(
                f"data.batch_size={data.batch_size}: least squares needs all {size:,} train samples at once\n"
                f"  expected data.batch_size={size} or more"
            )
        return super().steps(data)

    @torch.no_grad()
    def step(self, batch: Batch, clock: Clock) -> Metrics:
        x, y = batch[0].cpu().double(), batch[1].cpu().double()
        terms, layer = self.net.terms(x), self.net.output
        if not terms.isfinite().all():
            raise UserError(
                f"the powers of x / {self.net.scale:g} up to degree {self.net.degree} are not finite\n"
                f"  expected model.scale near the greatest |x|, {x.abs().max():g}"
            )
        if layer.bias is not None:
            terms = torch.cat([terms, torch.ones(len(x), 1, dtype=terms.dtype)], 1)
        weights = torch.linalg.lstsq(terms, y, driver="gelsd").solution.T  # (targets, terms); the shortest if many fit
        layer.weight.copy_(weights[:, : layer.in_features])
        if layer.bias is not None:
            layer.bias.copy_(weights[:, -1])
        out = self.net(batch[0])
        return {"loss": self.loss(out, batch[1]), **self._per_sample(out, batch[1])}
