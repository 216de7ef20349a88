"""Points of a search's space: check the space, and write the study's values as overrides."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING

from dlrun.errors import UserError
from dlrun.sweep.axes import Axis
from dlrun.sweep.settings import Search

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import (
        CategoricalChoiceType,
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    Distribution = CategoricalDistribution | FloatDistribution | IntDistribution


def check(settings: Search, swept: list[Axis]) -> None:
    """Raise UserError if the settings contradict each other or do not fit the space."""
    if not swept:
        raise UserError(
            "sweep=optuna: the space is empty\n"
            "  expected at least one parameter, such as 'optimizer.lr=tag(log,interval(1e-4,1e-1))', or sweep.space"
        )
    names = [settings.goal] if isinstance(settings.goal, str) else settings.goal or [""]
    modes = settings.direction if isinstance(settings.direction, list) else [settings.direction] * len(names)
    if settings.goal == [] or len(set(names)) < len(names):
        raise UserError(f"sweep.goal={json.dumps(names)}: expected one metric, or several different ones")
    if len(modes) != len(names) or isinstance(settings.direction, str) and len(names) > 1:
        each = ",".join(["max", *["min"] * (len(names) - 1)])
        raise UserError(
            f"sweep.direction={json.dumps(settings.direction)}: there {'are' if len(names) > 1 else 'is'} {len(names)} "
            f"goal{'s' * (len(names) > 1)}\n  expected one for each, such as sweep.direction=[{each}], or null to use "
            "the directions that the jobs report"
        )
    if tested := [name for name in names if name.startswith("test/")]:
        raise UserError(
            f"sweep.goal={tested[0]}: the test split must not be used for selection\n  expected a metric of val"
        )
    if len(names) > 1 and (settings.pruner != "none" or settings.sampler == "cmaes"):
        setting = f"sweep.pruner={settings.pruner}" if settings.pruner != "none" else "sweep.sampler=cmaes"
        raise UserError(f"{setting} works with one goal, but there are {len(names)}\n  expected one sweep.goal")
    kinds = {"cmaes": ("numbers, such as interval(0.1,0.9)", True), "grid": ("values, such as choice(1,2)", False)}
    if settings.sampler in kinds:
        words, is_interval = kinds[settings.sampler]
        for axis in swept:
            if (axis.interval is not None) != is_interval:
                raise UserError(f"{axis.argument}: sweep.sampler={settings.sampler} takes {words}")
    if settings.sampler == "cmaes" and len(swept) < 2:
        raise UserError(
            "sweep.sampler=cmaes works with two parameters or more\n  expected another, or sweep.sampler=tpe"
        )


def labels(axis: Axis) -> list[str]:
    """Return the values of an axis as they are stored in the study."""
    return [row[0].partition("=")[2] if len(row) == 1 else " ".join(row) for row in axis.rows]


def chosen(axis: Axis, values: Mapping[str, object]) -> list[str]:
    """Return the overrides of an axis at a point. Numbers have six digits, enough for a search and easy to read."""
    if axis.interval:
        value = values[axis.name]
        return [f"{axis.keys[0]}={value if isinstance(value, int) else format(value, '.6g')}"]
    return axis.rows[labels(axis).index(str(values[axis.name])) if axis.is_swept else 0]


def suggest(trial: "optuna.Trial", name: str, kind: "Distribution") -> "CategoricalChoiceType":
    """Ask Optuna for a parameter's value, drawn from a distribution."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(kind, CategoricalDistribution):
        return trial.suggest_categorical(name, kind.choices)
    if isinstance(kind, IntDistribution):
        return trial.suggest_int(name, kind.low, kind.high, log=kind.log)
    return trial.suggest_float(name, kind.low, kind.high, log=kind.log)
