"""What is counted while a run goes on: the means over an epoch, and the best epoch so far."""

import math

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.errors import check_state


class Means:
    """Means over an epoch, summed on the device; scalars weigh as many samples as their batch has.

    A metric that only some steps give is a mean over those.
    """

    def __init__(self) -> None:
        self.pending: list[tuple[dict[str, Tensor], int]] = []
        self.sums: dict[str, float] = {}
        self.samples: dict[str, int] = {}  # that each sum is over

    def add(self, metrics: dict[str, Tensor], samples: int) -> None:
        """Metrics of a step; nothing where the step was left out."""
        if metrics:
            self.pending.append((metrics, samples))

    def flush(self) -> dict[str, float]:
        """The means over what came since the last flush, which is added to the epoch's sums."""
        if not self.pending:
            return {}
        names = list(dict.fromkeys(name for metrics, _ in self.pending for name in metrics))
        sums, totals = [], []
        for name in names:
            given = [(metrics[name], n) for metrics, n in self.pending if name in metrics]
            values, counts = zip(*given, strict=True)
            totals.append(sum(counts))
            if values[0].dim():
                sums.append(torch.cat(values).sum().float())
            else:
                weights = torch.tensor(counts, dtype=torch.float32, device=values[0].device)
                sums.append((torch.stack(values).float() * weights).sum())
        window = dict(zip(names, torch.stack(sums).tolist(), strict=True))
        for (name, value), total in zip(window.items(), totals, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.samples[name] = self.samples.get(name, 0) + total
        self.pending.clear()
        return {name: value / total for (name, value), total in zip(window.items(), totals, strict=True)}

    def result(self) -> dict[str, float]:
        self.flush()
        return {name: value / self.samples[name] for name, value in self.sums.items()}

    def state_dict(self) -> dict:
        return {"pending": [[metrics, n] for metrics, n in self.pending], "sums": self.sums, "samples": self.samples}

    def load_state_dict(self, state: dict) -> None:
        check_state(state, {"pending": list, "sums": dict, "samples": dict})
        dims = {}
        for metrics, n in state["pending"]:
            if not isinstance(n, int) or not all(isinstance(value, Tensor) for value in metrics.values()):
                raise ValueError("pending: expected tensors and their number of samples")
            if any(
                dims.setdefault(name, value.dim()) != value.dim() or value.dim() > 1 for name, value in metrics.items()
            ):
                raise ValueError("pending: expected numbers, or one for each sample")
        if not all(isinstance(value, float) for value in state["sums"].values()):
            raise ValueError("sums: expected floats")
        check_state(state["samples"], dict.fromkeys(state["sums"], int))
        self.pending = [(metrics, n) for metrics, n in state["pending"]]
        self.sums, self.samples = state["sums"], state["samples"]


class Best:
    """The best epoch so far by one metric, and how long nothing better came.

    A better score is any better one; of equal scores the one with the lower loss is the best. What is waited for is a
    score that is better by more than min_delta than the last such (the anchor), counted in epochs up to the last
    validated one: a lower loss alone does not end the wait. A score that is not finite is never better.
    """

    def __init__(self, metric: str, mode: str, min_delta: float) -> None:
        self.metric, self.sign, self.min_delta = metric, 1 if mode == "max" else -1, min_delta
        self.score, self.loss, self.epoch, self.step = None, None, 0, 0
        self.anchor, self.anchor_epoch, self.waited = None, 0, 0

    def update(self, score: float, clock: Clock, loss: float | None = None) -> bool:
        """Whether this score is the best one. loss: decides between equal scores, where there is one."""
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
        """Whether the best score is as good as this one, if there is one to be reached."""
        return score is not None and self.score is not None and not self._is_better(score, self.score, 0.0)

    def _is_better(self, score: float, than: float | None, by: float) -> bool:
        return math.isfinite(score) and (than is None or self.sign * (score - than) > by)

    def state_dict(self) -> dict:
        names = ("metric", "score", "loss", "epoch", "step", "anchor", "anchor_epoch", "waited")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict) -> None:
        check_state(
            state,
            {"metric": str}
            | dict.fromkeys(("score", "loss", "anchor"), float | int | None)
            | dict.fromkeys(("epoch", "step", "anchor_epoch", "waited"), int),
        )
        if state["metric"] != self.metric:
            raise ValueError(f"it is the best by {state['metric']!r}, and this run goes by {self.metric!r}")
        self.__dict__.update(state)
