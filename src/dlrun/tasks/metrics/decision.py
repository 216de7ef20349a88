"""The threshold above which a probability means the second of two classes: a number, or the best one on val."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlrun.errors import UserError, check_state
from dlrun.tasks.metrics.curves import rates
from dlrun.tasks.metrics.outcomes import Outcomes

Array = np.ndarray
EVEN = 0.5


def _mcc(tp: Array, fp: Array, fn: Array, tn: Array) -> Array:
    scale = np.sqrt((tp + fp) * (tp + fn)) * np.sqrt((tn + fp) * (tn + fn))
    return np.divide(tp * tn - fp * fn, scale, out=np.zeros(len(tp)), where=scale > 0)


SCORES: dict[str, Callable[[Array, Array, Array, Array], Array]] = {
    "f1": lambda tp, fp, fn, tn: 2 * tp / (2 * tp + fp + fn),
    "balanced_acc": lambda tp, fp, fn, tn: tp / (tp + fn) + tn / (tn + fp),
    "mcc": _mcc,
    "acc": lambda tp, fp, fn, tn: tp + tn,
}


class Decision:
    """Turns probabilities into classes.

    by: the threshold, or the metric that it maximises on val. threshold: the present one; with by=metric, `choose` sets
    it after each validation. Raises UserError if data of other than two classes asks for one.
    """

    def __init__(self, by: float | str, classes: int | None) -> None:
        if by != EVEN and classes != 2:
            kind = f"{classes} classes" if classes else "real targets"
            raise UserError(
                f"task.threshold={by}: this data has {kind}; a threshold divides two\n  expected task.threshold={EVEN}"
            )
        self.metric = by if isinstance(by, str) else None
        self.threshold = EVEN if isinstance(by, str) else float(by)

    def choose(self, outcomes: Outcomes) -> None:
        """Set the threshold with the highest score; of equals that nearest to 0.5. If a class is absent: no change."""
        if self.metric is None or outcomes.y.min() == outcomes.y.max():
            return
        y, p = outcomes.y, outcomes.predicted[:, 1].astype(np.float64)
        false, true, _ = rates(p, y)
        positives, negatives = y.sum(), len(y) - y.sum()
        tp, fp = (true[1:] * positives).round(), (false[1:] * negatives).round()
        score = SCORES[self.metric](tp, fp, positives - tp, negatives - fp)
        steps = np.unique(p)[::-1]  # samples from this probability on are positive
        below = np.append(steps[1:], 0.0)
        middles = (steps + below) / 2
        best = np.flatnonzero(score >= score.max() - 1e-12)
        self.threshold = float(middles[best[np.abs(middles[best] - EVEN).argmin()]])

    def __call__(self, p: Tensor) -> Tensor:
        """Probabilities (B, classes) -> classes int64 (B,)."""
        return (p[:, 1] > self.threshold).long() if p.shape[1] == 2 and self.threshold != EVEN else p.argmax(1)

    def of_logits(self, out: Tensor) -> Tensor:
        """Logits of the second class (B,) -> classes int64 (B,)."""
        if self.threshold == EVEN:
            return (out > 0).long()
        return (torch.sigmoid(out) > self.threshold).long()

    def state_dict(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def load_state_dict(self, state: Any) -> None:
        """Raises ValueError unless `state` has the form that `state_dict` returns."""
        check_state(state, {"threshold": float})
        if not 0 <= state["threshold"] <= 1:
            raise ValueError(f"threshold: {state['threshold']}: expected a number in [0, 1]")
        self.threshold = state["threshold"]
