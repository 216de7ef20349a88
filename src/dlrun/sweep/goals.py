"""The goals of a sweep, its settings with their seeds and folds, and the best of them."""

from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from dlrun.errors import UserError, nearest, some
from dlrun.overrides import key_of
from dlrun.sweep.job import DONE, Job
from dlrun.sweep.rows import measured
from dlrun.sweep.state import State

REPEATS = ("seed=", "data.fold=")  # settings whose values are repetitions of one experiment


def goals(state: State) -> list[tuple[str, str]]:
    """Return the metrics to optimise, each with "max" or "min": those of the settings, else those of the first job.

    Directions that only the jobs know are added to the state's facts. Empty until a job has reported them.
    """
    wanted = state.facts["goals"]
    if not wanted or any(mode is None for _, mode in wanted):
        measurements = (measured(state.run_folder(job)) for job in state.jobs)
        scores, goal = next(filter(None, measurements), (None, None))
        if scores is None:
            return []
        for pair in wanted:
            if pair[1] is None and pair[0] not in scores:
                raise UserError(
                    f"sweep.goal={pair[0]} is not measured here{nearest(pair[0], scores)}\n"
                    f"  expected one of: {', '.join(scores)}\n"
                    "  or another number of the epoch rows or the summary, with sweep.direction=min or max"
                )
            pair[1] = pair[1] or scores[pair[0]]
        state.facts["goals"] = wanted or ([[goal, scores[goal]]] if goal else [])
    return [(name, mode) for name, mode in state.facts["goals"]]


@dataclass
class Setting:
    """A point of the sweep without its seed and fold, and the jobs that repeat it, one for each of them.

    A repeated seed (of the same fold) counts once, since equal runs have no spread.
    """

    overrides: list[str]
    jobs: list[Job]

    @property
    def first(self) -> Job:
        """The job that stands for the setting: the first one, not the luckiest."""
        return self.jobs[0]

    def values(self, name: str) -> list[float | None]:
        """Return a metric of its finished or pruned jobs."""
        return [job.values.get(name) for job in self.jobs if job.status in DONE]

    def finished(self, name: str) -> list[float]:
        """Return a metric of the finished jobs that measured it."""
        values = [job.values.get(name) for job in self.jobs if job.status == "finished"]
        return [value for value in values if value is not None and isfinite(value)]

    def mean(self, name: str) -> float | None:
        """Return the mean of a metric over the finished jobs; None if there are none."""
        return fmean(values) if (values := self.finished(name)) else None


def repeated(jobs: list[Job]) -> tuple[str, str]:
    """What the jobs of a setting differ in, and what is counted of them, in words."""
    repeats = [[o for o in job.overrides if o.startswith(REPEATS)] for job in jobs]
    varied = {key_of(o) for own in repeats for o in own if not all(o in others for others in repeats)}
    if len(varied) > 1:
        return "folds and seeds", "runs"
    return ("folds", "folds") if varied == {"data.fold"} else ("seeds", "seeds")


def settings(jobs: list[Job]) -> list[Setting]:
    """Group the jobs by setting, in the order of the jobs."""
    groups: dict[str, dict[str, Job]] = {}
    for job in jobs:
        seed = " ".join(o for o in job.overrides if o.startswith(REPEATS))
        group = groups.setdefault(" ".join(o for o in job.overrides if not o.startswith(REPEATS)), {})
        if seed not in group or group[seed].status not in DONE:
            group[seed] = job
    return [
        Setting([o for o in next(iter(group.values())).overrides if not o.startswith(REPEATS)], list(group.values()))
        for group in groups.values()
    ]


def best_settings(jobs: list[Job], goals: list[tuple[str, str]]) -> list[Setting]:
    """Return the setting with the best mean over its seeds and folds, so that no single lucky job decides.

    With several goals: the Pareto front, the settings that no other beats in all. Only those settings are compared that
    have the most finished jobs. They have no other jobs: a refused or failed one is not part of what was measured.
    """
    ended = [job for job in jobs if job.status == "finished"]
    counts = [
        (setting, min((len(setting.finished(name)) for name, _ in goals), default=0)) for setting in settings(ended)
    ]
    most = max((count for _, count in counts), default=0)
    scored = [
        (setting, [fmean(setting.finished(name)) * (1 if mode == "max" else -1) for name, mode in goals])
        for setting, count in counts
        if most and count == most
    ]
    if len(goals) < 2:
        return [max(scored, key=lambda pair: (pair[1], -pair[0].first.number))[0]] if scored else []
    return [
        setting
        for setting, mine in scored
        if not any(all(o >= m for o, m in zip(s, mine, strict=True)) and s != mine for _, s in scored)
    ]


def numbered(setting: Setting) -> str:
    """Return "job 3", or "jobs 0, 1, 2" for a setting with several."""
    jobs = [str(job.number) for job in setting.jobs]
    return f"job{'s' if len(jobs) > 1 else ''} {some(jobs)}"


def command_words(state: State, setting: Setting) -> list[str]:
    """Return the words of the command that runs a setting by itself, in the folder in which the sweep was started.

    A setting with several jobs runs as a sweep of its seeds and folds, a member of a population as all of it.
    """
    if any(name.startswith("pbt/") for name in setting.first.values):
        return ["dl-run", "-m", *state.facts["command"], *state.facts["flags"]]
    repeats: dict[str, list[str]] = {}
    for override in (o for job in setting.jobs for o in job.overrides if o.startswith(REPEATS)):
        key, _, value = override.partition("=")
        repeats.setdefault(key, [])
        repeats[key] += [value] if value not in repeats[key] else []
    swept = [f"{key}={','.join(values)}" for key, values in repeats.items()]
    many = ["-m"] if len(setting.jobs) > 1 else []
    return ["dl-run", *many, *setting.overrides, *swept, *state.facts["flags"]]


def value_names(jobs: list[Job]) -> list[str]:
    """List the metrics that any job has."""
    return list(dict.fromkeys(name for job in jobs for name in job.values))


def over_seeds(jobs: list[Job], names: list[str]) -> list[dict]:
    """Return, for each setting that ran with several seeds or folds, its values by name and how many are finished."""
    return [
        {
            "setting": " ".join(setting.overrides),
            "values": {name: setting.values(name) for name in names},
            "seeds": sum(job.status == "finished" for job in setting.jobs),
            "jobs": [job.number for job in setting.jobs],
        }
        for setting in settings(jobs)
        if len(setting.jobs) > 1
    ]
