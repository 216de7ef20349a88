"""Semantic segmentation: predict the class of every pixel.

Source: Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation", section 5 (pixel
accuracy, mean IoU). Loss and metrics count only pixels whose class is known (data.spec.ignore marks the others).
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.errors import UserError
from dlrun.optim.update import Update
from dlrun.output.figures import drawable
from dlrun.output.report import Report
from dlrun.spec import Mask
from dlrun.system.device import Device, exact_dtype
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.tasks.images import grid, image_figure, rescaled
from dlrun.tasks.losses.balance import balance_of, labels_of
from dlrun.tasks.metrics import f1, iou, precision, recall
from dlrun.tasks.metrics.decision import EVEN
from dlrun.tasks.metrics.scoring import Scoring
from dlrun.tasks.outputs import returned
from dlrun.tasks.recipe.freezing import Freezing
from dlrun.tasks.recipe.micro_batches import learns_from_one, smallest_micro_batch
from dlrun.tasks.report import by_class
from dlrun.tasks.targets import check_spec
from dlrun.types import Metric, NonNegative, Positive, Probability

NOT_COUNTED = -100  # ignore_index of the cross-entropy if the data ignores nothing: no class has this number
SHOWN = 8  # number of images in a preview
COLOURS = (  # of classes, repeated after the last; colour-blind safe (Okabe and Ito 2008)
    (0.00, 0.00, 0.00), (0.90, 0.62, 0.00), (0.34, 0.71, 0.91), (0.00, 0.62, 0.45),
    (0.94, 0.89, 0.26), (0.00, 0.45, 0.70), (0.84, 0.37, 0.00), (0.80, 0.47, 0.65),
)  # fmt: skip


class Segment(SampleTask):
    """Learn masks by the mean cross-entropy over a batch's counted pixels.

    Metrics over all counted pixels of a split: loss; acc, the pixel accuracy; miou, intersection over union averaged
    over the classes that occur in the masks or the predictions; and task.metrics. class_weights: of the pixels' losses
    in training (tasks/losses/balance.py). freeze, unfreeze, freeze_from, lr_multipliers: see tasks/recipe/freezing.py.
    """

    has_metrics = True

    def __init__(
        self,
        net: nn.Module,
        spec: Mask,
        device: Device,
        update: Callable[..., Update],
        *,
        label_smoothing: Probability,
        class_weights: Literal["balanced"] | dict[str, NonNegative] | None,
        metrics: list[Metric],
        freeze: list[str],
        unfreeze: list[tuple[str, Positive]],
        freeze_from: list[tuple[str, Positive]],
        lr_multipliers: list[tuple[str, Positive]],
    ) -> None:
        super().__init__(net, device)
        check_spec(spec)
        self.spec, self.smoothing = spec, label_smoothing
        self.ignore = NOT_COUNTED if spec.ignore is None else spec.ignore
        self.freezing = Freezing(net, freeze, unfreeze, freeze_from, lr_multipliers)
        self.update = update(net, groups=self.freezing.groups)
        self.components["update"] = self.update
        self.scores = {"loss": "min", "acc": "max", "miou": "max"}
        self.scoring = Scoring(metrics, EVEN, spec, list(self.scores), device.dist)
        self.scores |= self.scoring.scores()
        self.goal = "miou"
        self.wanted_weights = class_weights
        self.class_weights: Tensor | None = None

    def prepare(self, data: SampleData) -> None:
        """Count the pixels of the classes. Raises UserError if task.class_weights does not fit them."""
        device = self.device.torch_device
        counts, self.class_weights, self.header_lines = balance_of(data, self.spec, self.wanted_weights, device)
        self.load_extra_state({"class_counts": counts})

    def extra_state(self) -> dict[str, Any]:
        return self.scoring.extra_state()

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.scoring.load_extra_state(state)
        self.scores |= self.scoring.scores()

    def steps(self, data: SampleData) -> int:
        """Number of batches in an epoch. Raises UserError if one is a single sample and the net needs more."""
        if smallest_micro_batch(data, self.device) == 1 and not learns_from_one(self.net, self.spec):
            raise UserError(
                f"data.batch_size={data.batch_size} puts one of the {data.size('train')} train samples into a batch "
                "alone, and batch normalisation of 1x1 maps needs two or more\n"
                "  expected another data.batch_size, or another model.norm"
            )
        return super().steps(data)

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        self.freezing.at(clock)
        x, y = batch
        with self.device.autocast():
            out = self.net(x)
        out = returned(self.net, out, len(y), self.spec.classes, *y.shape[1:]).float()
        dist = self.device.dist
        sum_of = self.jobs.sum
        counted = dist.all_reduce_sum(sum_of(y != self.ignore).float()).clamp(min=1) * dist.share  # in the whole batch
        losses = self._losses(out, y)
        if self.class_weights is not None:
            losses = losses * self.class_weights[y.clamp(0, self.spec.classes - 1)]  # those of other pixels are 0
        loss = sum_of(losses) / counted
        metrics = {"loss": loss.detach(), "acc": sum_of(out.detach().argmax(1) == y) / counted}
        if not self.update.step(loss, clock):
            return {}
        return metrics if self.update.grad_norm is None else metrics | {"grad_norm": self.update.grad_norm}

    def _losses(self, out: Tensor, y: Tensor) -> Tensor:
        """The pixels' cross-entropies, 0 where they do not count: they are summed, as a mean would be NaN if none do.

        torch's reduction="sum" is not deterministic on CUDA, and an error under trainer.deterministic=true.
        """
        return F.cross_entropy(out, y, ignore_index=self.ignore, label_smoothing=self.smoothing, reduction="none")

    @torch.no_grad()
    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        dist = self.device.dist
        sums = self._confusion(
            islice(data.batches(split), dist.rank, None, dist.size)
        )  # batches rank, rank + size, ...
        matrix, loss = (dist.all_reduce_sum(tensor) for tensor in sums)
        correct, num_pixels = matrix.diag(), matrix.sum().clamp(min=1)
        union = matrix.sum(0) + matrix.sum(1) - correct
        occurs = union > 0
        iou = correct[occurs] / union[occurs]
        values = torch.stack((loss / num_pixels, correct.sum() / num_pixels, iou.mean() if len(iou) else loss * 0))
        return dict(zip(("loss", "acc", "miou"), values.tolist(), strict=True)) | self.scoring.of_counts(matrix)

    def _confusion(self, batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
        """Count pixels by true class (rows) and predicted class (columns), and sum their losses; on the device."""
        net, k, device = self.evaluated(), self.spec.classes, self.device.torch_device
        exact = exact_dtype(device)
        matrix, loss = torch.zeros(k * k, dtype=exact, device=device), torch.zeros((), dtype=exact, device=device)
        for x, y in batches:
            with self.device.autocast():
                out = net(x)
            out = returned(net, out, len(y), k, *y.shape[1:]).float()
            loss += self._losses(out, y).sum()
            cells = torch.where(y == self.ignore, k * k, y * k + out.argmax(1))
            matrix += torch.bincount(cells.flatten(), minlength=k * k + 1)[: k * k]
        return matrix.view(k, k), loss

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """Return probabilities (B, classes, H, W)."""
        net = self.evaluated()
        with self.device.autocast():
            out = net(batch)
        return out.float().softmax(1)

    def preview(self, data: SampleData, split: str = "val") -> dict[str, Tensor]:
        """The first images, each with its true mask and its predicted mask."""
        x, y = next(data.batches(split))
        (shown_x, _) = next(rescaled(iter([(x[:SHOWN], y[:SHOWN])]), data, 0.0, 1.0))
        predicted = self.predict(x[:SHOWN]).argmax(1)
        triples = torch.stack((_in_colour(shown_x), self._painted(y[:SHOWN]), self._painted(predicted)), 1)
        return {"masks": grid(triples.flatten(0, 1), 6 if len(triples) > 1 else 3)}

    def _painted(self, y: Tensor) -> Tensor:
        """Colour masks: (B, H, W) classes -> (B, 3, H, W) in [0, 1]; pixels that do not count are white."""
        colours = torch.tensor(COLOURS, device=y.device)
        painted = colours[y % len(COLOURS)]  # (B, H, W, 3)
        return torch.where((y == self.ignore)[..., None], 1.0, painted).permute(0, 3, 1, 2)

    @torch.no_grad()
    def report(self, data: SampleData) -> Report:
        """Masks of test images, and metrics of each class (None if it is in no mask and no prediction)."""
        matrix = self._confusion(data.batches("test"))[0].long().cpu().numpy()
        labels = labels_of(data, self.spec)
        sheet = self.preview(data, "test")["masks"]
        heads = ("image", "true", "predicted") * min(2, sheet.shape[2] // (3 * self.spec.shape[2]))
        colours = dict(zip(drawable(labels), COLOURS, strict=False))  # the first classes if there are too few colours
        figure = partial(image_figure, sheet, "masks, test", heads, colours)
        return Report({"masks": figure}, numbers={"per_class": by_class(matrix, labels, (precision, recall, f1, iou))})


def _in_colour(x: Tensor) -> Tensor:
    """Take the first three channels, or repeat a single one: (B, C, H, W) -> (B, 3, H, W)."""
    return x[:, :3] if x.shape[1] >= 3 else x[:, :1].expand(-1, 3, -1, -1)
