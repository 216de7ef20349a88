"""A job of a sweep: what sweep.json says of it."""

from dataclasses import dataclass, field

OPEN = ("waiting", "running", "stopped")  # to be run or resumed
DONE = ("finished", "pruned")  # any other status is a failure


@dataclass
class Job:
    """One point of the sweep.

    code: the exit code of its process. values: its goals and test metrics. worker: the process that runs it
    (workers.py). pid, born: the job's process there and its start time. attempt: the job's name on a cluster. trial:
    its number in Optuna's study. stack: the first of the jobs that train together with it (stacks.py).
    """

    number: int
    overrides: list[str]
    status: str = "waiting"
    code: int | None = None
    seconds: float | None = None
    values: dict[str, float | None] = field(default_factory=dict)
    error: str | None = None
    worker: str | None = None
    pid: int | None = None
    born: str | None = None
    attempt: str | None = None
    trial: int | None = None
    stack: int | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the job ended without a result."""
        return self.status not in OPEN + DONE
