"""Weights from elsewhere, for a new run to start from."""

from pathlib import Path

import torch

from dlrun.checkpoint import load
from dlrun.errors import CheckpointError


def load_weights(net: torch.nn.Module, source: str) -> None:
    """Start from the weights of a checkpoint, or of a run's best. Raises CheckpointError where they do not fit."""
    path = Path(source)
    if path.is_dir():
        path = next(
            (p for n in ("best", "last") if (p := path / "checkpoints" / f"{n}.ckpt").exists()),
            path / "checkpoints" / "best.ckpt",
        )
    try:
        theirs, mine = load(path).get("state_dict"), net.state_dict()
    except CheckpointError as error:
        raise CheckpointError(
            f"init={source}: {error}\n  expected a run's folder, or a checkpoint in it: init=<run folder>"
        ) from None
    if not isinstance(theirs, dict) or not all(isinstance(value, torch.Tensor) for value in theirs.values()):
        raise CheckpointError(f"init={source}: {path} holds no weights\n  expected a checkpoint that a run wrote")
    wrong = [
        f"{k}: expected {tuple(v.shape)}, found {tuple(theirs[k].shape) if k in theirs else 'nothing'}"
        for k, v in mine.items()
        if k not in theirs or theirs[k].shape != v.shape
    ]
    wrong += [f"{k}: not in this model" for k in theirs.keys() - mine.keys()]
    if wrong:
        more = f"\n  and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise CheckpointError(f"init={source}: the weights are another model's\n  " + "\n  ".join(wrong[:5]) + more)
    net.load_state_dict(theirs)
