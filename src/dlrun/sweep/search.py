"""A search with Optuna, which chooses points and receives their outcomes (ask and tell).

With one job at a time, a point is a function of the history, sweep.seed and its number: the sampler is seeded anew for
each point, so a resumed search asks for the same points as an uninterrupted one. Optuna's study is kept in a journal in
the sweep's folder, or in a database, which other machines can join. If the direction is only known from the jobs and
lower is better, the study maximises the negated value.
"""

from dataclasses import replace
from functools import partial
from itertools import islice
from math import isfinite, prod
from pathlib import Path
from typing import TYPE_CHECKING, cast

from dlrun.errors import UserError
from dlrun.output.rows import epoch_rows
from dlrun.sweep import stacks
from dlrun.sweep.axes import Axis
from dlrun.sweep.goals import goals
from dlrun.sweep.job import OPEN, Job
from dlrun.sweep.outcomes import record
from dlrun.sweep.plan import Plan
from dlrun.sweep.points import check, chosen, labels, suggest
from dlrun.sweep.rows import is_number, last_row
from dlrun.sweep.samplers import at_a_time, pruner, sampler
from dlrun.sweep.settings import Search
from dlrun.sweep.state import State
from dlrun.sweep.study import PUBLISHED, database, journal, load_optuna, reaching

if TYPE_CHECKING:
    import optuna

    from dlrun.sweep.points import Distribution


