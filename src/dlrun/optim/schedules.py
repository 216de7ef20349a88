"""Learning rates as functions of time: each gives the factor on the optimizer's `lr`. Nothing to save or to drift.

time: anything with `fraction`, the share of the whole run that is done, in [0, 1].
"""

from math import cos, pi
from typing import Protocol

from dlrun.types import Few, Fraction, Positive, Rate


class Time(Protocol):
    fraction: float


def constant(time: Time) -> float:
    return 1.0


def linear(time: Time, *, warmup: Rate, final: Fraction) -> float:
    """From 0 up over the share `warmup` of the run, then straight down to `final`."""
    if time.fraction < warmup:
        return time.fraction / warmup
    return 1 - (1 - final) * (time.fraction - warmup) / (1 - warmup)


def step(time: Time, *, drops: Few, factor: Positive) -> float:
    """Times `factor` at `drops` moments that divide the run evenly."""
    return factor ** min(drops, int(time.fraction * (drops + 1) + 1e-9))  # 1/49 * 49 is below 1 in floating point


def cosine(time: Time, *, warmup: Rate, final: Fraction) -> float:
    """From 0 up over the share `warmup` of the run, then half a cosine to `final` (Loshchilov and Hutter 2017)."""
    if time.fraction < warmup:
        return time.fraction / warmup
    return final + (1 - final) * (1 + cos(pi * (time.fraction - warmup) / (1 - warmup))) / 2


def one_cycle(time: Time, *, peak_at: Rate, start: Positive, final: Fraction) -> float:
    """From `start` up to 1 at the share `peak_at` of the run and down to `final`, both along cosines (Smith 2018)."""
    if time.fraction < peak_at:
        return 1 - (1 - start) * (1 + cos(pi * time.fraction / peak_at)) / 2
    return final + (1 - final) * (1 + cos(pi * (time.fraction - peak_at) / (1 - peak_at))) / 2
