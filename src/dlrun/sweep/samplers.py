"""Optuna's sampler and pruner for the settings of a search."""

from random import Random
from typing import TYPE_CHECKING

from dlrun.sweep import cma
from dlrun.sweep.axes import Axis
from dlrun.sweep.points import labels
from dlrun.sweep.settings import Search

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler


def sampler(settings: Search, swept: list[Axis], number: int) -> "BaseSampler":
    """Return the sampler for the trial with this number, seeded by it."""
    from optuna import samplers

    seed = Random(f"{settings.seed}/{number}").getrandbits(32)
    if settings.sampler == "tpe":
        return samplers.TPESampler(seed=seed)
    if settings.sampler == "cmaes":
        return cma.make_sampler(seed)
    if settings.sampler == "qmc":  # one sequence, whose position is the number of trials
        independent = samplers.RandomSampler(seed)
        return samplers.QMCSampler(
            scramble=True, seed=settings.seed, independent_sampler=independent, warn_independent_sampling=False
        )
    if settings.sampler == "grid":
        return samplers.GridSampler({axis.name: labels(axis) for axis in swept}, seed=settings.seed)
    return samplers.RandomSampler(seed)


def pruner(settings: Search, epochs: int) -> "BasePruner":
    """Return the pruner. epochs: of a complete job."""
    from optuna import pruners

    warmup, startup = settings.pruner_warmup_epochs, settings.pruner_startup
    first = max(1, warmup)
    if settings.pruner == "median":
        return pruners.MedianPruner(startup, warmup)
    if settings.pruner == "percentile":
        return pruners.PercentilePruner(settings.percentile, startup, warmup)
    if settings.pruner == "asha":
        return pruners.SuccessiveHalvingPruner(min_resource=first, reduction_factor=settings.reduction)
    if settings.pruner == "hyperband":
        return pruners.HyperbandPruner(first, max(first, epochs), settings.reduction)
    return pruners.NopPruner()
