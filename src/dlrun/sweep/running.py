"""A process of a sweep that runs a job, or several jobs as one network."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from dlrun.errors import counted
from dlrun.sweep import process
from dlrun.sweep.job import Job

KILLED = -9  # the exit code after SIGKILL

if TYPE_CHECKING:
    from dlrun.sweep.cluster import Submitted
    from dlrun.sweep.forks import Forked

    Child = process.SessionLeader | Forked | Submitted


@dataclass
class Running:
    """A running job, or several that train together.

    job: the first of `jobs`. asked: the reason why it was asked to end ("timeout", "pruned", "stopped"). deadline: when
    to kill it. is_known: whether a stack's verdict was printed. memory_kills: see process.memory_kills.
    """

    jobs: list[Job]
    slot: int
    child: "Child"
    log_start: int
    has_begun: bool = False  # on a cluster it may wait first
    started: float = field(default_factory=time.monotonic)
    asked: str | None = None
    deadline: float = float("inf")
    is_known: bool = False
    memory_kills: int | None = field(default_factory=lambda: process.memory_kills())

    @property
    def job(self) -> Job:
        return self.jobs[0]

    def ran_out_of_memory(self, code: int) -> bool | None:
        """Whether the kernel ended the process for lack of memory; None if that is unknown."""
        if code != KILLED:
            return False
        now = process.memory_kills()
        return None if now is None or self.memory_kills is None else now > self.memory_kills

    @property
    def numbers(self) -> str:
        """The numbers of the jobs, in words: "2 jobs (0 and 4)", "5 jobs (0 and 3 to 6)"."""
        return f"{counted(len(self.jobs), 'job')} ({spoken([job.number for job in self.jobs])})"


def spoken(numbers: Sequence[int], first: int = 0, to: str = " to ") -> str:
    """Join increasing numbers, three or more in a row as a range: "0, 1 and 3 to 6". first: the number shown for 0."""
    parts: list[str] = []
    for _, row in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        words = [str(number + first) for _, number in row]
        parts += [f"{words[0]}{to}{words[-1]}"] if len(words) > 2 else words
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