class Optuna(Plan):
    """Creates jobs from a study. epochs: of a complete job. stack: sweep.stack, for points that are chosen at a time.

    Raises UserError if the sampler cannot use the space.
    """

    def __init__(self, settings: Search, axes: list[Axis], epochs: int, stack: stacks.Setting = "off") -> None:
        self.optuna, self.axes, self.epochs = load_optuna(), axes, epochs
        self._reaching = partial(reaching, self.optuna, bool(settings.storage))
        self.stack: stacks.Setting = stack if settings.pruner in ("none", "asha") else "off"  # stack/selection.py
        self.swept = [axis for axis in axes if axis.is_swept]
        check(settings, self.swept)
        points = prod(len(axis.rows) for axis in self.swept)
        is_grid = settings.sampler == "grid"  # a grid has a finite number of points
        self.settings = replace(settings, trials=min(settings.trials, points)) if is_grid else settings
        self.space = {axis.name: self._distribution(axis) for axis in self.swept}
        self.database = database(self.optuna, settings.storage, "sweep.storage") if settings.storage else None
        self.trials: dict[int, optuna.Trial] = {}  # trials of running jobs, by the job's number
        self.seen: dict[int, tuple[int, int]] = {}  # size of each job's metrics.jsonl, and the last reported epoch

    def _distribution(self, axis: Axis) -> "Distribution":
        kinds = self.optuna.distributions
        if axis.interval:
            low, high, is_log, is_int = axis.interval
            return (kinds.IntDistribution if is_int else kinds.FloatDistribution)(low, high, log=is_log)
        return kinds.CategoricalDistribution(labels(axis))

    def open(self, state: State) -> None:
        """Find or create the study and bring it up to date with the state."""
        self.state = state
        goal, names = self.settings.goal, [name for name, _ in state.facts["goals"]]
        if len(names) > 1 if goal is None else names != ([goal] if isinstance(goal, str) else goal):
            raise UserError(
                f"{state.folder / 'sweep.json'} is damaged: its goals are {names}\n  expected those of sweep.goal"
            )
        is_resized = not self.settings.join and self.settings.trials != state.facts["total"]
        if is_resized:
            state.resize(self.settings.trials)
        with self._reaching():
            self.storage = self.database or journal(self.optuna, state)
            study = self.optuna.create_study(
                study_name=state.facts["study"],
                storage=self.storage,
                directions=["minimize" if mode == "min" else "maximize" for mode in self._directions()],
                load_if_exists=True,
            )
            if self.settings.storage:
                self._publish(study, is_resized)
            known = {trial.number for trial in study.get_trials(deepcopy=False)}
        if lost := [job.trial for job in state.jobs if job.trial not in known]:
            raise UserError(
                f"the search's history is not the sweep's: trial {lost[0]} is not in study {state.facts['study']!r}\n"
                f"  expected it in {self.settings.storage or state.folder / 'optuna.journal'}, unchanged"
            )
        self.catch_up(state)

    def catch_up(self, state: State) -> None:
        """Tell the study the outcomes of recovered jobs, and give each job that is repeated a new trial."""
        states = self.optuna.trial.TrialState
        with self._reaching():
            study = self._study()
            trials = study.get_trials(deepcopy=False)
        for job in state.jobs:
            trial, folder = trials[_trial_number(job)], state.run_folder(job)
            if trial.state == states.RUNNING:
                self.tell(job, folder)
            elif job.status in ("waiting", "stopped") and trial.state == states.PRUNED:  # killed before it was saved
                record(job, folder, 143, goals(state), "pruned")
            elif job.status in ("waiting", "stopped"):  # a trial's outcome in Optuna is final
                with self._reaching():
                    attributes = {"sweep": state.facts["id"], "job": job.number, "again": trial.number}
                    left = [t.number for t in trials if t.user_attrs == attributes]  # left by a kill
                    point = {"params": trial.params, "distributions": trial.distributions}
                    job.trial = left[0] if left else self._new_trial(study, attributes, **point).number

    def _publish(self, study: "optuna.Study", is_resized: bool) -> None:
        """Store the command in the study, so that others can join. Raises UserError if this process joins with other
        configs.

        The number of trials is the one that any machine set last.
        """
        names = ("started", "cwd", "command", "flags", "arguments", "configs", "total")
        facts = {name: self.state.facts[name] for name in names}
        theirs = study.user_attrs.get(PUBLISHED)
        if self.settings.join and theirs and any(facts[name] != theirs[name] for name in ("configs", "arguments")):
            raise UserError(
                f"sweep.join={self.settings.storage}: the configs here differ from those of the sweep's start\n"
                "  expected the same version of dl-run and of your own configs on all machines"
            )
        if theirs is None or is_resized:
            study.set_user_attr(PUBLISHED, facts)
        elif theirs["total"] != self.state.facts["total"]:
            self.state.resize(theirs["total"])

    def _study(self) -> "optuna.Study":
        """Load the study anew, since a Study object keeps the history that it has seen."""
        name = self.state.facts["study"]
        return self.optuna.load_study(study_name=name, storage=self.storage, pruner=pruner(self.settings, self.epochs))

    def _directions(self) -> list[str | None]:
        """Return "max", "min" or None (known only from the jobs) for each goal."""
        direction, goal = self.settings.direction, self.settings.goal
        number = len(goal) if isinstance(goal, list) else 1
        return list(direction) if isinstance(direction, list) else [direction] * number

    def more(self, state: State) -> Job | None:
        """Return the next point; with stacks, the first of those that are chosen at a time."""
        first = self._next(state)
        if first is not None and self.stack != "off":
            others = islice(iter(partial(self._next, state), None), at_a_time(self.settings, self.stack) - 1)
            stacks.plan([first, *others], self.stack, 1)
        return first

    def _next(self, state: State) -> Job | None:
        """Create the next point's job. A trial that a kill left without its job comes first."""
        number, mine = len(state.jobs), state.facts["id"]
        with self._reaching():
            self.study = self._study()
            trials = self.study.get_trials(deepcopy=False)
            taken = sum("again" not in trial.user_attrs for trial in trials)
            running, attributes = self.optuna.trial.TrialState.RUNNING, {"sweep": mine, "job": number}
            left = [t for t in trials if t.state == running and t.user_attrs == attributes]
            state.facts["elsewhere"] = taken - number - len(left)
            if not left and taken >= state.facts["total"]:
                return None
            frozen = left[0] if left else self._new_trial(self.study, attributes)
            self.study.sampler = sampler(self.settings, self.swept, frozen.number, self.stack != "off")
            trial = self.optuna.trial.Trial(self.study, frozen._trial_id)
            before = self.study.get_trials(deepcopy=False)[: trial.number]
            if sum("again" not in t.user_attrs for t in before) >= state.facts["total"]:  # another machine was faster
                self.study.tell(trial, state=self.optuna.trial.TrialState.FAIL)
                return None
            values = {name: suggest(trial, name, kind) for name, kind in self.space.items()}
        self.trials[number] = trial
        overrides = [o for axis in self.axes for o in chosen(axis, values)]
        job = Job(number, overrides, trial=trial.number)
        state.jobs.append(job)
        return job

    def _new_trial(
        self, study: "optuna.Study", attributes: dict[str, object], **point: object
    ) -> "optuna.trial.FrozenTrial":
        """Create a trial that names its job from the start, so that a kill leaves none without a job.

        point: `params` and `distributions` of a repeated trial.
        """
        running = self.optuna.trial.TrialState.RUNNING
        template = self.optuna.trial.create_trial(state=running, user_attrs=attributes, **point)
        return self.storage.get_trial(self.storage.create_new_trial(study._study_id, template))

    def is_hopeless(self, job: Job, folder: Path) -> bool:
        """Report new epochs and ask the pruner, except after the last epoch, when the job ends anyway."""
        if self.settings.pruner == "none":
            return False
        size, epoch = self.seen.get(job.number, (-1, 0))
        try:
            now = (folder / "metrics.jsonl").stat().st_size
        except OSError:
            return False
        if now == size or not (wanted := goals(self.state)):
            return False
        trial, (name, _) = self._trial(job), wanted[0]
        with self._reaching():
            done = self._study().get_trials(deepcopy=False)[_trial_number(job)].intermediate_values if size < 0 else {}
            last = max([epoch, *done])
            for row in epoch_rows(folder):
                if last < row["epoch"] < self.epochs and is_number(row.get(name)):
                    last = row["epoch"]
                    trial.report(self._signed([row[name]])[0], last)
                    if trial.should_prune():  # asked every epoch, because ASHA records values at its rungs
                        return True
            self.seen[job.number] = now, last
        return False

    def _report_last(self, job: Job, folder: Path) -> None:
        """Report the last epoch of a job that its stack gave up: samplers learn from it."""
        name, row = goals(self.state)[0][0], last_row(folder)
        if is_number(row.get(name)):
            with self._reaching():
                self._trial(job).report(self._signed([row[name]])[0], row["epoch"])

    def _trial(self, job: Job) -> "optuna.Trial":
        """Return the trial that a job reports to, created anew for a resumed job."""
        if job.number not in self.trials:
            study = self._study()
            frozen = study.get_trials(deepcopy=False)[_trial_number(job)]
            self.trials[job.number] = self.optuna.trial.Trial(study, frozen._trial_id)
        return self.trials[job.number]

    def _signed(self, values: list[float]) -> list[float]:
        """Return the values for the study: negated if it maximises and the jobs report that lower is better."""
        goals_with_directions = zip(values, self._directions(), goals(self.state), strict=True)
        return [
            -value if direction is None and mode == "min" else value
            for value, direction, (_, mode) in goals_with_directions
        ]

    def tell(self, job: Job, folder: Path) -> None:
        """Tell the study the outcome of a job."""
        if job.status in OPEN:
            return
        states = self.optuna.trial.TrialState
        wanted = goals(self.state)
        values = [value for name, _ in wanted if (value := job.values.get(name)) is not None and isfinite(value)]
        is_complete = job.status == "finished" and wanted and len(values) == len(wanted)
        if job.stack is not None and job.status == "pruned":
            self._report_last(job, folder)
        state = states.COMPLETE if is_complete else states.PRUNED if job.status == "pruned" else states.FAIL
        with self._reaching():
            study = self._study()  # without the grid sampler, which would stop an optimize() loop
            values_or_none = self._signed(values) if is_complete else None
            study.tell(_trial_number(job), values_or_none, state=state, skip_if_finished=True)
        self.trials.pop(job.number, None)


def _trial_number(job: Job) -> int:
    """Return the number of a job's trial, which each job of a search has."""
    return cast(int, job.trial)
