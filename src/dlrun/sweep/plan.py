"""The source of the jobs of a sweep."""

from pathlib import Path

from dlrun.sweep.job import Job
from dlrun.sweep.state import State


class Plan:
    """The source of jobs. A grid has all of them from the start, so these do nothing; a search overrides them."""

    def open(self, state: State) -> None:
        """Prepare for the first job."""

    def more(self, state: State) -> Job | None:
        """Return the next job that is not in the state yet, or None."""

    def is_hopeless(self, job: Job, folder: Path) -> bool:
        """Whether to stop a running job early."""
        return False

    def tell(self, job: Job, folder: Path) -> None:
        """Take note of the outcome of a job."""

    def catch_up(self, state: State) -> None:
        """Take note of the jobs that were recovered from a dead process."""
