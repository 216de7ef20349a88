"""Supervised learning: labels or real targets."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.errors import UserError, counted
from dlrun.optim.update import Update
from dlrun.output.plots import confusion_matrix
from dlrun.output.predictions import decision_boundary, fitted_line, forecast, residuals
from dlrun.spec import Columns, Image, Mask, Series, Table, Tokens
from dlrun.system.device import Device
from dlrun.system.graphs import StepGraphs
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.tasks.chunks import learns_from_one, smallest_chunk
from dlrun.tasks.freezing import Freezing
from dlrun.tasks.images import before_and_after, image_figure
from dlrun.tasks.losses import make_loss
from dlrun.tasks.mixing import Mixing
from dlrun.tasks.penalty import Penalty
from dlrun.tasks.probabilities import judged, probability_figures
from dlrun.tasks.resizing import Resizing
from dlrun.tasks.views import Views
from dlrun.types import Index, NonNegative, Positive, Probability, Share, Size


class Supervised(SampleTask):
    """Learn targets from inputs.

    loss: see tasks/losses.py. l1, l2: weight of the sum of |w| or w^2 over the weights (not biases) whose names match
    `penalise`, added to the loss (the book, section 9.5; for decoupled decay use optimizer=adamw).
    grad_accum_steps: number of chunks in which a batch is processed. The update is that of the whole batch, but batch
    normalisation sees one chunk at a time. freeze, unfreeze, freeze_from, lr_multipliers: see tasks/freezing.py.
    resize: see tasks/resizing.py. mixup, cutmix: see tasks/mixing.py. test_flip, test_shift: see tasks/views.py.

    A batch is (inputs, targets), or (inputs, targets, weights) with weights (B,) of the samples' losses. If the spec
    knows the targets' means and deviations, the loss is of standardised targets; metrics and predictions are in their
    own unit.

    In training a net may return the outputs of several members (B, members, outputs), whose losses are averaged, or a
    tuple: its outputs, then those of auxiliary heads, whose losses are weighted by `net.auxiliary`. Metrics use the
    outputs only.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: Image | Table | Columns | Series | Tokens,
        device: Device,
        update: Callable[..., Update],
        *,
        loss: Literal["auto", "cross_entropy", "bce", "mse_one_hot", "hinge", "perceptron", "mse", "mae", "huber"],
        label_smoothing: Probability,
        l1: NonNegative,
        l2: NonNegative,
        penalise: list[str],
        grad_accum_steps: Size,
        freeze: list[str],
        unfreeze: list[tuple[str, Positive]],
        freeze_from: list[tuple[str, Positive]],
        lr_multipliers: list[tuple[str, Positive]],
        resize: list[tuple[Share, NonNegative]],
        mixup: NonNegative,
        cutmix: NonNegative,
        test_flip: bool,
        test_shift: Index,
    ) -> None:
        super().__init__(net, device)
        check_spec(spec)
        self.spec, self.grad_accum_steps = spec, grad_accum_steps
        self.auxiliary: float = getattr(net, "auxiliary", 0.0)
        self.loss_name, self.loss = make_loss(loss, spec, label_smoothing)
        self.scaling = target_scaling(spec, device.torch_device)
        self.penalty = Penalty(net, l1, l2, penalise)
        self.freezing = Freezing(net, freeze, unfreeze, freeze_from, lr_multipliers)
        self.resizing = Resizing(net, spec, resize)
        self.mixing, self.views = Mixing(spec, mixup, cutmix), Views(test_flip, test_shift).check(spec)
        self.update = update(net, groups=self.freezing.groups)
        self.graphs: StepGraphs | None = None
        self.components["update"] = self.update
        self.scores = {"loss": "min", "acc": "max"} if spec.classes else {"loss": "min", "mae": "min", "mse": "min"}
        if (spec.classes or 0) > 5:
            self.scores["top5"] = "max"
        self.goal = "acc" if spec.classes else "mae"

    def steps(self, data: SampleData) -> int:
        """Number of batches in an epoch.

        Raises UserError if a batch has fewer samples than chunks, or if a chunk has one sample and the net needs more.
        """
        if self.grad_accum_steps > (most := min(data.batch_size, data.size("train"))):
            raise UserError(
                f"task.grad_accum_steps={self.grad_accum_steps}: a batch has {most:,} samples\n"
                f"  expected at most {most}"
            )
        if smallest_chunk(data, self.device, self.grad_accum_steps) == 1 and not learns_from_one(self.net, self.spec):
            raise UserError(
                f"data.batch_size={data.batch_size} with task.grad_accum_steps={self.grad_accum_steps} puts one of the "
                f"{data.size('train')} train samples into a chunk alone, and batch normalisation needs two or more\n"
                "  expected another data.batch_size, or another model.norm"
            )
        return super().steps(data)

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        self.freezing.at(clock)
        if self.resizing.moments:
            batch = self.resizing(batch[0], clock), *batch[1:]
        metrics = self._step_in_chunks(batch, clock) if self.grad_accum_steps > 1 else self._step(batch, clock)
        if metrics and self.update.grad_norm is not None:
            metrics["grad_norm"] = self.update.grad_norm
        return metrics

    def _step(self, batch: Batch, clock: Clock) -> Metrics:
        if self.graphs is None:
            loss, metrics = self._learn(*batch)
            return metrics if self.update.step(loss, clock) else {}
        loss, metrics = self.graphs.forward(self.freezing.passed, *batch)
        return metrics if self.update.step(loss, clock, backward=self.graphs.backward) else {}

    def record_steps(self) -> bool:
        if self.grad_accum_steps == 1:
            self.graphs = StepGraphs(self._learn, self.update.backward, self.update.params)
        return self.graphs is not None

    def _learn(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Metrics]:
        criterion: Callable[[Tensor, Tensor], Tensor] = partial(self._loss, weights=weights)
        if self.mixing:
            x, other, share = self.mixing(x, y)
            criterion = lambda out, y: share * self._loss(out, y) + (1 - share) * self._loss(out, other)  # noqa: E731
        with self.device.autocast():
            out = self.net(x)
        out, *auxiliary = out if isinstance(out, tuple) else (out,)
        if out.dtype != torch.float32:
            out = out.float()
        loss = criterion(out, y)
        mean = out.detach().mean(1) if out.dim() == 3 else out.detach()  # over several members
        metrics = {"loss": loss.detach(), **self._per_sample(mean, y)}
        for head in auxiliary:
            loss = loss + self.auxiliary * criterion(head.float(), y)
        return (loss + self.penalty() if self.penalty else loss), metrics

    def _loss(self, out: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        if out.dim() == 3:  # of several members
            members = out.shape[1]
            weights = None if weights is None else weights.repeat_interleave(members)
            out, y = out.flatten(0, 1), y.repeat_interleave(members, 0)
        if self.scaling is not None:
            means, stds = self.scaling
            y = (y - means) / stds
        if weights is None:
            return self.loss(out, y)
        losses = self.loss(out, y, reduction="none")  # (B,) or (B, targets)
        return (losses.flatten(1).mean(1) if losses.dim() > 1 else losses) @ weights / len(weights)

    def _step_in_chunks(self, batch: Batch, clock: Clock) -> Metrics:
        num_samples = len(batch[0])
        chunks = list(zip(*(member.chunk(self.grad_accum_steps) for member in batch), strict=True))
        earlier_loss, gathered = torch.zeros((), device=batch[0].device), []
        for i, chunk in enumerate(chunks):
            loss, metrics = self._learn(*chunk)
            share = len(chunk[0]) / num_samples  # chunks count by size: the sum is the mean over the batch
            loss = loss * share
            gathered.append({k: v * share if v.dim() == 0 else v for k, v in metrics.items()})
            if i < len(chunks) - 1:
                self.update.backward(loss)
                earlier_loss += loss.detach()
        if not self.update.step(loss, clock, earlier_loss):
            return {}
        columns = {name: [metrics[name] for metrics in gathered] for name in gathered[0]}
        return {name: torch.cat(v) if v[0].dim() else torch.stack(v).sum() for name, v in columns.items()}

    def _per_sample(self, out: Tensor, y: Tensor) -> Metrics:
        if self.spec.classes:
            return {"acc": self._labels(out) == y}
        return {"mae": (self._in_unit(out) - y).abs().mean(1)}

    def _in_unit(self, out: Tensor) -> Tensor:
        """Turn a network's outputs into targets in their own unit."""
        if self.scaling is None:
            return out
        means, stds = self.scaling
        return out * stds + means

    def _labels(self, out: Tensor) -> Tensor:
        if self.spec.classes == 2:  # one logit; for the squared error, too, 0 is where the sigmoid is 0.5
            return (out.squeeze(1) > 0).long()
        return out.argmax(1)

    @torch.no_grad()
    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        net = self.evaluated()
        sums: dict[str, Tensor] = {}
        exact = torch.float64 if self.device.torch_device.type != "mps" else torch.float32
        dist = self.device.dist
        for x, y in islice(data.batches(split), dist.rank, None, dist.size):  # each process every size-th batch
            with self.device.autocast():
                out = self.views.mean(net, x)
            values = {"loss": self._loss(out, y) * len(y), **{k: v.sum() for k, v in self._per_sample(out, y).items()}}
            if self.spec.classes is None:
                values["mse"] = (self._in_unit(out) - y).square().mean(1).sum()
            elif "top5" in self.scores:
                values["top5"] = (out.topk(5).indices == y[:, None]).sum()
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value.to(exact)
        zero = torch.zeros((), dtype=exact, device=self.device.torch_device)
        totals = dist.all_reduce_sum(torch.stack([sums.get(name, zero) for name in self.scores]))
        return dict(zip(self.scores, (totals / data.size(split)).tolist(), strict=True))

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """Probabilities (B, classes), or real outputs (B, targets)."""
        net = self.evaluated()
        with self.device.autocast():
            out = self.views.mean(net, batch)
        if self.spec.classes is None:
            return self._in_unit(out)
        if self.spec.classes == 2:
            p = torch.sigmoid(out)
            return torch.cat((1 - p, p), 1)
        return out.softmax(1)

    def report(self, data: SampleData) -> dict[str, object]:
        figures, ranges = self.penalty.report(self.evaluated())
        if isinstance(self.spec, Table | Columns | Series) and self.spec.classes is None:
            pairs = [(self.predict(x), y) for x, y in data.batches("test")]
            out, y = torch.cat([p for p, _ in pairs]).cpu(), torch.cat([t for _, t in pairs]).cpu()
            figures["residuals"] = partial(residuals, y.numpy(), out.numpy(), self.spec)
            if isinstance(self.spec, Series):
                figures["forecast"] = partial(forecast, y.numpy(), out.numpy(), self.spec)
            if self.spec.shape == (1,):
                figures["fitted_line"] = partial(fitted_line, data, self.predict)
            return {"figures": figures} | ranges
        k = self.spec.classes or 0
        # not self.spec: some data learns its labels in load()
        labels = getattr(data.spec, "labels", ()) or tuple(map(str, range(k)))
        y, best, p = judged(self.predict, data)
        matrix = torch.bincount(y * k + best, minlength=k * k).view(k, k)
        figures["confusion_matrix"] = partial(confusion_matrix, matrix.numpy(), labels)
        if isinstance(self.spec, Image) and (sheet := before_and_after(data)) is not None:
            figures["augmented"] = partial(image_figure, sheet, "images, and three times what training may see")
        if isinstance(self.spec, Table) and self.spec.features == 2:
            figures["decision_boundary"] = partial(decision_boundary, data, self.predict, labels)
        figures |= probability_figures(y, best, p, labels)
        counts = zip(labels, matrix.diag().tolist(), matrix.sum(1).tolist(), strict=True)
        return {
            "figures": figures,
            "acc_per_class": {label: correct / total if total else None for label, correct, total in counts},
            "confusion_matrix": matrix.numpy(),
        } | ranges


def target_scaling(
    spec: Image | Table | Columns | Series | Tokens, device: torch.device
) -> tuple[Tensor, Tensor] | None:
    """Return the means and deviations (targets,) by which targets are standardised; None if they are learned as is."""
    if isinstance(spec, Image | Tokens) or not spec.target_means:
        return None
    means, stds = torch.tensor([spec.target_means, spec.target_stds], device=device)
    return means, stds


def check_spec(spec: Image | Table | Columns | Series | Tokens | Mask) -> None:
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
