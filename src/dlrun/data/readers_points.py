"""Points of the plane, made, on which a generator's samples can be judged: mixtures of Gaussians, a Swiss roll.

Source: Gulrajani et al. 2017, section 5.1 (8 Gaussians, 25 Gaussians, Swiss roll); notes E44. Made by
`np.random.RandomState`, whose stream NumPy has frozen: the same rows in every run.
"""

from math import pi
from typing import Literal

import numpy as np

from dlrun.data.readers import Arrays
from dlrun.errors import DataError
from dlrun.types import Count, Few, NonNegative, Positive, Seed


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
    """Modes on a circle of radius `scale`, or on a square grid from -scale to scale; labels are the modes."""
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
    rng, parts = np.random.RandomState(random_state), []
    for num in (samples, test_samples):
        y = rng.randint(0, modes, num)
        x = centres[y] + rng.normal(0, std, (num, 2))
        parts += [x.astype(np.float32), y.astype(np.int64)]
    return Arrays(*parts)


def swiss_roll(*, scale: Positive, std: NonNegative, samples: Count, test_samples: Count, random_state: Seed) -> Arrays:
    """A spiral of one and a half turns out to radius `scale`; the target is the angle along it."""
    rng, parts = np.random.RandomState(random_state), []
    for num in (samples, test_samples):
        angle = 1.5 * pi * (1 + 2 * rng.uniform(size=(num, 1)))
        x = scale * angle / (4.5 * pi) * np.concatenate([np.cos(angle), np.sin(angle)], 1)
        parts += [(x + rng.normal(0, std, (num, 2))).astype(np.float32), angle.astype(np.float32)]
    return Arrays(*parts)
