"""Readers and generators of tables: moons, gates, a line, a sine, Gaussians, mixtures of them and the Swiss roll.

Splits and synthetic points come from `np.random.RandomState`, whose stream NumPy has frozen: every run has the same
rows. Source of the last two: Gulrajani et al. 2017, section 5.1.
"""

from collections.abc import Callable
from math import ceil, pi
from typing import Literal

import numpy as np

from dlrun.data.base import Arrays
from dlrun.errors import DataError, counted
from dlrun.types import Count, Few, Fraction, NonNegative, Positive, Seed


def gaussians(
    *,
    layout: Literal["ring", "grid"],
    modes: Few,
    scale: Positive,
    std: NonNegative,
    samples: Count,
    test_samples: Count,
    random_state: Seed,
) -> Arrays:
    """Generate Gaussian modes on a circle of radius `scale` or a grid from -scale to scale. Labels are the modes."""
    if layout == "ring":
        angles = 2 * pi * np.arange(modes) / modes
        centres = scale * np.stack([np.cos(angles), np.sin(angles)], 1)
    else:
        side = round(modes**0.5)
        if side * side != modes:
            raise DataError(
                f"data.source.modes={modes} with layout=grid: expected a square number, such as 9, 16 or 25"
            )
        line = np.linspace(-scale, scale, side) if side > 1 else np.zeros(1)
        centres = np.stack(np.meshgrid(line, line), -1).reshape(-1, 2)
    rng = np.random.RandomState(random_state)
    arrays: list[np.ndarray] = []
    for num in (samples, test_samples):
        y = rng.randint(0, modes, num)
        x = centres[y] + rng.normal(0, std, (num, 2))
        arrays += [x.astype(np.float32), y.astype(np.int64)]
    return Arrays(*arrays)


def normal(*, mean: float, std: Positive, samples: Count, test_samples: Count, random_state: Seed) -> Arrays:
    """Generate numbers of a normal distribution. The target is the density there."""
    rng, arrays = np.random.RandomState(random_state), []
    for num in (samples, test_samples):
        x = rng.normal(mean, std, (num, 1))
        density = np.exp(-(((x - mean) / std) ** 2) / 2) / (std * (2 * pi) ** 0.5)
        arrays += [x.astype(np.float32), density.astype(np.float32)]
    return Arrays(*arrays)


def swiss_roll(*, scale: Positive, std: NonNegative, samples: Count, test_samples: Count, random_state: Seed) -> Arrays:
    """Generate a spiral of 1.5 turns, from radius `scale` / 3 out to `scale`. The target is the angle along it."""
    rng, arrays = np.random.RandomState(random_state), []
    for num in (samples, test_samples):
        angle = 1.5 * pi * (1 + 2 * rng.uniform(size=(num, 1)))
        x = scale * angle / (4.5 * pi) * np.concatenate([np.cos(angle), np.sin(angle)], 1)
        arrays += [(x + rng.normal(0, std, (num, 2))).astype(np.float32), angle.astype(np.float32)]
    return Arrays(*arrays)


def moons(*, samples: Count, noise: NonNegative, test_fraction: Fraction, random_state: Seed) -> Arrays:
    """Generate the points of scikit-learn's make_moons and train_test_split(random_state=42), to the bit.

    scikit-learn is not used, because importing it takes a second.
    """
    rng = np.random.RandomState(random_state)
    outer, inner = np.linspace(0, pi, samples // 2), np.linspace(0, pi, samples - samples // 2)
    upper = np.stack([np.cos(outer), np.sin(outer)], 1)
    lower = np.stack([1 - np.cos(inner), 1 - np.sin(inner) - 0.5], 1)
    order = np.arange(samples)
    rng.shuffle(order)
    x = np.concatenate([upper, lower])[order] + rng.normal(scale=noise, size=(samples, 2))
    y = np.repeat([0, 1], [len(outer), len(inner)])[order].astype(np.int64)
    num_test = _share(ceil(test_fraction * samples), samples, f"test_fraction={test_fraction}")
    split = np.random.RandomState(42).permutation(samples)  # the book's
    test, train = split[:num_test], split[num_test:]
    return Arrays(x[train].astype(np.float32), y[train], x[test].astype(np.float32), y[test])


def _share(part: int, whole: int, key: str) -> int:
    if not 0 < part < whole:
        raise DataError(
            f"data.source.{key} of {counted(whole, 'row')} leaves nothing to train on or nothing to test on"
        )
    return part


def linear(
    *,
    samples: Count,
    test_samples: Count,
    w: float,
    b: float,
    noise: NonNegative,
    low: float,
    high: float,
    random_state: Seed,
) -> Arrays:
    """Generate points with y = w x + b + noise, x uniform on [low, high)."""
    return _along(lambda x: w * x + b, (samples, test_samples), noise, low, high, random_state)


def sine(
    *,
    samples: Count,
    test_samples: Count,
    frequency: Positive,
    noise: NonNegative,
    low: float,
    high: float,
    random_state: Seed,
) -> Arrays:
    """Generate points with y = sin(frequency x) + noise, x uniform on [low, high) (the book, sections 9.1 and 9.2)."""
    return _along(lambda x: np.sin(frequency * x), (samples, test_samples), noise, low, high, random_state)


def _along(
    curve: Callable[[np.ndarray], np.ndarray], sizes: tuple[int, int], noise: float, low: float, high: float, seed: int
) -> Arrays:
    """Return points of a curve with noise, x uniform on [low, high): as many of train and of test as `sizes` says."""
    if not low < high:
        raise DataError(f"data.source.low={low} data.source.high={high}: expected low < high")
    rng, arrays = np.random.RandomState(seed), []
    for num in sizes:
        x = rng.uniform(low, high, (num, 1))
        y = curve(x) + rng.normal(0, noise, (num, 1))
        arrays += [x.astype(np.float32), y.astype(np.float32)]
    return Arrays(*arrays)


def gates(*, gate: Literal["and", "or", "xor"], samples: Count, noise: NonNegative, random_state: Seed) -> Arrays:
    """Generate points around (0, 0), (0, 1), (1, 0), (1, 1), with the gate's output as class; test: these four."""
    corners = np.array([(0, 0), (0, 1), (1, 0), (1, 1)])
    outputs = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "xor": [0, 1, 1, 0]}
    y = np.array(outputs[gate], np.int64)
    which = np.arange(samples) % 4
    x = corners[which] + np.random.RandomState(random_state).normal(0, noise, (samples, 2))
    return Arrays(x.astype(np.float32), y[which], corners.astype(np.float32), y)
