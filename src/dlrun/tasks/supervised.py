"""Supervised learning: labels or real targets."""

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.models.options import options_of
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.spec import Columns, Image, Series, Table, Tokens
from dlrun.system.device import Device, exact_dtype
from dlrun.system.graphs import StepGraphs
from dlrun.system.replay import StepReplay
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.tasks.explain import explain
from dlrun.tasks.losses.balance import balance_of
from dlrun.tasks.losses.criterion import gives_probabilities, make_loss
from dlrun.tasks.losses.penalty import Penalty
from dlrun.tasks.metrics.outcomes import OUTCOMES
from dlrun.tasks.metrics.scoring import Scoring
from dlrun.tasks.outputs import check_outputs, returned
from dlrun.tasks.recipe.freezing import Freezing
from dlrun.tasks.recipe.micro_batches import accumulate, check_micro_batches
from dlrun.tasks.recipe.mixing import Mixing
from dlrun.tasks.recipe.resizing import Resizing
from dlrun.tasks.recipe.views import Views
from dlrun.tasks.report import report
from dlrun.tasks.targets import TargetScaling, check_spec
from dlrun.types import Index, Loss, Metric, NonNegative, Positive, Probability, Share, Size, Threshold

Criterion = Callable[[Tensor, Tensor], Tensor] | None  # (outputs, targets) -> loss; None: that of the task


