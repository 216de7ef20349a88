"""Apply operations with fixed numbers to images and draw the outputs. Nothing learns (the book, chapter 10)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.errors import UserError
from dlrun.models.operations import Operations
from dlrun.output.panels import panels
from dlrun.output.report import Report
from dlrun.spec import Image, Unlabelled
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.types import Index

SMALL = 64  # numbers: smaller outputs are written into the summary


class Apply(SampleTask):
    """Draws the outputs for one image of the test split. Metrics: the mean of each operation's outputs for a batch.

    index: the image's number in the test split.
    """

    accepts = ("images",)
    compiled = ()

    def __init__(self, net: Operations, spec: Image | Unlabelled, device: Device, *, index: Index) -> None:
        super().__init__(net, device)
        self.net: Operations = net
        self.index = index
        self.scores = dict.fromkeys(net.operations, "max")

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        return self._means(batch[0])

    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        """Return the mean of each operation's outputs over the split's first batch."""
        return {name: mean.item() for name, mean in self._means(next(iter(data.batches(split)))[0]).items()}

    @torch.no_grad()
    def _means(self, x: Tensor) -> Metrics:
        return {name: out.mean() for name, out in self.net(x).items()}

    def report(self, data: SampleData) -> Report:
        """The drawing of the image and of all outputs; the numbers of small ones."""
        if self.index >= (size := data.size("test")):
            raise UserError(f"task.index={self.index}: expected an image of the test split, at most {size - 1}")
        batch, row = divmod(self.index, data.eval_batch_size)
        x = next(x for i, (x, _) in enumerate(data.batches("test")) if i == batch)[row : row + 1]
        outputs = {"input": x} | self.net(x)
        small = {name: out[0].tolist() for name, out in outputs.items() if out.numel() <= SMALL}
        return Report(self.explain(x), numbers={"outputs": small} if small else {})

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """The first operation's outputs, as images in [0, 1]."""
        return next(iter(self.net(batch).values())).clamp(0, 1)

    @torch.no_grad()
    def explain(self, x: Tensor) -> dict[str, Callable]:
        outputs = {"input": x} | self.net(x)
        return {"operations": partial(panels, {name: out[0].float().cpu().numpy() for name, out in outputs.items()})}
