"""Means of the jobs' metrics over an epoch, summed for all jobs at once. Each job's own Means holds its sums."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dlrun.tasks.base import Metrics
from dlrun.train.meters import Means


class StackedMeans:
    """The steps that are not in the jobs' sums yet.

    means: of the jobs. Those of restored jobs may have such steps, which move here.
    """

    def __init__(self, means: Sequence[Means]) -> None:
        self.pending: list[tuple[Metrics, int]] = []
        for steps in zip(*(each.pending for each in means), strict=True):
            first, samples = steps[0]
            self.add({name: torch.stack([metrics[name] for metrics, _ in steps]) for name in first}, samples)
        for each in means:
            each.pending = []

    def add(self, metrics: Metrics, samples: int) -> None:
        """Add the metrics of a step: (K,), or (K, N) with a value for each of the N samples."""
        self.pending.append((metrics, samples))

    def flush(self, means: Sequence[Means]) -> list[dict[str, float]]:
        """Move all steps into the jobs' sums; return each job's means over these steps."""
        if not self.pending:
            return [{} for _ in means]
        sums = {name: self._summed(name).tolist() for name in self.pending[0][0]}
        samples = sum(count for _, count in self.pending)
        self.pending.clear()
        windows: list[dict[str, float]] = []
        for k, each in enumerate(means):
            for name, values in sums.items():
                each.sums[name] = each.sums.get(name, 0.0) + values[k]
                each.samples[name] = each.samples.get(name, 0) + samples
            windows.append({name: values[k] / samples for name, values in sums.items()})
        return windows

    def _summed(self, name: str) -> Tensor:
        """Sums over the samples of all steps, (K,)."""
        values = [metrics[name] for metrics, _ in self.pending]
        if values[0].dim() > 1:
            return torch.cat(values, 1).sum(1).float()
        counts = torch.tensor([count for _, count in self.pending], dtype=torch.float32, device=values[0].device)
        return (torch.stack(values).float() * counts[:, None]).sum(0)

    def of_job(self, k: int) -> list[tuple[Metrics, int]]:
        """The steps of one job, as its own Means would hold them."""
        return [({name: value[k] for name, value in metrics.items()}, count) for metrics, count in self.pending]
