"""The limits that end a run, for the engine and for the command line, which refuses a run with nothing left to do.

Imports no torch.
"""

from math import ceil
from pathlib import Path
from typing import TypeVar

from dlrun.errors import UserError
from dlrun.overrides import pasteable
from dlrun.train.best import Best
from dlrun.train.trainer import Trainer

Default = TypeVar("Default", int, None)
IN_EPOCH = ("max_steps", "max_time")  # the limits that can end a run in mid-epoch


def limits_reached(
    trainer: Trainer, steps: float, seconds: float, epochs: float | None = None, best: Best | None = None
) -> list[str]:
    """Names of the limits that a run has reached, the one that counts first.

    epochs: number of whole epochs; None in mid-epoch, where only IN_EPOCH counts. best: None if there is no goal.
    """
    limits = {
        "epochs": epochs is not None and epochs >= trainer.epochs,
        "patience": bool(epochs is not None and best and trainer.patience and best.waited >= trainer.patience),
        "stop_at": bool(epochs is not None and best and best.reaches(trainer.stop_at)),
        "max_steps": bool(trainer.max_steps and steps >= trainer.max_steps),
        "max_time": bool(trainer.max_time and seconds >= 60 * trainer.max_time),
    }
    return [name for name, is_reached in limits.items() if is_reached]


def rounded_up(seconds: float) -> float:
    """Seconds as a summary states them: a run that reached max_time has reached it by its summary, too."""
    return ceil(seconds * 1000) / 1000


def refuse_finished(folder: Path, trainer: Trainer, done: dict) -> None:
    """Raise UserError if a finished run has nothing left to do under the limits that it is resumed with.

    done: the run's summary. The limit that stopped the run is named first.
    """
    stopper = done.get("stopped_by")
    scores = done.get("scores")
    best = Best("", scores.get(str(done.get("goal")), "max") if isinstance(scores, dict) else "max", 0.0)
    best.score = number(done["best"], "value", None) if isinstance(done.get("best"), dict) else None
    best.waited = number(done, "waited", 0)
    # an epoch that a limit cut short is counted in the summary, and continues
    epochs = None if stopper in IN_EPOCH else number(done, "epochs", 0)
    reached = limits_reached(trainer, number(done, "steps", 0), number(done, "seconds", 0), epochs, best)
    if not reached:
        return
    limit = stopper if stopper in reached else reached[0]
    kind, more = ("lower", "less") if limit == "stop_at" and best.sign < 0 else ("higher", "more")
    num = done.get("epochs", "?")
    raise UserError(
        f"resume={folder}: the run in {folder} is finished, with {num} epoch{'' if num == 1 else 's'}\n"
        f"  it has reached trainer.{limit}\n"
        f"  expected a run that was stopped, or a {kind} limit:\n"
        f"  dl-run {pasteable('resume', folder)} trainer.{limit}=<{more}>"
    )


def number(of: dict, key: str, default: Default) -> float | Default:
    """The value of a key, or the default if it is no number: files in a folder may have been edited."""
    value = of.get(key)
    return value if isinstance(value, int | float) else default
