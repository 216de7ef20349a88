"""The sweep as one HTML page that needs no network: curves, parallel coordinates, slices, importance, seeds, jobs."""

import json
from html import escape
from math import isfinite
from pathlib import Path
from statistics import mean

from dlrun.sweep.state import DONE, Job, State

POINTS = 120  # of a curve, at most
BINS = 4  # that the values of a continuous parameter are put into, to see what it explains


def page(
    state: State, goals: list[tuple[str, str]], curves: dict[int, list[dict]], means: list, best: list[Job]
) -> str:
    """curves: the epochs' rows of each job. means: the rows over seeds."""
    from dlrun.sweep.report import command_line, value_names

    swept = parameters(state.jobs)
    metrics = [name for name, _ in goals]
    measured = {name for rows in curves.values() for row in rows[-1:] for name in row if name.startswith("val/")}
    metrics += sorted(measured - set(metrics))
    data = {
        "title": state.folder.name,
        "started": state.facts["started"],
        "total": state.total,
        "goals": [{"name": name, "mode": mode} for name, mode in goals],
        "metrics": metrics,
        "names": value_names(state.jobs),
        "parameters": swept,
        "importance": {name: importance(state.jobs, swept, name) for name, _ in goals},
        "means": means,
        "best": [{"job": job.number, "command": command_line(state, job)} for job in best],
        "jobs": [
            {
                "number": job.number,
                "overrides": " ".join(job.overrides),
                "status": job.status,
                "values": job.values,
                "seconds": job.seconds,
                "error": job.error,
                "at": point(job),
                "curves": {name: curve(curves.get(job.number, []), name) for name in metrics},
            }
            for job in state.jobs
        ],
    }
    template = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
    text = json.dumps(finite(data)).replace("<", "\\u003c")  # nothing in it may end the script
    return template.replace("{title}", escape(state.folder.name)).replace("{data}", text)


def finite(value: object) -> object:
    """JSON has no NaN and no infinity: null."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def curve(rows: list[dict], name: str) -> list[list[float]]:
    """(epoch, value), no more than POINTS of them, the last one among them."""
    found = [[row["epoch"], row[name]] for row in rows if isinstance(row.get(name), int | float)]
    step = -(-len(found) // POINTS)
    return found[::-1][::step][::-1] if found else []


def point(job: Job) -> dict[str, str]:
    """The overrides by key."""
    return dict(override.lstrip("+").partition("=")[::2] for override in job.overrides if "=" in override)


def parameters(jobs: list[Job]) -> list[dict]:
    """The keys whose values differ between jobs. values: of a word's axis in their order; none where it is a number."""
    points = [point(job) for job in jobs]
    found = []
    for key in dict.fromkeys(key for at in points for key in at):
        texts = list(dict.fromkeys(at.get(key, "") for at in points))
        numbers = [as_number(text) for text in texts]
        if len(texts) < 2:
            continue
        if None in numbers:
            found.append({"name": key, "values": texts, "log": False})
        else:
            is_log = min(numbers) > 0 and max(numbers) >= 100 * min(numbers)
            found.append({"name": key, "values": None, "log": is_log, "low": min(numbers), "high": max(numbers)})
    return found


def as_number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None


def importance(jobs: list[Job], swept: list[dict], name: str) -> dict[str, float | None]:
    """The share of a metric's variance that each parameter explains by itself, 0 to 1; None: too few jobs to say.

    One-way analysis of variance, omega squared: what groups of pure chance would explain is taken off. A number with
    many values makes BINS groups of as many jobs each.
    """
    done = [job for job in jobs if job.status in DONE and job.values.get(name) is not None]
    done = [job for job in done if isfinite(job.values[name])]
    return {each["name"]: _explained(done, each, name) for each in swept}


def _explained(jobs: list[Job], parameter: dict, name: str) -> float | None:
    pairs = [(point(job).get(parameter["name"], ""), job.values[name]) for job in jobs]
    texts = {text for text, _ in pairs}
    if parameter["values"] is None and len(texts) > 2 * BINS:
        ordered = sorted(pairs, key=lambda pair: float(pair[0]))
        pairs = [(str(i * BINS // len(ordered)), value) for i, (_, value) in enumerate(ordered)]
    groups: dict[str, list[float]] = {}
    for text, value in pairs:
        groups.setdefault(text, []).append(value)
    within_freedom = len(pairs) - len(groups)
    if len(groups) < 2 or within_freedom < 1:
        return None
    centre = mean(value for _, value in pairs)
    between = sum(len(group) * (mean(group) - centre) ** 2 for group in groups.values())
    within = sum((value - mean(group)) ** 2 for group in groups.values() for value in group)
    noise = within / within_freedom
    if between + within == 0:
        return 0.0
    return max(0.0, (between - (len(groups) - 1) * noise) / (between + within + noise))
