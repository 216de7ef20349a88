"""The best epoch so far. Imports no torch: the command line asks it whether a finished run has anything left to do."""

import math
from typing import TYPE_CHECKING, Any

from dlrun.clock import Clock
from dlrun.errors import UserError, check_state, nearest
from dlrun.train.trainer import Trainer

if TYPE_CHECKING:
    from dlrun.tasks.base import Task


class Best:
    """Tracks the best epoch by one metric, and the epochs since the last improvement (trainer.patience).

    metric: its name. mode: "max" or "min", the better direction. `score` is the best value so far; of equal scores, the
    one with the lower loss is best. `waited` counts validated epochs since the last improvement of more than
    `min_delta` over `anchor`, the score of that improvement. A score that is not finite is never better.
    """

    def __init__(self, metric: str, mode: str, min_delta: float) -> None:
        self.metric, self.sign, self.min_delta = metric, 1 if mode == "max" else -1, min_delta
        self.score: float | None = None
        self.loss: float | None = None
        self.anchor: float | None = None
        self.epoch = self.step = self.anchor_epoch = 0
        self.waited: float = 0

    def update(self, score: float, clock: Clock, loss: float | None = None) -> bool:
        """Record the score of the clock's epoch; return whether it is the best. loss: decides between equal scores."""
        if self._is_better(score, self.anchor, self.min_delta):
            self.anchor, self.anchor_epoch = score, clock.epoch
        self.waited = clock.epoch - self.anchor_epoch
        loss = loss if loss is not None and math.isfinite(loss) else None
        is_best = self._is_better(score, self.score, 0.0) or score == self.score and self._is_lower(loss)
        if is_best:
            self.score, self.loss, self.epoch, self.step = score, loss, clock.epoch, clock.step
        return is_best

    def _is_lower(self, loss: float | None) -> bool:
        return loss is not None and (self.loss is None or loss < self.loss)

    def reaches(self, score: float | None) -> bool:
        """Whether the best score is at least as good as this one; False for None."""
        return score is not None and self.score is not None and not self._is_better(score, self.score, 0.0)

    def _is_better(self, score: float, than: float | None, by: float) -> bool:
        return math.isfinite(score) and (than is None or self.sign * (score - than) > by)

    def state_dict(self) -> dict:
        names = ("metric", "score", "loss", "epoch", "step", "anchor", "anchor_epoch", "waited")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: Any) -> None:
        """Raises ValueError unless `state` is that of the same metric."""
        check_state(
            state,
            {"metric": str}
            | dict.fromkeys(("score", "loss", "anchor"), float | int | None)
            | dict.fromkeys(("epoch", "step", "anchor_epoch", "waited"), int),
        )
        if state["metric"] != self.metric:
            raise ValueError(f"its best epoch is by {state['metric']!r}, this run's by {self.metric!r}")
        self.__dict__.update(state)


def make_best(task: "Task", trainer: Trainer) -> Best | None:
    """A tracker of the best epoch by the task's goal or trainer.monitor; None if there is neither.

    Raises UserError if the task does not measure trainer.monitor, or if patience or stop_at have no metric to go by.
    """
    name = task.goal if trainer.monitor is None else trainer.monitor.removeprefix("val/")
    if name is None:
        for key, value in (("patience", trainer.patience), ("stop_at", trainer.stop_at)):
            if value is not None:
                raise UserError(
                    f"trainer.{key}={value}: this task has no goal\n  expected a val metric as trainer.monitor"
                )
        return None
    if name not in task.scores:
        known = [f"val/{each}" for each in task.scores]
        near = nearest(f"val/{name}", known) if name else ""
        more = (
            "\n  or a metric of docs/metrics.md that task.metrics has, such as 'task.metrics=[balanced_acc]'"
            if task.has_metrics
            else ""
        )
        raise UserError(
            f"trainer.monitor={trainer.monitor} is not measured here{near}\n  expected one of: {', '.join(known)}{more}"
        )
    return Best(name, task.scores[name], trainer.min_delta)
