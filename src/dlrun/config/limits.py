"""Decide whether a finished run has anything left to do under the limits that it is resumed with."""

from pathlib import Path

from dlrun.errors import UserError
from dlrun.overrides import pasteable


def reached(trainer: dict, before: object, done: dict) -> str | None:
    """Return the limit that leaves a finished run nothing to do, or None.

    The limit that stopped the run is checked first. Epochs count only if they stopped it: an epoch that another limit
    cut short can continue. before: the limits of the earlier session; done: the run's summary.
    """
    by = done.get("stopped_by")
    stopper = by if by in ("max_steps", "max_time", "patience", "stop_at") else "epochs"
    reached = {
        "epochs": number(done, "epochs") if stopper == "epochs" else 0,
        "max_steps": number(done, "steps"),
        "max_time": number(done, "seconds") / 60,
        "patience": number(done, "waited"),
    }
    if isinstance(before, dict) and stopper in reached:
        reached[stopper] = max(reached[stopper], number(before, stopper))
    limits = {name: trainer[name] is not None and trainer[name] <= most for name, most in reached.items()}
    limits["stop_at"] = by not in ("max_steps", "max_time") and _is_as_good(done, trainer["stop_at"])
    return next((name for name in sorted(limits, key=lambda name: name != stopper) if limits[name]), None)


def _is_as_good(done: dict, score: float | None) -> bool:
    """Whether the run's best epoch reaches this score. Same as Best.reaches, which would import torch."""
    best = done.get("best")
    if score is None or not isinstance(best, dict) or "value" not in best:
        return False
    value = number(best, "value")
    return value <= score if _is_least(done) else value >= score


def _is_least(done: dict) -> bool:
    """Whether lower is better for the metric that chooses the run's best epoch."""
    scores = done.get("scores")
    return isinstance(scores, dict) and scores.get(str(done.get("goal"))) == "min"


def number(of: dict, key: str) -> float:
    """Return the value of a key, or 0 if it is no number: files in a folder may have been edited."""
    value = of.get(key)
    return value if isinstance(value, int | float) else 0


def nothing_to_do(folder: Path, done: dict, limit: str) -> UserError:
    """Return the error for a finished run that reached this limit."""
    epochs = done.get("epochs", "?")
    kind, more = ("lower", "less") if limit == "stop_at" and _is_least(done) else ("higher", "more")
    return UserError(
        f"resume={folder}: the run in {folder} is finished, with {epochs} epoch{'' if epochs == 1 else 's'}\n"
        f"  it has reached trainer.{limit}\n"
        f"  expected a run that was stopped, or a {kind} limit:\n"
        f"  dl-run {pasteable('resume', folder)} trainer.{limit}=<{more}>"
    )
