"""Successive halving of jobs that train together (Jamieson and Talwalkar 2016, algorithm 1).

Like sweep.pruner=asha for jobs that train one by one, but all jobs are compared at the same epoch, so none is favoured
for finishing it first.
"""

from collections.abc import Mapping
from math import isnan

from dlrun.sweep.settings import Search


def best_first(scores: Mapping[int, float]) -> list[int]:
    """Jobs by their scores, of which higher is better; those without a number are last, equal ones in their order."""
    return sorted(scores, key=lambda job: (isnan(scores[job]), -scores[job], job))


def is_rung(settings: Search, epoch: int) -> bool:
    """Whether jobs are compared after this number of epochs: the first, and each `reduction` times the one before."""
    rung = max(1, settings.pruner_warmup_epochs)
    while rung < epoch:
        rung *= settings.reduction
    return rung == epoch


def to_stop(settings: Search, epoch: int, scores: Mapping[int, float]) -> list[int]:
    """The jobs that stop after an epoch: all but the best 1/reduction and those that are as good. One always stays."""
    if not is_rung(settings, epoch):
        return []
    ranked = best_first(scores)
    least = scores[ranked[max(1, len(ranked) // settings.reduction) - 1]]
    return [job for job in scores if not scores[job] >= least] if not isnan(least) else ranked[1:]
