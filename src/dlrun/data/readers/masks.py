"""Pictures with masks: coloured shapes, made; and folders of pictures and masks of one's own, paired by name.

Source of the task: notes E48, which names no data. The shapes are this project's: what is to be found out is a shape's
outline, not its colour, which is drawn for every shape, and some hide behind others.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlrun.data.base import Arrays
from dlrun.data.decode import FORMATS, read, upright_size
from dlrun.data.levels import Held, Levels, levels_of
from dlrun.data.walk import PICTURES, refuse_splits, walk
from dlrun.errors import DataError, counted, printable, some
from dlrun.paths import find, irregular
from dlrun.types import Count, DataPath, Few, Fraction, Index, Name, NonNegative, Seed, Size

KINDS = ("disc", "square", "triangle", "ring", "cross")  # classes 1, 2, ...; 0 is the background
LOSSY = (".jpg", ".jpeg")


class Pairs(NamedTuple):
    """Arrays of uint8, and the levels of pictures whose files hold more than bytes (data/levels.py)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    levels: Levels


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
    """One to `most` shapes in each picture, the later ones before the others. noise: standard deviation, in bytes."""
    if len(shape) != 3 or min(shape[1:]) < 16 or not 2 <= classes <= 1 + len(KINDS):
        raise DataError(
            f"data.spec.shape={list(shape)} data.spec.classes={classes}: expected channels, height and width of 16 "
            f"or more, and 2 to {1 + len(KINDS)} classes (the background, {', '.join(KINDS)})"
        )
    rng, parts = np.random.RandomState(random_state), []
    for num in (samples, test_samples):
        x, y = np.empty((num, *shape), np.uint8), np.zeros((num, *shape[1:]), np.uint8)
        for i in range(num):
            x[i] = _draw(rng, y[i], shape[0], classes, most, noise)
        parts += [x, y]
    return Arrays(*parts)


def _draw(
    rng: np.random.RandomState, mask: np.ndarray, channels: int, classes: int, most: int, noise: float
) -> np.ndarray:
    """A picture (C, H, W); its mask is written to `mask` (H, W)."""
    height, width = mask.shape
    side = min(height, width)
    rows, columns = np.ogrid[:height, :width]
    ground = rng.uniform(0, 255, (channels, 1, 1))
    picture = np.broadcast_to(ground, (channels, height, width)).copy()
    for _ in range(rng.randint(1, most + 1)):
        kind = rng.randint(1, classes)
        size = rng.uniform(0.14, 0.28) * side  # half of its extent
        down, right = rows - rng.uniform(0.1, 0.9) * height, columns - rng.uniform(0.1, 0.9) * width
        angle = rng.uniform(0, 2 * np.pi)
        u, v = np.cos(angle) * right + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * right
        inside = _inside(KINDS[kind - 1], u / size, v / size)
        away = rng.uniform(70, 128, channels) * rng.choice((-1, 1), channels)  # from the ground, in every channel
        colour = (ground[:, 0, 0] + away) % 256
        mask[inside] = kind
        picture[:, inside] = colour[:, None]
    picture += rng.normal(0, noise, picture.shape)
    return picture.clip(0, 255).round().astype(np.uint8)


def _inside(kind: str, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Which points are in a shape of half extent 1 about the origin, upright."""
    if kind == "disc":
        return u**2 + v**2 <= 1
    if kind == "square":
        return np.maximum(abs(u), abs(v)) <= 0.85
    if kind == "triangle":  # equal sides, its corners on the unit circle
        return np.maximum(-v, np.maximum(v / 2 + u * 3**0.5 / 2, v / 2 - u * 3**0.5 / 2)) <= 0.5
    if kind == "ring":
        return (u**2 + v**2 <= 1) & (u**2 + v**2 >= 0.3)
    return (np.maximum(abs(u), abs(v)) <= 1) & (np.minimum(abs(u), abs(v)) <= 0.33)


def mask_folder(
    *,
    data_dir: str,
    folder: DataPath,
    pictures: Name,
    masks: Name,
    shape: list[Size],
    classes: Size,
    ignore: Index | None,
    values: list[Index],
    max_pixels: Count,
    test_fraction: Fraction,
) -> Pairs:
    """Pictures and masks of the same names (whatever the suffixes), resized to cover `shape` and cropped in the middle.

    pictures, masks: subfolders of `folder`. A mask is a palette or grey picture: its numbers are the classes; or
    values: the number of each class in turn, such as [0, 255]. Pictures are decoded at every start; max_pixels: larger
    ones are refused.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"data.spec.shape={list(shape)}: expected channels (1 or 3), height, width")
    if values and (len(values) != classes or len(set(values)) != classes or max(values) > 255):
        raise DataError(
            f"data.source.values={list(values)}: expected {classes} different numbers up to 255, one for each class of "
            "data.spec.classes, or [] where the masks' numbers are the classes"
        )
    root = Path(os.path.expanduser(data_dir))
    place = find(folder, root, "data.source.folder", f"a folder with the folders {pictures} and {masks}")
    pairs = _pairs(place / pictures, place / masks)
    table = _table(classes, ignore, list(values))
    found, levels = _read_all(pairs, tuple(shape), max_pixels, table)
    order = np.random.RandomState(0).permutation(len(pairs))  # the names' order is often that of their making
    x, y = np.stack([found[i][0] for i in order]), np.stack([found[i][1] for i in order])
    num_test = round(test_fraction * len(x))
    if not 0 < num_test < len(x):
        raise DataError(
            f"data.source.test_fraction={test_fraction} of {counted(len(x), 'picture')} leaves a part empty\n"
            "  expected more pictures, or another fraction"
        )
    return Pairs(x[num_test:], y[num_test:], x[:num_test], y[:num_test], levels)


