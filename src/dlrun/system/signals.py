"""The signals that ask a run to save a checkpoint and stop.

SIGINT and SIGTERM; SIGHUP, sent when a terminal closes; SIGUSR1 and SIGUSR2, with which SLURM announces a time limit or
a preemption.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports torch, and sweeps use this module without
    from dlrun.system.distributed import Distributed

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
WARNING = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
STOPPING = (signal.SIGINT, signal.SIGTERM, *WARNING)


def stopping() -> list[int]:
    """The signals that stop a run: without SIGHUP if nohup ignores it."""
    return [n for n in STOPPING if n != HANGUP or signal.getsignal(n) != signal.SIG_IGN]


class Interrupted(BaseException):
    """A signal arrived during work that may stop at once. A BaseException, so that no library catches it."""


class Signals:
    """Handles the signals within its context: the first stops after the current step, the second kills at once.

    dist: the processes that stop together, after the same step (see `agree`).
    """

    def __init__(self, dist: "Distributed | None" = None) -> None:
        self.is_shared = dist is not None and dist.size > 1
        self.received: int | None = None
        self.agreed: int | None = None
        self.at_once = False

    @property
    def stop(self) -> int | None:
        """Number of the signal to stop for, or None."""
        return self.agreed if self.is_shared else self.received

    def agree(self, dist: "Distributed") -> None:
        """Make a signal that one process received known to all. All processes must call this at the same time."""
        self.agreed = int(dist.all_reduce_max(self.received or 0)) or None

    def __enter__(self) -> "Signals":
        self.before = {n: signal.signal(n, self._receive) for n in stopping()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received = number
        elif number not in WARNING:  # these may come twice: a terminal and its shell, SLURM and a script
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.at_once:
            raise Interrupted

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """A context for work that changes no state: a signal raises Interrupted at once.

        With several processes it does not interrupt, since they must stop together.
        """
        self.at_once = not self.is_shared
        try:
            if self.stop is not None:
                raise Interrupted
            yield
        finally:
            self.at_once = False
