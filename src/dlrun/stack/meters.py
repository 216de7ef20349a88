"""Means of the jobs' metrics over an epoch, summed for all jobs at once. Each job's own Means holds its sums."""

from collections.abc import Collection, Sequence
from math import nan

import torch

from dlrun.tasks.base import Metrics
from dlrun.tasks.metrics.outcomes import OUTCOMES
from dlrun.train.meters import Means, counted


class StackedMeans:
    """The steps that are not in the jobs' sums yet.

    means: of the jobs. Those of restored jobs may have such steps, which move here. left_out: the metrics that a job
    alone would not have, for each job.
    """

    def __init__(self, means: Sequence[Means], left_out: Sequence[Collection[str]]) -> None:
        self.pending: list[tuple[Metrics, int]] = []
        self.left_out = left_out
        for steps in zip(*(each.pending for each in means), strict=True):
            like = {name: value for metrics, _ in steps for name, value in metrics.items()}
            columns = {name: [metrics.get(name, value * nan) for metrics, _ in steps] for name, value in like.items()}
            self.add({name: torch.stack(column) for name, column in columns.items()}, steps[0][1])
        for each in means:
            each.pending = []

    def add(self, metrics: Metrics, samples: int) -> None:
        """Add the metrics of a step: (K,), or (K, N) with a value for each of the N samples; or none."""
        if metrics:
            self.pending.append((metrics, samples))

    def flush(self, means: Sequence[Means]) -> list[dict[str, float]]:
        """Move all steps into the jobs' sums; return each job's means over these steps."""
        if not self.pending:
            return [{} for _ in means]
        names = dict.fromkeys(name for metrics, _ in self.pending for name in metrics if name != OUTCOMES)
        sums = {name: self._summed(name) for name in names}
        outcomes = [metrics[OUTCOMES] for metrics, _ in self.pending if OUTCOMES in metrics]
        self.pending.clear()
        windows: list[dict[str, float]] = []
        for k, each in enumerate(means):
            own = {name: pair for name, pair in sums.items() if name not in self.left_out[k]}
            for name, (values, samples) in own.items():
                each.sums[name] = each.sums.get(name, 0.0) + values[k]
                each.samples[name] = each.samples.get(name, 0) + samples
            counts = counted([values[k] for values in outcomes])
            each.add_counts(counts)
            windows.append({name: values[k] / samples for name, (values, samples) in own.items()} | counts)
        return windows

    def _summed(self, name: str) -> tuple[list[float], int]:
        """Each job's sum over the samples of the steps that have this metric, and the number of these samples."""
        values, counts = zip(
            *((metrics[name], count) for metrics, count in self.pending if name in metrics), strict=True
        )
        if values[0].dim() > 1:
            return torch.cat(values, 1).sum(1).float().tolist(), sum(counts)
        weights = torch.tensor(counts, dtype=torch.float32, device=values[0].device)
        return (torch.stack(values).float() * weights[:, None]).sum(0).tolist(), sum(counts)

    def of_job(self, k: int) -> list[tuple[Metrics, int]]:
        """The steps of one job, as its own Means would hold them."""
        steps = []
        for metrics, count in self.pending:
            own = {name: value[k] for name, value in metrics.items() if name not in self.left_out[k]}
            steps.append((own, count))
        return steps
