"""What the parameters of a sweep explain of its goal: an analysis of variance over ranks. No torch here."""

from math import isfinite
from statistics import mean

from dlrun.sweep.state import DONE, Job

A_BIN, BINS = 4, 8  # jobs in a bin of a number with many values, and bins, at most


def importance(jobs: list[Job], swept: list[dict], name: str) -> dict[str, float | None]:
    """The share of a metric's variance that each parameter explains, 0 to 1; None: too few jobs to say.

    Of the jobs' ranks by the metric: one that went wrong by far is only the last. The parameter that explains most
    comes first, the next explains what it leaves: a search that tries good values of two parameters together gives the
    second no credit for the first. Values are groups; a number with many values makes bins of as many jobs each. What
    groups of pure chance would explain is taken off; the rest is chance and what parameters do only together.
    """
    done = [job for job in jobs if job.status in DONE and isfinite(_value(job, name))]
    left = _ranks([_value(job, name) for job in done])
    whole, freedom = sum(rank * rank for rank in left), len(left) - 1
    open_ = {each["name"]: _groups(done, each) for each in swept}
    found: list[tuple[str, float, int]] = []
    while open_:
        usable = {name: groups for name, groups in open_.items() if 0 < len(set(groups)) - 1 < freedom}
        if not usable:
            break
        best = max(usable, key=lambda name: _explained(left, usable[name]) / (len(set(usable[name])) - 1))
        groups = open_.pop(best)
        found.append((best, _explained(left, groups), len(set(groups)) - 1))
        left = _without(left, groups)
        freedom -= found[-1][2]
    noise = sum(rank * rank for rank in left) / freedom if freedom > 0 else 0.0
    shares = {name: max(0.0, (part - size * noise) / whole) if whole else 0.0 for name, part, size in found}
    return {each["name"]: shares.get(each["name"]) for each in swept}


def _value(job: Job, name: str) -> float:
    value = job.values.get(name)
    return float("nan") if value is None else value


def _ranks(values: list[float]) -> list[float]:
    """Places in the order, centred; equal values share the mean of theirs."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values)):
        places.setdefault(value, []).append(place)
    return [mean(places[value]) - (len(values) - 1) / 2 for value in values]


def point(job: Job) -> dict[str, str]:
    """The overrides by key."""
    return dict(override.lstrip("+").partition("=")[::2] for override in job.overrides if "=" in override)


def _groups(jobs: list[Job], parameter: dict) -> list[int]:
    """The group of each job: its value, or of a number with many values its bin."""
    texts = [point(job).get(parameter["name"], "") for job in jobs]
    known = list(dict.fromkeys(texts))
    if parameter["values"] is not None or len(known) <= max(2, len(jobs) // 2):
        return [known.index(text) for text in texts]
    bins = min(BINS, max(2, len(jobs) // A_BIN))
    order = sorted(range(len(jobs)), key=lambda i: float(texts[i]))
    groups = [0] * len(jobs)
    for place, i in enumerate(order):
        groups[i] = place * bins // len(jobs)
    return groups


def _without(values: list[float], groups: list[int]) -> list[float]:
    """What the means of the groups leave."""
    means = {group: mean(v for v, g in zip(values, groups, strict=True) if g == group) for group in set(groups)}
    return [value - means[group] for value, group in zip(values, groups, strict=True)]


def _explained(values: list[float], groups: list[int]) -> float:
    """The sum of squares of the groups' means; values are centred."""
    return sum(v * v for v in values) - sum(v * v for v in _without(values, groups))
