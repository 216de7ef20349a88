"""SIGINT and SIGTERM ask a run to stop."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """A signal came where it may stop the work at once. Not an Exception: no library is to swallow it."""


class Signals:
    """SIGINT and SIGTERM asked for a stop: the first lets the step end, the second stops at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self.at_once = False

    def __enter__(self) -> "Signals":
        self.before = {n: signal.signal(n, self._note) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if self.received is not None:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.received = number
        if self.at_once:
            raise Interrupted

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Where nothing changes, a signal need not wait: it raises Interrupted."""
        self.at_once = True
        try:
            if self.received is not None:
                raise Interrupted
            yield
        finally:
            self.at_once = False
