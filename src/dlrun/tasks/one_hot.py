"""Squared error between one output in (0, 1) for each class and the one-hot labels (the book, section 7.9)."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from dlrun.models.handwritten import HandWritten
from dlrun.optim.update import Update
from dlrun.spec import Table
from dlrun.system.device import Device
from dlrun.tasks.plain import PLAIN
from dlrun.tasks.supervised import Supervised
from dlrun.types import Size


class OneHot(Supervised):
    """Learns classes by the squared error, which is the mean over the outputs: with two classes its gradient is o - t.

    The likeliest class is that of the greatest output.
    """

    def __init__(
        self, net: HandWritten, spec: Table, device: Device, update: Callable[..., Update], *, grad_accum_steps: Size
    ) -> None:
        super().__init__(net, spec, device, update, loss="mse_one_hot", grad_accum_steps=grad_accum_steps, **PLAIN)
        self.loss = self._squared_error

    def _squared_error(self, out: Tensor, y: Tensor) -> Tensor:
        return F.mse_loss(out, F.one_hot(y, out.shape[1]).to(out.dtype))

    def _labels(self, out: Tensor) -> Tensor:
        return out.argmax(1)

    def _predictions(self, out: Tensor) -> Tensor:
        """The outputs divided by their sum: (B, classes)."""
        return out / out.sum(1, keepdim=True)
