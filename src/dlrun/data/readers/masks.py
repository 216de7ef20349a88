"""Images with masks: synthetic coloured shapes.

The shapes are this project's own. A network must find a shape's outline, not its colour, which is random; shapes may
overlap.
"""

import numpy as np

from dlrun.data.base import Arrays
from dlrun.errors import DataError
from dlrun.types import Count, Few, NonNegative, Seed, Size

KINDS = ("disc", "square", "triangle", "ring", "cross")  # classes 1, 2, ...; 0 is the background


def shapes(
    *,
    shape: list[Size],
    classes: Size,
    most: Few,
    noise: NonNegative,
    samples: Count,
    test_samples: Count,
    random_state: Seed,
) -> Arrays:
    """Draw one to `most` shapes in each image, later shapes over earlier ones. noise: standard deviation, in bytes."""
    if len(shape) != 3 or min(shape[1:]) < 16 or not 2 <= classes <= 1 + len(KINDS):
        raise DataError(
            f"data.spec.shape={list(shape)} data.spec.classes={classes}: expected channels, height and width of 16 "
            f"or more, and 2 to {1 + len(KINDS)} classes (the background, {', '.join(KINDS)})"
        )
    rng, arrays = np.random.RandomState(random_state), []
    for num in (samples, test_samples):
        x, y = np.empty((num, *shape), np.uint8), np.zeros((num, *shape[1:]), np.uint8)
        for i in range(num):
            x[i] = _draw(rng, y[i], shape[0], classes, most, noise)
        arrays += [x, y]
    return Arrays(*arrays)


def _draw(
    rng: np.random.RandomState, mask: np.ndarray, channels: int, classes: int, most: int, noise: float
) -> np.ndarray:
    """Draw an image (C, H, W) and write its mask to `mask` (H, W)."""
    height, width = mask.shape
    side = min(height, width)
    rows, columns = np.ogrid[:height, :width]
    ground = rng.uniform(0, 255, (channels, 1, 1))
    image = np.broadcast_to(ground, (channels, height, width)).copy()
    for _ in range(rng.randint(1, most + 1)):
        kind = rng.randint(1, classes)
        size = rng.uniform(0.14, 0.28) * side  # half the shape's width
        down, right = rows - rng.uniform(0.1, 0.9) * height, columns - rng.uniform(0.1, 0.9) * width
        angle = rng.uniform(0, 2 * np.pi)
        u, v = np.cos(angle) * right + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * right
        inside = _inside(KINDS[kind - 1], u / size, v / size)
        contrast = rng.uniform(70, 128, channels) * rng.choice((-1, 1), channels)  # to the ground, in every channel
        colour = (ground[:, 0, 0] + contrast) % 256
        mask[inside] = kind
        image[:, inside] = colour[:, None]
    image += rng.normal(0, noise, image.shape)
    return image.clip(0, 255).round().astype(np.uint8)


def _inside(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return which points (u, v) lie in an upright shape of half width 1 around the origin."""
    if kind == "disc":
        return u**2 + v**2 <= 1
    if kind == "square":
        return np.maximum(abs(u), abs(v)) <= 0.85
    if kind == "triangle":  # equilateral, with its corners on the unit circle
        return np.maximum(-v, np.maximum(v / 2 + u * 3**0.5 / 2, v / 2 - u * 3**0.5 / 2)) <= 0.5
    if kind == "ring":
        return (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.3)
    return (np.maximum(abs(u), abs(v)) <= 1) & (np.minimum(abs(u), abs(v)) <= 0.33)
