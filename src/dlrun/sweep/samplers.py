"""Optuna's sampler and pruner for the settings of a search."""

import warnings
from random import Random
from typing import TYPE_CHECKING

from dlrun.sweep import cma
from dlrun.sweep.axes import Axis
from dlrun.sweep.points import labels
from dlrun.sweep.settings import Search
from dlrun.sweep.stacks import MOST, Setting

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

FEW = 8


def sampler(settings: Search, swept: list[Axis], number: int, is_batch: bool = False) -> "BaseSampler":
    """Return the sampler for the trial with this number, seeded by it.

    is_batch: several points are chosen at a time. TPE then counts those without a result as bad ones, so that they do
    not lie close together (constant liar: Ginsbourger et al. 2010).
    """
    from optuna import samplers

    seed = Random(f"{settings.seed}/{number}").getrandbits(32)
    if settings.sampler == "tpe":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the liar is called experimental
            return samplers.TPESampler(seed=seed, constant_liar=is_batch)
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


def at_a_time(settings: Search, stack: Setting) -> int:
    """Number of points that are chosen at a time, for a stack: few if the sampler learns from earlier ones."""
    if isinstance(stack, int):
        return stack
    return FEW if settings.sampler in ("tpe", "cmaes") else MOST


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
