"""Scores of a whole split: those of task.metrics, and the threshold that val chooses."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlrun.spec import Mask
from dlrun.system.distributed import Distributed
from dlrun.tasks.losses.balance import skew
from dlrun.tasks.metrics import balanced_acc
from dlrun.tasks.metrics.decision import Decision
from dlrun.tasks.metrics.measures import Measures, counts
from dlrun.tasks.metrics.outcomes import Outcomes, gathered
from dlrun.tasks.targets import Learnable


class Scoring:
    """Scores of all outputs of a split; of masks, of the pixels by true and predicted class.

    metrics: functions with their keys. threshold: see decision.py. known: the scores that the task has anyway. If the
    classes are skewed, balanced accuracy is among the scores. chooses: whether val chooses the threshold, as it does in
    training; the run's own threshold stays as it is when the run is evaluated later.
    """

    def __init__(
        self,
        metrics: Sequence[partial],
        threshold: float | str,
        spec: Learnable | Mask,
        known: Sequence[str],
        dist: Distributed,
    ) -> None:
        self.measures, self.decision = Measures(metrics, spec, known), Decision(threshold, spec.classes)
        self.classes, self.known, self.dist = spec.classes, known, dist
        self.counts: list[int] | None = None
        self.chooses = False

    def __bool__(self) -> bool:
        """Whether it needs the outputs."""
        return bool(self.measures.functions or self.decision.metric)

    def scores(self) -> dict[str, str]:
        """The names of the scores, each with its direction."""
        return self.measures.scores()

    def __call__(self, batches: Sequence[tuple[Tensor, Tensor]], split: str) -> dict[str, float]:
        """The scores of a split; called by all processes. batches: this process's targets and predictions."""
        scores: dict[str, float] = {}
        if (outcomes := gathered(batches, self.dist)) is not None:
            if self.chooses and split == "val":
                self.decision.choose(outcomes)
            predicted = self.decide(torch.from_numpy(outcomes.predicted)).numpy()
            if self.decision.metric:  # the threshold has just changed
                scores["acc"] = float((predicted == outcomes.y).mean())
            scores |= self.measures(self._given(outcomes, predicted))
        scores, state = self.dist.broadcast_object((scores, self.decision.state_dict()))
        self.decision.load_state_dict(state)
        return scores

    def _given(self, outcomes: Outcomes, predicted: np.ndarray) -> dict[str, Any]:
        """The possible inputs of metrics, by name (metrics/__init__.py)."""
        y, values = outcomes
        if not self.classes:
            return {"y": y, "out": values}
        return {"y": y, "p": values, "predicted": predicted, "counts": counts(y, predicted, self.classes)}

    def of_counts(self, matrix: Tensor) -> dict[str, float]:
        """The scores of a split's pixels, from their numbers by true class (rows) and predicted class."""
        return self.measures({"counts": matrix.long().cpu().numpy()})

    def decide(self, p: Tensor) -> Tensor:
        """Probabilities (B, classes) -> classes (B,); real outputs stay as they are."""
        return self.decision(p) if self.classes else p

    def count(self, counts: list[int] | None) -> None:
        """Take the train split's number of samples of each class."""
        self.counts = counts
        if counts and skew(counts, list(map(str, counts))) and "balanced_acc" not in self.measures.functions:
            self.measures.add("balanced_acc", partial(balanced_acc))

    def extra_state(self) -> dict[str, Any]:
        """The class counts, and the threshold if val chooses it."""
        values: dict[str, Any] = {"class_counts": self.counts} if self.counts else {}
        return values | (self.decision.state_dict() if self.decision.metric else {})

    def load_extra_state(self, state: dict[str, Any]) -> None:
        """Raises ValueError unless `state` has the form that `extra_state` returns."""
        counts = state.get("class_counts")
        if counts is not None and not (isinstance(counts, list) and len(counts) == self.classes):
            raise ValueError(f"class_counts: expected {self.classes} numbers")
        self.count(counts)
        if self.decision.metric:
            self.decision.load_state_dict({"threshold": state.get("threshold")})
