"""dl-run: run deep-learning experiments, composed from YAML, with bit-exact resuming.

From Python: `dlrun.train("model=lenet", "data=mnist")`; see docs/python.md. Importing this imports nothing heavy.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlrun.api import Run, Sweep, allow, load, resume, runs, sweep, train
    from dlrun.errors import UserError

__version__ = "0.1.0"
__all__ = ["Run", "Sweep", "UserError", "allow", "load", "resume", "runs", "sweep", "train"]


def __getattr__(name: str) -> Any:
    if name in ("runs", "sweep", "train"):  # packages that can be called, see call.py
        return import_module(f"dlrun.{name}")
    if name not in __all__:
        raise AttributeError(f"module 'dlrun' has no attribute {name!r}")
    return getattr(import_module("dlrun.errors" if name == "UserError" else "dlrun.api"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
