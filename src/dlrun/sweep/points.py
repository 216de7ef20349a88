"""Points of a search's space: whether there can be any, and how the study's values are written as overrides."""

import json

from dlrun.errors import UserError
from dlrun.sweep.axes import Axis
from dlrun.sweep.settings import Search


def check(settings: Search, swept: list[Axis]) -> None:
    """Raise UserError where the settings or the space do not go together."""
    if not swept:
        raise UserError(
            "sweep=optuna: the space is empty\n"
            "  expected one parameter at least, as in 'optimizer.lr=tag(log,interval(1e-4,1e-1))', or sweep.space"
        )
    names = [settings.goal] if isinstance(settings.goal, str) else settings.goal or [""]
    modes = settings.direction if isinstance(settings.direction, list) else [settings.direction] * len(names)
    if settings.goal == [] or len(set(names)) < len(names):
        raise UserError(f"sweep.goal={json.dumps(names)}: expected one metric, or several different ones")
    if len(modes) != len(names) or isinstance(settings.direction, str) and len(names) > 1:
        each = ",".join(["max", *["min"] * (len(names) - 1)])
        raise UserError(
            f"sweep.direction={json.dumps(settings.direction)}: there {'are' if len(names) > 1 else 'is'} {len(names)} "
            f"goal{'s' * (len(names) > 1)}\n  expected one for each, as in sweep.direction=[{each}], or null: as the "
            "jobs say"
        )
    if tested := [name for name in names if name.startswith("test/")]:
        raise UserError(
            f"sweep.goal={tested[0]}: the test part is no one's to choose by\n  expected a metric of the val part"
        )
    if len(names) > 1 and (settings.pruner != "none" or settings.sampler == "cmaes"):
        what = f"sweep.pruner={settings.pruner}" if settings.pruner != "none" else "sweep.sampler=cmaes"
        raise UserError(f"{what} works with one goal, and there are {len(names)}\n  expected one sweep.goal")
    kinds = {"cmaes": ("numbers, as in interval(0.1,0.9)", True), "grid": ("values, as in choice(1,2)", False)}
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
    """The values of an axis, as the study has them."""
    return [row[0].partition("=")[2] if len(row) == 1 else " ".join(row) for row in axis.rows]


def chosen(axis: Axis, values: dict[str, object]) -> list[str]:
    """The overrides of an axis at a point: six digits of a number are enough to search by, and to read."""
    if axis.interval:
        value = values[axis.name]
        return [f"{axis.keys[0]}={value if isinstance(value, int) else format(value, '.6g')}"]
    return axis.rows[labels(axis).index(values[axis.name]) if axis.is_swept else 0]


def suggest(trial: object, name: str, kind: object) -> object:
    if hasattr(kind, "choices"):
        return trial.suggest_categorical(name, kind.choices)
    ask = trial.suggest_int if type(kind).__name__ == "IntDistribution" else trial.suggest_float
    return ask(name, kind.low, kind.high, log=kind.log)
