"""Readers and generators of tables: moons, gates, a line, a sine, Auto MPG, mixtures of Gaussians and the Swiss roll.

Splits and synthetic points come from `np.random.RandomState`, whose stream NumPy has frozen: every run has the same
rows. Source of the last two: Gulrajani et al. 2017, section 5.1.
"""

import os
from math import ceil, pi
from pathlib import Path
from typing import Literal

import numpy as np

from dlrun.data.base import Arrays
from dlrun.data.readers.files import checksum_of, first_file
from dlrun.data.readers.formats import damaged
from dlrun.data.sources.fetch import fetch
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


def swiss_roll(*, scale: Positive, std: NonNegative, samples: Count, test_samples: Count, random_state: Seed) -> Arrays:
    """Generate a spiral of 1.5 turns, from radius `scale` / 3 out to `scale`. The target is the angle along it."""
    rng, arrays = np.random.RandomState(random_state), []
    for num in (samples, test_samples):
        angle = 1.5 * pi * (1 + 2 * rng.uniform(size=(num, 1)))
        x = scale * angle / (4.5 * pi) * np.concatenate([np.cos(angle), np.sin(angle)], 1)
        arrays += [(x + rng.normal(0, std, (num, 2))).astype(np.float32), angle.astype(np.float32)]
    return Arrays(*arrays)


LARGEST = float(np.finfo(np.float32).max)


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
    if not low < high:
        raise DataError(f"data.source.low={low} data.source.high={high}: expected low < high")
    rng = np.random.RandomState(random_state)
    arrays = []
    for num in (samples, test_samples):
        x = rng.uniform(low, high, (num, 1))
        y = w * x + b + rng.normal(0, noise, (num, 1))
        arrays += [x.astype(np.float32), y.astype(np.float32)]
    return Arrays(*arrays)


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
    if not low < high:
        raise DataError(f"data.source.low={low} data.source.high={high}: expected low < high")
    rng, arrays = np.random.RandomState(random_state), []
    for num in (samples, test_samples):
        x = rng.uniform(low, high, (num, 1))
        y = np.sin(frequency * x) + rng.normal(0, noise, (num, 1))
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


def auto_mpg(
    *,
    data_dir: str,
    download: bool,
    mirrors: list[str],
    checksums: dict[str, str],
    train_fraction: Fraction,
    random_state: Seed,
) -> Arrays:
    """Read the file's 392 complete rows, split as by the book's pandas `sample(frac, random_state)`."""
    root, name = Path(os.path.expanduser(data_dir)), "auto-mpg.data"
    path = first_file([root / "auto_mpg", root], name)
    if not path:
        urls = [mirror.rstrip("/") + "/" + name for mirror in mirrors]
        path = fetch(urls, root / "auto_mpg" / name, checksum_of(checksums, name), download=download)
    rows = np.array(_cars(path), np.float64)  # mpg, 6 features, origin
    x = np.concatenate([rows[:, 1:7], rows[:, 7:] == (1, 2, 3)], 1).astype(np.float32)
    y = rows[:, :1].astype(np.float32)
    num = _share(round(train_fraction * len(rows)), len(rows), f"train_fraction={train_fraction}")
    train = np.random.RandomState(random_state).choice(len(rows), num, replace=False)
    test = np.setdiff1d(np.arange(len(rows)), train)
    return Arrays(x[train], y[train], x[test], y[test])


def _cars(path: Path) -> list[list[float]]:
    """Read mpg, cylinders, displacement, horsepower, weight, acceleration, year, origin; skip rows with a ?."""
    cars = []
    for number, line in enumerate(path.read_text("latin1").splitlines(), 1):
        words = line.partition("\t")[0].split()
        try:
            values = [float(word) if word != "?" else None for word in words]
        except ValueError:
            values = []
        known = [value for value in values if value is not None]
        if words and (
            len(values) != 8 or values[-1] not in (1, 2, 3) or not all(abs(value) <= LARGEST for value in known)
        ):
            raise damaged(path, f"line {number}: {line[:60]!r}", "8 numbers or ?, of which the last is 1, 2 or 3")
        if len(known) == 8:
            cars.append(known)
    if not cars:
        raise damaged(path, "no rows", "8 numbers per line")
    return cars
