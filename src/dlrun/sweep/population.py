"""Population based training: the first hyper-parameters of the members, and those after an exchange.

Source: Jaderberg et al. 2017, "Population based training of neural networks", appendix A: exploit by truncation
selection, explore by perturbing or resampling. Every draw is a function of sweep.seed, the epoch and the member.
"""

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from math import exp, log
from random import Random
from typing import NamedTuple

from dlrun.errors import UserError
from dlrun.overrides import key_of
from dlrun.sweep.axes import Axis
from dlrun.sweep.halving import best_first
from dlrun.sweep.settings import Population
from dlrun.sweep.stacks import MAY_DIFFER, NONE_AT_ZERO
from dlrun.types import LARGEST_SEED

FIXED = (  # for the whole run, or no numbers
    "seed", "data.fold", "task.class_weights", "trainer.patience", "trainer.min_delta", "trainer.stop_at",
)  # fmt: skip
MAY_VARY = tuple(key for key in MAY_DIFFER if key not in FIXED)


class Successor(NamedTuple):
    """A member that continues from the weights of another one, `source`, with these hyper-parameters."""

    member: int
    source: int
    values: dict[str, float]


def with_seeds(arguments: list[str], settings: Population) -> list[str]:
    """Give each member a seed, from `seed` on or from 0. Raises UserError for several seeds."""
    typed = [argument for argument in arguments if key_of(argument) == "seed"]
    first = typed[-1].partition("=")[2] if typed else "0"
    if not first.isdecimal():
        raise UserError(
            f"{typed[-1]} with sweep=pbt: each member has a seed of its own\n  expected the first one, such as seed=100"
        )
    if int(first) + settings.population - 1 > LARGEST_SEED:
        raise UserError(f"{typed[-1]} with sweep=pbt: expected seeds of at most {LARGEST_SEED:,}")
    seeds = ",".join(str(int(first) + member) for member in range(settings.population))
    return [*(argument for argument in arguments if argument not in typed), f"seed={seeds}"]


def varied(axes: list[Axis]) -> list[Axis]:
    """The axes of the hyper-parameters that vary."""
    return [axis for axis in axes if axis.is_swept and axis.keys != ["seed"]]


def check(settings: Population, axes: list[Axis], epochs: int) -> None:
    """Raise UserError if the members could not exchange these hyper-parameters within `epochs`."""
    if not varied(axes):
        raise UserError(
            "sweep=pbt: the space is empty\n"
            "  expected at least one key, such as 'optimizer.lr=tag(log,interval(1e-4,1e-1))', or sweep.space"
        )
    if not settings.factors:
        raise UserError("sweep.factors=[]: expected at least one factor, such as [0.8,1.2]")
    if settings.ready_epochs >= epochs:
        raise UserError(
            f"sweep.ready_epochs={settings.ready_epochs} with trainer.epochs={epochs}: no member would ever be "
            f"replaced\n  expected sweep.ready_epochs < trainer.epochs"
        )
    for axis in varied(axes):
        key = axis.name
        if len(axis.keys) > 1 or not any(fnmatchcase(key, pattern) for pattern in MAY_VARY):
            raise UserError(
                f"{axis.argument}: {key} cannot change within a run\n"
                f"  expected one of {', '.join(MAY_VARY)}, or one value for all members"
            )
        try:
            low = min(bounds(axis))
        except ValueError:
            raise UserError(f"{axis.argument}: expected numbers, such as interval(0.1,0.9) or choice(1,2)") from None
        if key in NONE_AT_ZERO and low == 0:
            raise UserError(
                f"{axis.argument}: {key}=0 would change the form of the network or of its state\n"
                "  expected values > 0, such as interval(0.01,0.5)"
            )


def listed_values(axis: Axis) -> list[float]:
    """The values of an axis without an interval, in increasing order. Raises ValueError unless all are numbers."""
    return sorted(map(number_in, axis.rows))


def number_in(row: list[str]) -> float:
    """The number in the override of a value. Raises ValueError if it is none."""
    value = json.loads(row[0].partition("=")[2])
    if type(value) not in (int, float):
        raise ValueError(f"{row[0]}: no number")
    return value


def bounds(axis: Axis) -> tuple[float, float]:
    """The lowest and the highest value. Raises ValueError unless all are numbers."""
    if axis.interval:
        return axis.interval[:2]
    values = listed_values(axis)
    return values[0], values[-1]


def drawn(axis: Axis, random: Random) -> float:
    """A value of an axis: uniform, or uniform in its logarithm."""
    if axis.interval is None:
        return random.choice(listed_values(axis))
    low, high, is_log, is_int = axis.interval
    if is_int:  # each integer has a share of its own
        low, high = low - 0.5 + 1e-9, high + 0.5 - 1e-9
    value = exp(random.uniform(log(low), log(high))) if is_log else random.uniform(low, high)
    return within(axis, value)


def within(axis: Axis, value: float) -> float:
    """The nearest value of an interval, with six digits, as searches write them."""
    low, high = bounds(axis)
    is_int = axis.interval is not None and axis.interval[3]
    return min(max(round(value) if is_int else float(f"{value:.6g}"), low), high)


def explored(axis: Axis, value: float, settings: Population, random: Random) -> float:
    """A value for a member that continues from another one, which has `value`."""
    if random.random() < settings.resample:
        return drawn(axis, random)
    if axis.interval:
        return within(axis, value * random.choice(settings.factors))
    values = listed_values(axis)
    at = values.index(value) + random.choice((-1, 1))
    return values[min(max(at, 0), len(values) - 1)]


def first_values(settings: Population, axes: list[Axis], member: int) -> dict[str, float]:
    """A member's hyper-parameters at its start."""
    return {axis.name: drawn(axis, Random(f"{settings.seed}/{axis.name}/{member}")) for axis in varied(axes)}


def points(settings: Population, axes: list[Axis]) -> list[list[str]]:
    """The overrides of each member."""
    rows = []
    for member in range(settings.population):
        values, point = first_values(settings, axes, member), list[str]()
        for axis in axes:
            if axis.interval:
                point.append(f"{axis.keys[0]}={values[axis.name]}")
            elif axis.name in values:
                point += next(row for row in axis.rows if number_in(row) == values[axis.name])
            else:
                point += axis.rows[member if axis.name == "seed" else 0]
        rows.append(point)
    return rows


def successors(
    settings: Population,
    axes: list[Axis],
    epoch: int,
    scores: Mapping[int, float],
    values: Mapping[int, dict[str, float]],
) -> list[Successor]:
    """Choose the members that continue from other members after an epoch.

    scores, values: the score (higher is better) and the hyper-parameters of each member.
    """
    if epoch % settings.ready_epochs or len(scores) < 2:
        return []
    ranked = best_first(scores)
    count = max(1, int(settings.quantile * len(ranked)))
    chosen = []
    for member in sorted(ranked[-count:]):
        random = Random(f"{settings.seed}/{epoch}/{member}")
        source = random.choice(ranked[:count])
        changed = {axis.name: explored(axis, values[source][axis.name], settings, random) for axis in varied(axes)}
        chosen.append(Successor(member, source, changed))
    return chosen
