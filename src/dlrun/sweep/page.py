"""The sweep's self-contained HTML page: curves, parallel coordinates, slices, importance, seeds, jobs."""

import json
import shlex
from html import escape
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.output.as_json import finite
from dlrun.sweep.importance import importance, point
from dlrun.sweep.job import Job
from dlrun.sweep.state import State, own_overrides, shared

if TYPE_CHECKING:
    from dlrun.sweep.goals import Setting

POINTS = 120  # the most points of a curve
FEW = 6  # a number with at most this many values has a tick for each


def page(
    state: State, goals: list[tuple[str, str]], curves: dict[int, list[dict]], means: list, best: "list[Setting]"
) -> str:
    """Return the page. curves: the epoch rows of each job. means: the rows over seeds."""
    from dlrun.sweep.goals import REPEATS, command_words, numbered, repeated, value_names

    swept = parameters(state.jobs)
    metrics = [name for name, _ in goals]
    measured = {name for rows in curves.values() for row in rows[-1:] for name in row if name.startswith("val/")}
    metrics += sorted(measured - set(metrics))
    common = shared(state.jobs)
    repeats = [override for job in state.jobs for override in job.overrides if override.startswith(REPEATS)]
    by_number = {job.number: job for job in state.jobs}
    means = [row | {"own": own_overrides(by_number[row["jobs"][0]], common + repeats)} for row in means]
    data = {
        "title": state.folder.name,
        "started": state.facts["started"],
        "total": state.total,
        "goals": [{"name": name, "mode": mode} for name, mode in goals],
        "metrics": metrics,
        "names": sorted(value_names(state.jobs), key=lambda name: _rank(name, metrics[: len(goals)])),
        "common": common,
        "parameters": swept,
        "importance": {name: importance(state.jobs, swept, name) for name, _ in goals},
        "means": means,
        "repeated": repeated(state.jobs),
        "best": [
            {
                "jobs": [job.number for job in each.jobs],
                "name": numbered(each),
                "command": shlex.join(command_words(state, each)),
            }
            for each in best
        ],
        "jobs": [_job(job, common, curves.get(job.number, []), metrics) for job in state.jobs],
    }
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    text = json.dumps(finite(data)).replace("<", "\\u003c")  # so that no value can end the script
    return template.replace("{title}", escape(state.folder.name)).replace("{data}", text)


def _job(job: Job, common: list[str], rows: list[dict], metrics: list[str]) -> dict[str, object]:
    """The entries of one job. rows: its epochs."""
    return {
        "number": job.number,
        "overrides": " ".join(job.overrides),
        "own": own_overrides(job, common),
        "status": job.status,
        "values": job.values,
        "seconds": job.seconds,
        "error": job.error,
        "at": point(job),
        "curves": {name: curve(rows, name) for name in metrics},
    }


def _rank(name: str, goals: list[str]) -> int:
    """Order metrics: goals, the goals on test, then the rest."""
    if name in goals:
        return 0
    return 1 if name.partition("/")[2] in [goal.partition("/")[2] for goal in goals] else 2


def curve(rows: list[dict], name: str) -> list[list[float]]:
    """Return at most POINTS pairs [epoch, value], including the last one."""
    points = [[row["epoch"], row[name]] for row in rows if isinstance(row.get(name), int | float)]
    step = -(-len(points) // POINTS)
    return points[::-1][::step][::-1] if points else []


def parameters(jobs: list[Job]) -> list[dict]:
    """Return the keys whose values differ between jobs, as axes of the plots.

    values: those of an axis of words, in order; None for numbers, whose `few` has the values if there are few.
    """
    points = [point(job) for job in jobs]
    axes: list[dict] = []
    for key in dict.fromkeys(key for at in points for key in at):
        texts = list(dict.fromkeys(at.get(key, "") for at in points))
        numbers = [number for text in texts if (number := as_number(text)) is not None]
        if len(texts) < 2:
            continue
        if len(numbers) < len(texts):
            axes.append({"name": key, "values": texts, "log": False})
        else:
            is_log = min(numbers) > 0 and max(numbers) >= 100 * min(numbers)
            few = sorted(set(numbers)) if len(set(numbers)) <= FEW else None
            ends = {"low": min(numbers), "high": max(numbers)}
            axes.append({"name": key, "values": None, "log": is_log, **ends, "few": few})
    return axes


def as_number(text: str) -> float | None:
    """Parse a finite number, or return None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
