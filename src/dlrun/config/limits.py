"""Whether a finished run has anything left to do under the limits that it is resumed with."""

from pathlib import Path

from dlrun.errors import UserError
from dlrun.overrides import pasteable


def reached(trainer: dict, before: object, done: dict) -> str | None:
    """The limit that leaves a finished run nothing to do, if one does: the one that stopped it, as long as that was not
    raised, comes first. Epochs that a limit cut short go on, so they do not count."""
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
    """Whether the run's best epoch is as good as this score: what Best.reaches says, which would import torch."""
    best = done.get("best")
    if score is None or not isinstance(best, dict) or "value" not in best:
        return False
    value = number(best, "value")
    return value <= score if _is_least(done) else value >= score


def _is_least(done: dict) -> bool:
    """Whether less is better in what chooses the run's best epoch."""
    scores = done.get("scores")
    return isinstance(scores, dict) and scores.get(str(done.get("goal"))) == "min"


def number(of: dict, key: str) -> float:
    """0 where it is missing: what is read from a folder may have been edited."""
    value = of.get(key)
    return value if isinstance(value, int | float) else 0


def nothing_to_do(folder: Path, done: dict, limit: str) -> UserError:
    epochs = done.get("epochs", "?")
    kind, more = ("lower", "less") if limit == "stop_at" and _is_least(done) else ("higher", "more")
    return UserError(
        f"resume={folder}: the run in {folder} is finished, with {epochs} epoch{'' if epochs == 1 else 's'}\n"
        f"  trainer.{limit} is reached\n"
        f"  expected one that was stopped, or a {kind} limit:\n"
        f"  dl-run {pasteable('resume', folder)} trainer.{limit}=<{more}>"
    )
