"""Learning rates as functions of time: each gives the factor on the optimizer's `lr`. Nothing to save or to drift.

time: anything with `fraction`, the share of the whole run that is done, in [0, 1].
"""

from math import cos, pi
from typing import Protocol

from dlrun.types import Few, Fraction, Positive, Probability


class Time(Protocol):
    fraction: float


def constant(time: Time) -> float:
    return 1.0


def linear(time: Time, *, warmup_fraction: Probability, final: Fraction) -> float:
    """From 0 up over the share `warmup_fraction` of the run, then straight down to `final`."""
    if time.fraction < warmup_fraction:
        return time.fraction / warmup_fraction
    return 1 - (1 - final) * (time.fraction - warmup_fraction) / (1 - warmup_fraction)


def step(time: Time, *, drops: Few, factor: Positive) -> float:
    """Times `factor` at `drops` moments that divide the run evenly."""
    return factor ** min(drops, int(time.fraction * (drops + 1) + 1e-9))  # 1/49 * 49 is below 1 in floating point


def cosine(time: Time, *, warmup_fraction: Probability, final: Fraction) -> float:
    """Rise from 0 over `warmup_fraction` of the run, then half a cosine to `final` (Loshchilov and Hutter 2017)."""
    if time.fraction < warmup_fraction:
        return time.fraction / warmup_fraction
    return final + (1 - final) * (1 + cos(pi * (time.fraction - warmup_fraction) / (1 - warmup_fraction))) / 2


def one_cycle(time: Time, *, peak_at: Probability, start: Positive, final: Fraction) -> float:
    """From `start` up to 1 at the share `peak_at` of the run and down to `final`, both along cosines (Smith 2018)."""
    if time.fraction < peak_at:
        return 1 - (1 - start) * (1 + cos(pi * time.fraction / peak_at)) / 2
    return final + (1 - final) * (1 + cos(pi * (time.fraction - peak_at) / (1 - peak_at))) / 2
