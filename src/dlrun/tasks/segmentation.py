"""Segmentation: the class of every pixel.

Source: Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation", section 5 (pixel
accuracy, mean IoU); notes E48 (whose text defines the IoU of boxes). Pixels that the data marks as not to be counted
are left out of loss and metrics.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Data
from dlrun.errors import UserError
from dlrun.optim.update import Update
from dlrun.output.drawing import drawable
from dlrun.spec import Mask
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, Task
from dlrun.tasks.freezing import Freezing
from dlrun.tasks.images import grid, rescaled, shown
from dlrun.tasks.supervised import check_spec, learns_from_one, smallest_chunk
from dlrun.types import Positive, Probability

NOT_COUNTED = -100  # what the cross-entropy is told to leave out where the data ignores nothing
SHOWN = 8  # pictures in a preview
COLOURS = (  # of classes, from the first on and around; Okabe and Ito 2008, whom the colour-blind can tell apart
    (0.00, 0.00, 0.00), (0.90, 0.62, 0.00), (0.34, 0.71, 0.91), (0.00, 0.62, 0.45),
    (0.94, 0.89, 0.26), (0.00, 0.45, 0.70), (0.84, 0.37, 0.00), (0.80, 0.47, 0.65),
)  # fmt: skip


class Segment(Task):
    """Learns masks by the mean cross-entropy over a batch's counted pixels.

    Metrics: loss and acc (pixel accuracy), over all counted pixels of a part; miou: the mean over the classes that are
    in the masks or the predictions of intersection over union. freeze, unfreeze, lr_multipliers: see tasks/freezing.py.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: Mask,
        device: Device,
        update: Callable[..., Update],
        *,
        label_smoothing: Probability,
        freeze: list[str],
        unfreeze: list[tuple[str, Positive]],
        lr_multipliers: list[tuple[str, Positive]],
    ) -> None:
        super().__init__(net, device)
        check_spec(spec)
        self.spec, self.smoothing = spec, label_smoothing
        self.ignore = NOT_COUNTED if spec.ignore is None else spec.ignore
        self.freezing = Freezing(net, freeze, unfreeze, lr_multipliers)
        self.update = update(net, groups=self.freezing.groups)
        self.parts["update"] = self.update
        self.scores = {"loss": "min", "acc": "max", "miou": "max"}
        self.goal = "miou"

    def steps(self, data: Data) -> int:
        """Batches in an epoch. Raises UserError where one is a single sample and the net cannot learn from one."""
        if smallest_chunk(data, self.device) == 1 and not learns_from_one(self.net, self.spec):
            raise UserError(
                f"data.batch_size={data.batch_size} leaves one sample alone, of the {data.size('train')} to train on, "
                "and batch normalisation of maps of one pixel has no statistics of one\n"
                "  expected two samples or more: choose another data.batch_size, or another model.norm"
            )
        return super().steps(data)

    def step(self, batch: tuple[Tensor, Tensor], clock: Clock) -> Metrics:
        self.freezing.at(clock)
        x, y = batch
        with self.device.autocast():
            out = self.net(x)
        out = out.float()
        dist = self.device.world
        counted = dist.all_reduce_sum((y != self.ignore).sum().float()).clamp(min=1) * dist.share  # of the whole batch
        loss = self._loss(out, y) / counted
        metrics = {"loss": loss.detach(), "acc": (out.detach().argmax(1) == y).sum() / counted}
        if not self.update.step(loss, clock):
            return {}
        return metrics if self.update.grad_norm is None else metrics | {"grad_norm": self.update.grad_norm}

    def _loss(self, out: Tensor, y: Tensor) -> Tensor:
        """Summed over the counted pixels: a mean over none is not a number.

        torch's own sum over pixels is a little other each time on CUDA, and refused under trainer.deterministic=true.
        """
        kept = {"ignore_index": self.ignore, "label_smoothing": self.smoothing}
        return F.cross_entropy(out, y, **kept, reduction="none").sum()

    @torch.no_grad()
    def evaluate(self, data: Data, split: str) -> dict[str, float]:
        dist = self.device.world
        sums = self._confusion(islice(data.batches(split), dist.rank, None, dist.size))  # every size-th batch each
        matrix, loss = (dist.all_reduce_sum(found) for found in sums)
        right, all_pixels = matrix.diag(), matrix.sum().clamp(min=1)
        both = matrix.sum(0) + matrix.sum(1) - right
        seen = both > 0
        iou = right[seen] / both[seen]
        exact = torch.stack((loss / all_pixels, right.sum() / all_pixels, iou.mean() if len(iou) else loss * 0))
        return dict(zip(("loss", "acc", "miou"), exact.tolist(), strict=True))

    def _confusion(self, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Pixels by true class (rows) and predicted class (columns), and the sum of their losses; on the device."""
        net, k, device = self.evaluated(), self.spec.classes, self.device.device
        exact = torch.float64 if device.type != "mps" else torch.float32
        matrix, loss = torch.zeros(k * k, dtype=exact, device=device), torch.zeros((), dtype=exact, device=device)
        for x, y in batches:
            with self.device.autocast():
                out = net(x)
            out = out.float()
            loss += self._loss(out, y)
            places = torch.where(y == self.ignore, k * k, y * k + out.argmax(1))
            matrix += torch.bincount(places.flatten(), minlength=k * k + 1)[: k * k]
        return matrix.view(k, k), loss

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """Probabilities (B, classes, H, W)."""
        net = self.evaluated()
        with self.device.autocast():
            out = net(batch)
        return out.float().softmax(1)

    def preview(self, data: Data, split: str = "val") -> dict[str, Tensor]:
        """The first pictures in rows of three: the picture, the true mask, the predicted one."""
        x, y = next(data.batches(split))
        (shown_x, _) = next(rescaled(iter([(x[:SHOWN], y[:SHOWN])]), data, 0.0, 1.0))
        found = self.predict(x[:SHOWN]).argmax(1)
        triples = torch.stack((_in_colour(shown_x), self._painted(y[:SHOWN]), self._painted(found)), 1)
        return {"masks": grid(triples.flatten(0, 1), 6 if len(triples) > 1 else 3)}

    def _painted(self, y: Tensor) -> Tensor:
        """(B, H, W) classes -> (B, 3, H, W) in [0, 1]; what is not counted is white."""
        colours = torch.tensor(COLOURS, device=y.device)
        painted = colours[y % len(COLOURS)]  # (B, H, W, 3)
        return torch.where((y == self.ignore)[..., None], 1.0, painted).permute(0, 3, 1, 2)

    @torch.no_grad()
    def report(self, data: Data) -> dict[str, object]:
        """Masks of test pictures, and the IoU of each class (None where it is in no mask and no prediction)."""
        matrix, _ = self._confusion(data.batches("test"))
        both = matrix.sum(0) + matrix.sum(1) - matrix.diag()
        iou = [found if found == found else None for found in (matrix.diag() / both).tolist()]
        labels = self.spec.labels or tuple(map(str, range(self.spec.classes)))
        picture = self.preview(data, "test")["masks"]
        heads = ("picture", "true", "predicted") * min(2, picture.shape[2] // (3 * self.spec.shape[2]))
        colours = dict(zip(drawable(labels), COLOURS, strict=False))  # of more classes than colours: the first
        return {
            "figures": {"masks": partial(shown, picture, "masks, test", heads, colours)},
            "iou_per_class": dict(zip(labels, iou, strict=True)),
        }


def _in_colour(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, 3, H, W): the first three channels, or grey."""
    return x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
