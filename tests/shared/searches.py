"""Axes and settings of searches."""

import yaml

from dlrun.config.pairing import CONFIGS
from dlrun.sweep.axes import Axis
from dlrun.sweep.settings import Search

LOG = Axis(["lr"], [], (1e-4, 1e-1, True, False), "lr=tag(log,interval(1e-4,1e-1))")
LINE = Axis(["p"], [], (0.0, 0.5, False, False), "p=interval(0,0.5)")


def settings(**keys: object) -> Search:
    """The settings of a search: those of sweep=grid and sweep=optuna, with changes."""
    found = {}
    for name in ("grid", "optuna"):
        found |= yaml.safe_load((CONFIGS / "sweep" / f"{name}.yaml").read_text())
    return Search(**{k: v for k, v in (found | keys).items() if k not in ("_target_", "defaults")})
