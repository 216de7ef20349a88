"""Means of metrics over an epoch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrun.errors import check_state
from dlrun.tasks.metrics.outcomes import OUTCOMES


def counted(outcomes: Sequence[Tensor]) -> dict[str, float]:
    """Count how often each value occurs, by name: outcomes/VALUE."""
    if not outcomes:
        return {}
    values, counts = torch.cat([each.reshape(-1) for each in outcomes]).unique(return_counts=True)
    return {f"{OUTCOMES}/{value}": float(count) for value, count in zip(values.tolist(), counts.tolist(), strict=True)}


class Means:
    """Means of metrics over an epoch, weighted by samples. They are summed on the device, to avoid waiting for it.

    A metric that only some steps return is averaged over those steps. OUTCOMES is no mean: its values, whole numbers,
    are counted, and `flush` and `result` return the counts as outcomes/VALUE.
    """

    def __init__(self) -> None:
        self.pending: list[tuple[dict[str, Tensor], int]] = []
        self.sums: dict[str, float] = {}
        self.samples: dict[str, int] = {}  # number of samples in each sum; 1 for a count

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
        values = [step[name].float().mean() for step, _ in self.pending[-steps:] if name in step]
        return name, torch.stack(values).mean().item()

    def flush(self) -> dict[str, float]:
        """Return the means since the last flush, and add them to the epoch's sums."""
        if not self.pending:
            return {}
        names = list(dict.fromkeys(name for metrics, _ in self.pending for name in metrics if name != OUTCOMES))
        sums, totals = [], []
        for name in names:
            pairs = [(metrics[name], n) for metrics, n in self.pending if name in metrics]
            values, sizes = zip(*pairs, strict=True)
            totals.append(sum(sizes))
            if values[0].dim():
                sums.append(torch.cat(values).sum().float())
            else:
                weights = torch.tensor(sizes, dtype=torch.float32, device=values[0].device)
                sums.append((torch.stack(values).float() * weights).sum())
        window = dict(zip(names, torch.stack(sums).tolist(), strict=True))
        for (name, value), total in zip(window.items(), totals, strict=True):
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.samples[name] = self.samples.get(name, 0) + total
        counts = counted([metrics[OUTCOMES] for metrics, _ in self.pending if OUTCOMES in metrics])
        self.add_counts(counts)
        self.pending.clear()
        return {name: value / total for (name, value), total in zip(window.items(), totals, strict=True)} | counts

    def add_counts(self, counts: dict[str, float]) -> None:
        for name, count in counts.items():
            self.sums[name], self.samples[name] = self.sums.get(name, 0.0) + count, 1

    def result(self) -> dict[str, float]:
        """The means over the epoch so far."""
        self.flush()
        return {name: value / self.samples[name] for name, value in self.sums.items()}

    def state_dict(self) -> dict:
        return {"pending": [[metrics, n] for metrics, n in self.pending], "sums": self.sums, "samples": self.samples}

    def load_state_dict(self, state: dict) -> None:
        """Raises ValueError unless `state` has the form that `state_dict` returns."""
        check_state(state, {"pending": list, "sums": dict, "samples": dict})
        dims: dict[str, int] = {}
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
