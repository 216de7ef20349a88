"""Running statistics of training: means of metrics over an epoch, and the best epoch so far."""

import math

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.errors import check_state


class Means:
    """Means of metrics over an epoch, weighted by samples. They are summed on the device, to avoid waiting for it.

    A metric that only some steps return is averaged over those steps.
    """

    def __init__(self) -> None:
        self.pending: list[tuple[dict[str, Tensor], int]] = []
        self.sums: dict[str, float] = {}
        self.samples: dict[str, int] = {}  # number of samples in each sum

    def add(self, metrics: dict[str, Tensor], samples: int) -> None:
        """Add the metrics of a step: scalars (means over its samples) or vectors (N,); empty if it was skipped."""
        if metrics:
            self.pending.append((metrics, samples))

    def running(self, steps: int = 50) -> tuple[str, float] | None:
        """Return the loss over the last steps that are not flushed yet, with its name. Leaves the means as they are.

        The loss is the metric "loss", else the first one. None if there are no such steps. Waits for the device.
        """
        if not self.pending:
            return None
        metrics = self.pending[-1][0]
        name = "loss" if "loss" in metrics else next(iter(metrics))
        values = [found[name].float().mean() for found, _ in self.pending[-steps:] if name in found]
        return name, torch.stack(values).mean().item()

    def flush(self) -> dict[str, float]:
        """Return the means since the last flush, and add them to the epoch's sums."""
        if not self.pending:
            return {}
        names = list(dict.fromkeys(name for metrics, _ in self.pending for name in metrics))
        sums, totals = [], []
        for name in names:
            pairs = [(metrics[name], n) for metrics, n in self.pending if name in metrics]
            values, counts = zip(*pairs, strict=True)
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
        """The means over the epoch so far."""
        self.flush()
        return {name: value / self.samples[name] for name, value in self.sums.items()}

    def state_dict(self) -> dict:
        return {"pending": [[metrics, n] for metrics, n in self.pending], "sums": self.sums, "samples": self.samples}

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError unless `state` has the form that `state_dict` returns."""
        check_state(state, {"pending": list, "sums": dict, "samples": dict})
        dims = {}
        for metrics, n in state["pending"]:
            if not isinstance(n, int) or not all(isinstance(value, Tensor) for value in metrics.values()):
                raise ValueError("pending: expected tensors and their number of samples")
            if any(
                dims.setdefault(name, value.dim()) != value.dim() or value.dim() > 1 for name, value in metrics.items()
            ):
                raise ValueError("pending: expected scalars or vectors")
        if not all(isinstance(value, float) for value in state["sums"].values()):
            raise ValueError("sums: expected floats")
        check_state(state["samples"], dict.fromkeys(state["sums"], int))
        self.pending = [(metrics, n) for metrics, n in state["pending"]]
        self.sums, self.samples = state["sums"], state["samples"]


class Best:
    """Tracks the best epoch by one metric, and the epochs since the last improvement (trainer.patience).

    metric: its name. mode: "max" or "min", the better direction. `score` is the best value so far; of equal scores, the
    one with the lower loss is best. `waited` counts validated epochs since the last improvement of more than
    `min_delta` over `anchor`, the score of that improvement. A score that is not finite is never better.
    """

    def __init__(self, metric: str, mode: str, min_delta: float) -> None:
        self.metric, self.sign, self.min_delta = metric, 1 if mode == "max" else -1, min_delta
        self.score, self.loss, self.epoch, self.step = None, None, 0, 0
        self.anchor, self.anchor_epoch, self.waited = None, 0, 0

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

    def load_state_dict(self, state: dict) -> None:
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
