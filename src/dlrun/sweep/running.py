"""A process of a sweep that runs a job, or several jobs as one network."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dlrun.errors import counted
from dlrun.sweep import process
from dlrun.sweep.state import Job

if TYPE_CHECKING:
    from dlrun.sweep.cluster import Submitted
    from dlrun.sweep.forks import Forked

    Child = process.SessionLeader | Forked | Submitted


@dataclass
class Running:
    """A running job, or several that train together.

    job: the first of `jobs`. asked: the reason why it was asked to end ("timeout", "pruned", "stopped"). deadline: when
    to kill it. is_known: whether a stack's verdict was printed.
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

    @property
    def job(self) -> Job:
        return self.jobs[0]

    @property
    def numbers(self) -> str:
        """The numbers of the jobs, in words."""
        return f"{counted(len(self.jobs), 'job')} ({self.jobs[0].number} to {self.jobs[-1].number})"
