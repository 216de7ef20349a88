"""The importance of a sweep's parameters for its goal: an analysis of variance over ranks. No torch here."""

from math import isfinite
from statistics import mean

from dlrun.sweep.job import DONE, Job

A_BIN, BINS = 4, 8  # for numbers with many values: jobs per bin, and the most bins


def importance(jobs: list[Job], swept: list[dict], name: str) -> dict[str, float | None]:
    """Return the share of a metric's variance that each parameter explains, in [0, 1]; None with too few jobs.

    Ranks replace the metric, so that a job with an extreme value is only the last. The parameter that explains most
    comes first, and the next explains the remainder: if a search tries good values of two parameters together, the
    second gets no credit for the first. Jobs are grouped by value; numbers with many values are cut into bins of equal
    size. The share that random groups would explain is subtracted. The rest is noise and interactions.
    """
    done = [job for job in jobs if job.status in DONE and isfinite(_value(job, name))]
    left = _ranks([_value(job, name) for job in done])
    whole, freedom = sum(rank * rank for rank in left), len(left) - 1
    open_ = {each["name"]: _groups(done, each) for each in swept}
    explained: list[tuple[str, float, int]] = []
    while open_:
        usable = {name: groups for name, groups in open_.items() if 0 < len(set(groups)) - 1 < freedom}
        if not usable:
            break
        best = max(usable, key=lambda name: _explained(left, usable[name]) / (len(set(usable[name])) - 1))
        groups = open_.pop(best)
        explained.append((best, _explained(left, groups), len(set(groups)) - 1))
        left = _without(left, groups)
        freedom -= explained[-1][2]
    noise = sum(rank * rank for rank in left) / freedom if freedom > 0 else 0.0
    shares = {name: max(0.0, (square - size * noise) / whole) if whole else 0.0 for name, square, size in explained}
    return {each["name"]: shares.get(each["name"]) for each in swept}


def _value(job: Job, name: str) -> float:
    value = job.values.get(name)
    return float("nan") if value is None else value


def _ranks(values: list[float]) -> list[float]:
    """Return centred ranks; equal values share their mean rank."""
    ranks: dict[float, list[int]] = {}
    for rank, value in enumerate(sorted(values)):
        ranks.setdefault(value, []).append(rank)
    return [mean(ranks[value]) - (len(values) - 1) / 2 for value in values]


def point(job: Job) -> dict[str, str]:
    """Return a job's overrides by key."""
    return dict(override.lstrip("+").partition("=")[::2] for override in job.overrides if "=" in override)


def _groups(jobs: list[Job], parameter: dict) -> list[int]:
    """Return each job's group: that of its value, or its bin for a number with many values."""
    texts = [point(job).get(parameter["name"], "") for job in jobs]
    known = list(dict.fromkeys(texts))
    if parameter["values"] is not None or len(known) <= max(2, len(jobs) // 2):
        return [known.index(text) for text in texts]
    bins = min(BINS, max(2, len(jobs) // A_BIN))
    order = sorted(range(len(jobs)), key=lambda i: float(texts[i]))
    groups = [0] * len(jobs)
    for rank, i in enumerate(order):
        groups[i] = rank * bins // len(jobs)
    return groups


def _without(values: list[float], groups: list[int]) -> list[float]:
    """Subtract the mean of its group from each value."""
    means = {group: mean(v for v, g in zip(values, groups, strict=True) if g == group) for group in set(groups)}
    return [value - means[group] for value, group in zip(values, groups, strict=True)]


def _explained(values: list[float], groups: list[int]) -> float:
    """Return the sum of squares between groups; values are centred."""
    return sum(v * v for v in values) - sum(v * v for v in _without(values, groups))
