"""Learning-rate schedules: pure functions of the clock that return a factor on the optimizer's `lr`.

They have no state, so there is nothing to save and nothing can drift.
"""

from math import cos, pi, sqrt

from dlrun.clock import Clock
from dlrun.types import Few, Fraction, Positive, Probability, Share


def constant(clock: Clock) -> float:
    """1 throughout."""
    return 1.0


def range_test(clock: Clock, *, low: Share) -> float:
    """Rise exponentially from `low` to 1: the learning-rate range test (Smith 2017, section 3.3), mode=find_lr."""
    return low ** (1 - clock.fraction)


def linear(clock: Clock, *, warmup_fraction: Probability, final: Fraction) -> float:
    """Rise linearly from 0 to 1 over the share `warmup_fraction` of the run, then fall linearly to `final`."""
    if clock.fraction < warmup_fraction:
        return clock.fraction / warmup_fraction
    return 1 - (1 - final) * (clock.fraction - warmup_fraction) / (1 - warmup_fraction)


def step(clock: Clock, *, drops: Few, factor: Positive) -> float:
    """Multiply by `factor` at `drops` moments that divide the run into equal stretches."""
    return factor ** min(drops, int(clock.fraction * (drops + 1) + 1e-9))  # 1/49 * 49 is below 1 in floating point


def cosine(clock: Clock, *, warmup_fraction: Probability, final: Fraction) -> float:
    """Rise linearly from 0 to 1 over the share `warmup_fraction` of the run, then fall along half a cosine to `final`.

    Loshchilov and Hutter 2017.
    """
    if clock.fraction < warmup_fraction:
        return clock.fraction / warmup_fraction
    return final + (1 - final) * (1 + cos(pi * (clock.fraction - warmup_fraction) / (1 - warmup_fraction))) / 2


def one_cycle(clock: Clock, *, peak_at: Probability, start: Positive, final: Fraction) -> float:
    """Rise from `start` to 1 at the share `peak_at` of the run, then fall to `final`, along cosines (Smith 2018)."""
    if clock.fraction < peak_at:
        return 1 - (1 - start) * (1 + cos(pi * clock.fraction / peak_at)) / 2
    return final + (1 - final) * (1 + cos(pi * (clock.fraction - peak_at) / (1 - peak_at))) / 2


def triangle(clock: Clock, *, peak_at: Probability, start: Fraction, final: Fraction) -> float:
    """Rise linearly from `start` to 1 at the share `peak_at` of the run, then fall linearly to `final` (Page 2018)."""
    if clock.fraction < peak_at:
        return start + (1 - start) * clock.fraction / peak_at
    return 1 - (1 - final) * (clock.fraction - peak_at) / (1 - peak_at)


def stable(clock: Clock, *, warmup_fraction: Probability, decay_fraction: Fraction, final: Fraction) -> float:
    """Rise linearly to 1, stay there, and fall linearly to `final` over the last share `decay_fraction` of the run.

    Hu et al. 2024, "MiniCPM", section 4 (warm-up, stable, decay); the decay begins after the warm-up at the earliest.
    """
    if clock.fraction < warmup_fraction:
        return clock.fraction / warmup_fraction
    start = max(warmup_fraction, 1 - decay_fraction)
    return 1.0 if clock.fraction <= start else 1 - (1 - final) * (clock.fraction - start) / (1 - start)


def inverse_square_root(clock: Clock, *, warmup_fraction: Share) -> float:
    """Rise linearly to 1, then fall as sqrt(warmup_fraction / fraction) (Vaswani et al. 2017, section 5.3)."""
    if clock.fraction <= warmup_fraction:
        return clock.fraction / warmup_fraction
    return sqrt(warmup_fraction / clock.fraction)


def polynomial(clock: Clock, *, warmup_fraction: Probability, power: Positive, final: Fraction) -> float:
    """Rise linearly to 1, then fall to `final` as (1 - share of the rest of the run)^power (Chen et al. 2017)."""
    if clock.fraction < warmup_fraction:
        return clock.fraction / warmup_fraction
    return final + (1 - final) * (1 - (clock.fraction - warmup_fraction) / (1 - warmup_fraction)) ** power
