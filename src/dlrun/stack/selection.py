"""Selection between the epochs of a stack: some jobs stop, or continue from the weights of other jobs.

A decision is a function of the sweep's seed, the epoch and the jobs' metrics so far, so that a stack that was killed
decides again what it had decided.
"""

from collections.abc import Callable, Sequence
from math import nan
from typing import TYPE_CHECKING, NamedTuple

from dlrun.errors import UserError, nearest
from dlrun.stack.functions import NotStackable
from dlrun.sweep.axes import Axis
from dlrun.sweep.halving import to_stop
from dlrun.sweep.population import Successor, successors
from dlrun.sweep.settings import Population, Search, Settings

if TYPE_CHECKING:
    from dlrun.stack.stacked_job import StackedJob


class Selected(NamedTuple):
    """The numbers of the jobs that stop, and the members of a population that continue from others."""

    to_stop: list[int] = []
    successors: list[Successor] = []


Selection = Callable[[Sequence["StackedJob"]], Selected]


def selection_of(settings: Settings, axes: list[Axis], first: "StackedJob") -> Selection | None:
    """The selection of a sweep with these settings, None if it has none. first: a job, which knows the metrics.

    Raises NotStackable if there is no goal by which jobs could be compared, UserError if sweep.goal is not measured.
    """
    if isinstance(settings, Population):
        return Exchange(settings, axes, *goal_of(first, None, None))
    if isinstance(settings, Search) and settings.pruner == "asha":
        goal, direction = (each[0] if isinstance(each, list) else each for each in (settings.goal, settings.direction))
        return Halving(settings, *goal_of(first, goal, direction))
    return None


def goal_of(first: "StackedJob", goal: str | None, direction: str | None) -> tuple[str, int]:
    """The metric by which jobs are compared, and 1 if higher is better, else -1."""
    best, scores = first.training.best, {f"val/{name}": mode for name, mode in first.session.task.scores.items()}
    if goal is None and best is None:
        raise NotStackable(
            "this task has no goal by which jobs could be compared: expected a val metric as trainer.monitor"
        )
    name = goal or f"val/{best.metric if best else ''}"
    mode = direction or scores.get(name)
    if mode is None:
        raise UserError(f"sweep.goal={name} is not measured here{nearest(name, scores)}")
    return name, 1 if mode == "max" else -1


def last_scores(jobs: Sequence["StackedJob"], name: str, sign: int) -> dict[int, float]:
    """The newest value of each job's goal, such that higher is better; NaN if there is none."""
    rows = {job.number: reversed(job.training.run.rows) for job in jobs}
    return {number: sign * next((row[name] for row in each if name in row), nan) for number, each in rows.items()}


class Halving:
    """Stops the worst jobs of a search (sweep/halving.py)."""

    def __init__(self, settings: Search, goal: str, sign: int) -> None:
        self.settings, self.goal = settings, (goal, sign)

    def __call__(self, jobs: Sequence["StackedJob"]) -> Selected:
        scores = last_scores(jobs, *self.goal)
        return Selected(to_stop=to_stop(self.settings, jobs[0].training.clock.epoch, scores))


class Exchange:
    """Replaces the worst members of a population by variations of the best (sweep/population.py)."""

    def __init__(self, settings: Population, axes: list[Axis], goal: str, sign: int) -> None:
        self.settings, self.axes, self.goal = settings, axes, (goal, sign)

    def __call__(self, jobs: Sequence["StackedJob"]) -> Selected:
        scores, values = last_scores(jobs, *self.goal), {job.number: job.values for job in jobs}
        epoch = jobs[0].training.clock.epoch
        return Selected(successors=successors(self.settings, self.axes, epoch, scores, values))
