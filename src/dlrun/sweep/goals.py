"""The goals of a sweep, its best jobs, and means over seeds."""

import shlex
from math import isfinite

from dlrun.errors import UserError, nearest
from dlrun.sweep.rows import measured
from dlrun.sweep.state import DONE, Job, State

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


def best_jobs(jobs: list[Job], goals: list[tuple[str, str]]) -> list[Job]:
    """Return the best finished job; with several goals the Pareto front, the jobs that no other beats in all."""

    def scores(job: Job) -> list[float] | None:
        values = [value for name, _ in goals if (value := job.values.get(name)) is not None and isfinite(value)]
        if job.status != "finished" or len(values) < len(goals):
            return None
        return [v if mode == "max" else -v for v, (_, mode) in zip(values, goals, strict=True)]

    scored = [(job, values) for job in jobs if goals and (values := scores(job))]
    if len(goals) < 2:
        return [max(scored, key=lambda pair: (pair[1], -pair[0].number))[0]] if scored else []
    return [
        job
        for job, mine in scored
        if not any(all(o >= m for o, m in zip(s, mine, strict=True)) and s != mine for _, s in scored)
    ]


def command_line(state: State, job: Job) -> str:
    """Return the command that runs a job by itself, in the folder in which the sweep was started."""
    return shlex.join(["dl-run", *job.overrides, *state.facts["flags"]])


def value_names(jobs: list[Job]) -> list[str]:
    """List the metrics that any job has."""
    return list(dict.fromkeys(name for job in jobs for name in job.values))


def over_seeds(jobs: list[Job], names: list[str]) -> list[dict]:
    """Return, for each setting that ran with several seeds or folds, its values by name and how many are finished.

    A repeated seed (of the same fold) counts once, since equal runs have no spread.
    """
    groups: dict[str, dict[str, Job]] = {}
    for job in jobs:
        seed = " ".join(o for o in job.overrides if o.startswith(REPEATS))
        group = groups.setdefault(" ".join(o for o in job.overrides if not o.startswith(REPEATS)), {})
        if seed not in group or group[seed].status not in DONE:
            group[seed] = job
    return [
        {
            "setting": setting,
            "values": {n: [job.values.get(n) for job in group.values() if job.status in DONE] for n in names},
            "seeds": sum(job.status == "finished" for job in group.values()),
            "jobs": [job.number for job in group.values()],
        }
        for setting, group in groups.items()
        if len(group) > 1
    ]