class Supervised(SampleTask):
    """Learn targets from inputs.

    configs/task/supervised.yaml describes the keys; losses/, metrics/ and recipe/ hold their code. With
    micro-batches the update is that of the whole batch, but batch normalisation sees one of them at a time.

    A batch is (inputs, targets), or (inputs, targets, weights) with weights (B,) of the samples' losses. If the spec
    has the targets' means and deviations, the loss is of standardised targets; metrics and predictions keep the unit.

    In training a net may return the outputs of several ensemble members (B, members, outputs), whose losses are
    averaged, or a tuple: its outputs, which metrics use, then those of auxiliary heads, weighted by `net.auxiliary`.
    """

    has_metrics = True

    def __init__(
        self,
        net: nn.Module,
        spec: Image | Table | Columns | Series | Tokens,
        device: Device,
        update: Callable[..., Update],
        *,
        loss: Loss,
        label_smoothing: Probability,
        class_weights: Literal["balanced"] | dict[str, NonNegative] | None,
        metrics: list[Metric],
        threshold: Threshold,
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
        self.auxiliary = options_of(net).auxiliary
        self.loss = make_loss(loss, spec, label_smoothing)
        self.scaling = TargetScaling(spec, device.torch_device)
        self.penalty = Penalty(net, l1, l2, penalise)
        self.freezing = Freezing(net, freeze, unfreeze, freeze_from, lr_multipliers)
        self.resizing = Resizing(net, spec, resize)
        self.mixing, self.views = Mixing(spec, mixup, cutmix), Views(test_flip, test_shift).check(spec)
        self.update = update(net, groups=self.freezing.groups)
        self.graphs: StepGraphs | StepReplay | None = None
        self.components["update"] = self.update
        self.scores = {"loss": "min", "acc": "max"} if spec.classes else {"loss": "min", "mae": "min", "mse": "min"}
        if (spec.classes or 0) > 5:
            self.scores["top5"] = "max"
        self.means = list(self.scores)  # summed batch by batch; those of scoring need all outputs of a split
        self.scoring = Scoring(metrics, threshold, spec, self.means, device.dist)
        self.scores |= self.scoring.scores()
        self.goal = "acc" if spec.classes else "mae"
        self.wanted_weights = class_weights
        self.class_weights: Tensor | None = None

    def try_net(self) -> None:
        check_outputs(self.net, self.spec, self.device)

    def prepare(self, data: SampleData) -> None:
        """Count the classes. Raises UserError if task.class_weights does not fit them."""
        self.scoring.chooses = True
        device = self.device.torch_device
        counts, self.class_weights, self.header_lines = balance_of(data, self.spec, self.wanted_weights, device)
        self.load_extra_state(self.scoring.extra_state() | {"class_counts": counts})

    @property
    def threshold(self) -> float | None:
        return self.scoring.decision.threshold if self.spec.classes == 2 else None

    def extra_state(self) -> dict[str, Any]:
        return self.scoring.extra_state()

    def load_extra_state(self, state: dict[str, Any]) -> None:
        self.scoring.load_extra_state(state)
        self.scores |= self.scoring.scores()

    def steps(self, data: SampleData) -> int:
        """Number of batches in an epoch. Raises UserError if the net cannot learn from one of its micro-batches."""
        check_micro_batches(data, self.net, self.spec, self.device, self.grad_accum_steps)
        return super().steps(data)

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        self.freezing.at(clock)
        if self.resizing.moments:
            batch = self.resizing(batch[0], clock), *batch[1:]
        metrics = self._step_in_micro_batches(batch, clock) if self.grad_accum_steps > 1 else self._step(batch, clock)
        if metrics and self.update.grad_norm is not None:
            metrics["grad_norm"] = self.update.grad_norm
        return metrics

    def _step(self, batch: Batch, clock: Clock) -> Metrics:
        if self.graphs is None:
            loss, metrics = self._learn(*batch)
            return metrics if self.update.step(loss, clock) else {}
        loss, metrics = self.graphs.forward((self.freezing.passed, self.scoring.decision.threshold), *batch)
        return metrics if self.update.step(loss, clock, backward=self.graphs.backward) else {}

    def record_steps(self) -> bool:
        if self.grad_accum_steps == 1:
            self.graphs = StepGraphs(self._learn, self.update.backward, self.update.params)
        return self.graphs is not None

    def _learn(self, x: Tensor, y: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Metrics]:
        criterion: Criterion = None
        if self.mixing:
            x, other, share = self.mixing(x, y)
            plain = self._training_loss
            criterion = lambda out, y: share * plain(out, y) + (1 - share) * plain(out, other)  # noqa: E731
        with self.device.autocast():
            out = self.net(x)
        loss, metrics = self.loss_and_metrics(out, y, weights, criterion)
        return (loss + self.penalty() if self.penalty else loss), metrics

    def loss_and_metrics(
        self, out: Tensor | tuple[Tensor, ...], y: Tensor, weights: Tensor | None = None, criterion: Criterion = None
    ) -> tuple[Tensor, Metrics]:
        """The loss, without penalties, and the metrics of a net's outputs in training. criterion: (outputs, y)."""
        out, *auxiliary = out if isinstance(out, tuple) and out else (out,)
        out = returned(self.net, out, len(y), self.spec.outputs)
        if out.dtype != torch.float32:
            out = out.float()
        criterion = criterion or partial(self._training_loss, weights=weights)
        loss = criterion(out, y)
        mean = out.detach().mean(1) if out.dim() == 3 else out.detach()  # over ensemble members
        metrics = {"loss": loss.detach(), **self._per_sample(mean, y)}
        if self.scoring.measures.functions:
            metrics |= self._chosen_metrics(mean, y)
        for head in auxiliary:
            loss = loss + self.auxiliary * criterion(head.float(), y)
        return loss, metrics

    def _training_loss(self, out: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        if self.class_weights is not None:
            of_class = self.class_weights[y]
            weights = of_class if weights is None else weights * of_class
        return self._loss(out, y, weights)

    def _loss(self, out: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
        if weights is not None:
            return self.jobs.mean(self.losses(out, y), weights)
        return self.loss(*self._compared(out, y))

    def losses(self, out: Tensor, y: Tensor) -> Tensor:
        """The losses of the samples, (B,): means over targets and over ensemble members."""
        losses = self.loss(*self._compared(out, y), reduction="none")  # (B,) or (B, targets), for each ensemble member
        return losses.view(len(y), -1).mean(1)

    def _compared(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and targets as the loss takes them."""
        if out.dim() == 3:  # of ensemble members
            out, y = out.flatten(0, 1), y.repeat_interleave(out.shape[1], 0)
        return out, self.scaling.standardised(y)

    def _step_in_micro_batches(self, batch: Batch, clock: Clock) -> Metrics:
        loss, earlier, metrics = accumulate(batch, self.grad_accum_steps, self._learn, self.update.backward)
        return metrics if self.update.step(loss, clock, earlier) else {}

    def _per_sample(self, out: Tensor, y: Tensor) -> Metrics:
        if self.spec.classes:
            return {"acc": self._labels(out) == y}
        return {"mae": (self.scaling.in_unit(out) - y).abs().mean(1)}

    def _chosen_metrics(self, out: Tensor, y: Tensor) -> Metrics:
        """Metrics of task.metrics that cost little in training, or the values that they follow from (see `logged`)."""
        measures = self.scoring.measures
        metrics = measures.per_sample(out if self.spec.classes else self.scaling.in_unit(out), y)
        if measures.of_counts and self.device.dist.size == 1:
            metrics[OUTCOMES] = y * measures.classes + self._labels(out)
        return metrics

    def logged(self, means: dict[str, float]) -> dict[str, float]:
        return self.scoring.measures.logged(means)

    def _labels(self, out: Tensor) -> Tensor:
        if self.spec.classes == 2:  # one logit; for the squared error, too, 0 is where the sigmoid is 0.5
            return self.scoring.decision.of_logits(out.squeeze(1))
        return out.argmax(1)

    @torch.no_grad()
    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        outcomes: list[tuple[Tensor, Tensor]] = []
        dist = self.device.dist
        batches = islice(data.batches(split), dist.rank, None, dist.size)  # each process every size-th batch
        totals = dist.all_reduce_sum(self.totals(batches, outcomes if self.scoring else None))
        means = dict(zip(self.means, (totals / data.size(split)).tolist(), strict=True))
        return means | (self.scoring(outcomes, split) if self.scoring else {})

    @torch.no_grad()
    def totals(self, batches: Iterable[Batch], outcomes: list[tuple[Tensor, Tensor]] | None = None) -> Tensor:
        """The sums of `means` over the samples of batches, which all jobs get: (means, *jobs.shape).

        outcomes: gets the targets and the predictions.
        """
        net, sums = partial(self._returned, self.evaluated()), dict[str, Tensor]()
        exact = exact_dtype(self.device.torch_device)
        for x, y in batches:
            num, x, y = len(y), self.jobs.repeat(x), self.jobs.repeat(y)
            with self.device.autocast():
                out = self.views.mean(net, x)
            values = self._per_sample(out, y)
            if self.spec.classes is None:
                values["mse"] = (self.scaling.in_unit(out) - y).square().mean(1)
            elif "top5" in self.means:
                values["top5"] = (out.topk(5).indices == y[:, None]).any(1)
            of_batch = {
                "loss": self._loss(out, y) * num,
                **{name: self.jobs.sum(each) for name, each in values.items()},
            }
            for name, value in of_batch.items():
                sums[name] = sums.get(name, 0) + value.to(exact)
            if outcomes is not None:
                outcomes.append((y, self._predictions(out)))
        zero = torch.zeros(self.jobs.shape, dtype=exact, device=self.device.torch_device)
        return torch.stack([sums.get(name, zero) for name in self.means])

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """Probabilities (B, classes), or real outputs (B, targets)."""
        net = partial(self._returned, self.evaluated())
        with self.device.autocast():
            out = self.views.mean(net, batch)
        return self._predictions(out)

    def _returned(self, net: nn.Module, x: Tensor) -> Tensor:
        return returned(net, net(x), x.shape[0], self.spec.outputs)  # len would fix the size in an exported graph

    def _predictions(self, out: Tensor) -> Tensor:
        if self.spec.classes is None:
            return self.scaling.in_unit(out)
        if self.spec.classes == 2:
            p = torch.sigmoid(out)
            return torch.cat((1 - p, p), 1)
        return out.softmax(1)

    def decide(self, p: Tensor) -> Tensor:
        return self.scoring.decide(p)

    def explain(self, x: Tensor) -> dict[str, Any]:
        """See tasks/explain.py; of runs that learn classes."""
        labels = self.spec.labels or tuple(map(str, range(self.spec.classes or 0)))
        return explain(self.evaluated(), x, self.spec, labels, self.predict) if labels else {}

    def report(self, data: SampleData) -> Report:
        weights = self.penalty.report(self.evaluated())
        whole = report(self.predict, self.decide, data, self.spec, gives_probabilities(self.loss))
        whole.figures, whole.numbers = weights.figures | whole.figures, whole.numbers | weights.numbers
        return whole
