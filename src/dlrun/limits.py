"""Whether a finished run has anything left to do under the limits that it is resumed with."""

from pathlib import Path

from dlrun.errors import UserError


def reached(trainer: dict, before: object, done: dict) -> str | None:
    """The limit that leaves a finished run nothing to do, if one does: the one that stopped it, as long as that was not
    raised, comes first. Epochs that a limit cut short go on, so they do not count."""
    by = done.get("stopped_by")
    if by == "stop_at" and isinstance(before, dict) and trainer["stop_at"] == before.get("stop_at"):
        return by
    stopper = by if by in ("max_steps", "max_time", "patience", "stop_at") else "epochs"
    reached = {
        "epochs": number(done, "epochs") if stopper == "epochs" else 0,
        "max_steps": number(done, "steps"),
        "max_time": number(done, "seconds") / 60,
        "patience": number(done, "waited"),
    }
    if isinstance(before, dict) and stopper in reached:
        reached[stopper] = max(reached[stopper], number(before, stopper))
    limits = sorted(reached, key=lambda name: name != stopper)
    return next((name for name in limits if trainer[name] is not None and trainer[name] <= reached[name]), None)


def number(of: dict, key: str) -> float:
    """0 where it is missing: what is read from a folder may have been edited."""
    value = of.get(key)
    return value if isinstance(value, int | float) else 0


def nothing_to_do(folder: Path, done: dict, limit: str) -> UserError:
    epochs = done.get("epochs", "?")
    return UserError(
        f"resume={folder}: the run in {folder} is finished, with {epochs} epoch{'' if epochs == 1 else 's'}\n"
        f"  trainer.{limit} is reached\n"
        f"  expected one that was stopped, or a higher limit: dl-run resume={folder} trainer.{limit}=<more>"
    )