def _read_all(
    pairs: list[tuple[Path, Path]], shape: tuple[int, int, int], max_pixels: int, table: np.ndarray
) -> tuple[list[tuple[np.ndarray, np.ndarray]], Levels]:
    """Each picture (C, H, W) with its mask (H, W), and the levels of pictures that hold more than bytes."""
    read_as = partial(_picture, shape=shape, max_pixels=max_pixels)
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        pictures = list(pool.map(partial(read_as, levels={}), pairs))
        masks = list(pool.map(lambda pair: _mask(*pair, shape, table), pairs))
    levels = levels_of(each for each in pictures if isinstance(each, Held))
    pictures = [
        read_as(pair, levels=levels) if isinstance(each, Held) else each
        for pair, each in zip(pairs, pictures, strict=True)
    ]
    return list(zip(pictures, masks, strict=True)), levels


def _pairs(pictures: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Pictures with their masks, by name. Raises DataError where one has no partner."""
    found = []
    for place in (pictures, masks):
        files = [Path(name) for name in walk(place, PICTURES)]
        if not files:
            raise DataError(
                f"{place} has no pictures\n  expected a folder of {', '.join(PICTURES)}\n"
                "  put them there, or name others with data.source.folder, data.source.pictures, data.source.masks"
            )
        if all(len(path.parts) > 1 for path in files):
            top = sorted({path.parts[0] for path in files})
            way = f"name one of them, as in data.source.pictures={place.name}/{top[0]}, and the same for the masks"
            refuse_splits(place, top, way)
        by_name: dict[str, Path] = {}
        for path in files:
            name = path.with_suffix("").as_posix()
            if name in by_name:
                raise DataError(f"{by_name[name]} and {path.name} have one name: expected one file for each name")
            by_name[name] = place / path
        found.append(by_name)
    for mine, others, what in ((0, 1, "mask"), (1, 0, "picture")):
        alone = sorted(found[mine].keys() - found[others].keys())
        if alone:
            raise DataError(
                f"no {what} for {counted(len(alone), 'file')}: {some([str(found[mine][n]) for n in alone])}\n"
                f"  expected a picture in {pictures} and a mask in {masks} for each name, suffixes apart"
            )
    return [(path, found[1][name]) for name, path in found[0].items()]


def _table(classes: int, ignore: int | None, values: list[int]) -> np.ndarray:
    """The class of each of a mask's numbers; -1 where there is none."""
    table = np.full(256, -1, np.int16)
    if ignore is not None:
        table[ignore] = ignore
    for label in range(classes):
        table[values[label] if values else label] = label
    return table


def _picture(
    pair: tuple[Path, Path], shape: tuple[int, int, int], max_pixels: int, levels: Levels
) -> np.ndarray | Held:
    """The first of the two, as predictions read it. Raises DataError where it cannot be read."""
    pixels = read(pair[0], shape, "cover", max_pixels, levels)
    if isinstance(pixels, str):
        raise _unreadable(*pair, pixels)
    return pixels


def _unreadable(picture: Path, mask: Path, why: str) -> DataError:
    names = f"{printable(picture)} with {printable(mask.name)}"
    return DataError(f"{names}: cannot be read: {why}\n  mend or remove the two")


def _mask(picture: Path, mask: Path, shape: tuple[int, int, int], table: np.ndarray) -> np.ndarray:
    """The classes of a picture's pixels (H, W). Raises DataError where the two are no pair."""
    from PIL import Image, ImageOps

    try:
        size = upright_size(picture)
        if why := irregular(mask):
            raise OSError(f"the mask is {why}")
        with open(mask, "rb") as file, Image.open(file, formats=FORMATS) as found:
            drawn = ImageOps.exif_transpose(found)
            drawn = drawn.convert("L") if drawn.mode == "1" else drawn
            drawn.load()
    except Exception as error:  # a damaged file can fail in any way at all
        raise _unreadable(picture, mask, str(error)) from None
    if drawn.mode not in ("L", "P"):
        raise DataError(
            f"{mask} is a picture of mode {drawn.mode}: expected a palette or grey one, whose numbers are classes"
        )
    if size != drawn.size:
        was, has = ("x".join(map(str, reversed(each))) for each in (size, drawn.size))
        raise DataError(f"{picture} has {was} pixels, its mask {mask} has {has}: expected the same")
    y = table[np.asarray(drawn)]
    if y.min() < 0:
        wrong = np.unique(np.asarray(drawn)[y < 0]).astype(int)
        lossy = " (JPEG changes numbers: masks want PNG)" if mask.suffix.lower() in LOSSY else ""
        known = ", ".join(map(str, np.flatnonzero(table >= 0)))
        raise DataError(
            f"{mask} holds {', '.join(map(str, wrong[:5]))}{lossy}: expected {known}\n"
            "  set data.spec.classes, data.spec.ignore or data.source.values to what the masks hold"
        )
    y, wanted = Image.fromarray(y.astype(np.uint8)), (shape[2], shape[1])
    if size != wanted:
        y = ImageOps.fit(y, wanted, Image.Resampling.NEAREST)
    return np.asarray(y, np.uint8)
