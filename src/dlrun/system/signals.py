"""The signals that ask a run to save and stop: SIGINT and SIGTERM, SIGHUP from a terminal that is closed, and SIGUSR1
and SIGUSR2, by which SLURM warns of a limit or a preemption.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
WARNING = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
ASKING = (signal.SIGINT, signal.SIGTERM, *WARNING)


def asking() -> list[int]:
    """The signals to stop by: without SIGHUP where nohup has it ignored."""
    return [n for n in ASKING if n != HANGUP or signal.getsignal(n) != signal.SIG_IGN]


class Interrupted(BaseException):
    """A signal came where it may stop the work at once. Not an Exception: no library is to swallow it."""


class Signals:
    """Signals asked for a stop: the first lets the step end, the second stops at once.

    world: the processes that stop together (a Distributed). Of several, each goes by what they agreed on after a step.
    """

    def __init__(self, world: object | None = None) -> None:
        self.is_shared = world is not None and world.size > 1
        self.received: int | None = None
        self.agreed: int | None = None
        self.at_once = False

    @property
    def stop(self) -> int | None:
        """The signal to stop by."""
        return self.agreed if self.is_shared else self.received

    def agree(self, world: object) -> None:
        """What one process received, all did. To be called by all at the same time."""
        (number,) = world.all_reduce_max(self.received or 0)
        self.agreed = number or None

    def __enter__(self) -> "Signals":
        self.before = {n: signal.signal(n, self._note) for n in asking()}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received is None:
            self.received = number
        elif number not in WARNING:  # a terminal and its shell, or SLURM and a script, both say it
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self.at_once:
            raise Interrupted

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Where nothing changes, a signal need not wait: it raises Interrupted (but one of several processes waits)."""
        self.at_once = not self.is_shared
        try:
            if self.stop is not None:
                raise Interrupted
            yield
        finally:
            self.at_once = False
