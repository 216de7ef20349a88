"""The signals that ask a run to save a checkpoint and stop.

SIGINT and SIGTERM; SIGHUP, sent when a terminal closes; SIGUSR1 and SIGUSR2, with which SLURM announces a time limit or
a preemption.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it imports torch, and sweeps use this module without
    from dlrun.system.distributed import Distributed

HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
WARNING = tuple(getattr(signal, name) for name in ("SIGHUP", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
STOPPING = (signal.SIGINT, signal.SIGTERM, *WARNING)
ONE_REQUEST = 0.5  # seconds: a signal to all processes of a job also comes from the parent that passes it on


def stopping() -> list[int]:
    """The signals that stop a run: without SIGHUP if nohup ignores it."""
    return [n for n in STOPPING if n != HANGUP or signal.getsignal(n) != signal.SIG_IGN]


def of_guest() -> list[int]:
    """The signals that stop a run in another program: Ctrl-C, where Python's own handler would raise KeyboardInterrupt.

    None in a thread, which cannot handle signals.
    """
    is_main = threading.current_thread() is threading.main_thread()
    return [signal.SIGINT] if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler else []


class Interrupted(BaseException):
    """A signal arrived during work that may stop at once. A BaseException, so that no library catches it."""


class Requests:
    """The signals received so far. first: number of the first one, or None."""

    def __init__(self) -> None:
        self.first: int | None = None
        self.since: float | None = None  # the time of the first SIGINT or SIGTERM

    def insist(self, number: int) -> bool:
        """Record a signal; return whether it asks to stop at once.

        Only a SIGINT or SIGTERM that follows another does: a warning may come twice, and SIGTERM after it, at the time
        limit that it announced.
        """
        now, self.first = time.monotonic(), self.first or number
        if number in WARNING:
            return False
        self.since = self.since or now
        return now - self.since > ONE_REQUEST


class Signals:
    """Handles the signals within its context: the first stops after the current step, a second one at once.

    dist: the processes that stop together, after the same step (see `agree`). is_guest: whether the process belongs to
    another program: then the second signal raises KeyboardInterrupt, as without dl-run.
    """

    def __init__(self, dist: "Distributed | None" = None, is_guest: bool = False) -> None:
        self.is_guest = is_guest
        self.is_shared = dist is not None and dist.size > 1
        self.requests = Requests()
        self.agreed: int | None = None
        self.at_once = False

    @property
    def stop(self) -> int | None:
        """Number of the signal to stop for, or None."""
        return self.agreed if self.is_shared else self.requests.first

    def agree(self, dist: "Distributed") -> None:
        """Make a signal that one process received known to all. All processes must call this at the same time."""
        self.agreed = int(dist.all_reduce_max(self.requests.first or 0)) or None

    def __enter__(self) -> "Signals":
        self.before = {n: signal.signal(n, self._receive) for n in (of_guest() if self.is_guest else stopping())}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: object) -> None:
        if self.requests.insist(number):
            if self.is_guest:
                raise KeyboardInterrupt
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
