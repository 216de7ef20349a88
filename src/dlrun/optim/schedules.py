"""Learning-rate schedules: pure functions of the clock that return a factor on the optimizer's `lr`.

They have no state, so there is nothing to save and nothing can drift.
"""

from math import cos, pi, sqrt
from typing import Protocol

from dlrun.types import Few, Fraction, Positive, Probability, Share


class Time(Protocol):
    """Anything with `fraction`, the share of the whole run that is done, in [0, 1]; usually a Clock."""

    @property
    def fraction(self) -> float: ...


def constant(time: Time) -> float:
    """1 throughout."""
    return 1.0


def range_test(time: Time, *, low: Share) -> float:
    """Rise exponentially from `low` to 1: the learning-rate range test (Smith 2017, section 3.3), mode=find_lr."""
    return low ** (1 - time.fraction)


def linear(time: Time, *, warmup_fraction: Probability, final: Fraction) -> float:
    """Rise linearly from 0 to 1 over the share `warmup_fraction` of the run, then fall linearly to `final`."""
    if time.fraction < warmup_fraction:
        return time.fraction / warmup_fraction
    return 1 - (1 - final) * (time.fraction - warmup_fraction) / (1 - warmup_fraction)


def step(time: Time, *, drops: Few, factor: Positive) -> float:
    """Multiply by `factor` at `drops` moments that divide the run into equal stretches."""
    return factor ** min(drops, int(time.fraction * (drops + 1) + 1e-9))  # 1/49 * 49 is below 1 in floating point


def cosine(time: Time, *, warmup_fraction: Probability, final: Fraction) -> float:
    """Rise linearly from 0 to 1 over the share `warmup_fraction` of the run, then fall along half a cosine to `final`.

    Loshchilov and Hutter 2017.
    """
    if time.fraction < warmup_fraction:
        return time.fraction / warmup_fraction
    return final + (1 - final) * (1 + cos(pi * (time.fraction - warmup_fraction) / (1 - warmup_fraction))) / 2


def one_cycle(time: Time, *, peak_at: Probability, start: Positive, final: Fraction) -> float:
    """Rise from `start` to 1 at the share `peak_at` of the run, then fall to `final`, along cosines (Smith 2018)."""
    if time.fraction < peak_at:
        return 1 - (1 - start) * (1 + cos(pi * time.fraction / peak_at)) / 2
    return final + (1 - final) * (1 + cos(pi * (time.fraction - peak_at) / (1 - peak_at))) / 2


def triangle(time: Time, *, peak_at: Probability, start: Fraction, final: Fraction) -> float:
    """Rise linearly from `start` to 1 at the share `peak_at` of the run, then fall linearly to `final` (Page 2018)."""
    if time.fraction < peak_at:
        return start + (1 - start) * time.fraction / peak_at
    return 1 - (1 - final) * (time.fraction - peak_at) / (1 - peak_at)


def stable(time: Time, *, warmup_fraction: Probability, decay_fraction: Fraction, final: Fraction) -> float:
    """Rise linearly to 1, stay there, and fall linearly to `final` over the last share `decay_fraction` of the run.

    Hu et al. 2024, "MiniCPM", section 4 (warm-up, stable, decay); the decay begins after the warm-up at the earliest.
    """
    if time.fraction < warmup_fraction:
        return time.fraction / warmup_fraction
    start = max(warmup_fraction, 1 - decay_fraction)
    return 1.0 if time.fraction <= start else 1 - (1 - final) * (time.fraction - start) / (1 - start)


def inverse_square_root(time: Time, *, warmup_fraction: Share) -> float:
    """Rise linearly to 1, then fall as sqrt(warmup_fraction / fraction) (Vaswani et al. 2017, section 5.3)."""
    if time.fraction <= warmup_fraction:
        return time.fraction / warmup_fraction
    return sqrt(warmup_fraction / time.fraction)


def polynomial(time: Time, *, warmup_fraction: Probability, power: Positive, final: Fraction) -> float:
    """Rise linearly to 1, then fall to `final` as (1 - share of the rest of the run)^power (Chen et al. 2017)."""
    if time.fraction < warmup_fraction:
        return time.fraction / warmup_fraction
    return final + (1 - final) * (1 - (time.fraction - warmup_fraction) / (1 - warmup_fraction)) ** power
