"""Choose the epochs whose weights a run keeps besides the best: `trainer.keep=best3`, `trainer.keep_every=10`.

The epochs are a function of the logged rows and the settings, so a resumed run keeps the same ones.
"""

from math import isfinite, nan

from dlrun.train.best import Best
from dlrun.train.trainer import Trainer


def kept_epochs(rows: list[dict[str, float]], best: Best | None, trainer: Trainer) -> set[int]:
    """Return the epochs to keep, after the last of these rows of epochs.

    Of equal scores, the lower val loss is better, then the earlier epoch. Without a goal only keep_every counts.
    """
    if not trainer.keep and not trainer.keep_every:
        return set()
    done = [int(row["epoch"]) for row in rows]
    every = {epoch for epoch in done if trainer.keep_every and epoch % trainer.keep_every == 0}
    if not trainer.keep or not best:
        return every
    scored = []
    for row in rows:
        score, loss = (row.get(f"val/{name}", nan) for name in (best.metric, "loss"))
        if isfinite(score):
            scored.append((-best.sign * score, loss if isfinite(loss) else 0.0, int(row["epoch"])))
    return every | {epoch for _, _, epoch in sorted(scored)[: int(trainer.keep.removeprefix("best"))]}
