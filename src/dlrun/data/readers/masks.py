"""Images with masks: synthetic coloured shapes, and folders of your own images and masks, paired by name.

The shapes are this project's own. A network must find a shape's outline, not its colour, which is random; shapes may
overlap.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np

from dlrun.data.base import Arrays
from dlrun.data.images.decode import odd_files, open_image, read, upright_size
from dlrun.data.images.levels import Levels, ValueRange, levels_of
from dlrun.data.images.mask_pairs import mask_splits
from dlrun.errors import DataError, counted, printable
from dlrun.paths import find, irregular
from dlrun.system.cpus import cpus
from dlrun.types import Byte, Count, DataPath, Few, Fraction, Name, NonNegative, Range, Seed, Size

KINDS = ("disc", "square", "triangle", "ring", "cross")  # classes 1, 2, ...; 0 is the background
LOSSY = (".jpg", ".jpeg")


class Pairs(NamedTuple):
    """Images and masks, uint8, and the levels of images with more than 8 bits a value (data/images/levels.py).

    num_val: number of the last train samples that are val by the folders; 0: val is cut from them. about: describes the
    splits that are folders.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    levels: Levels
    num_val: int = 0
    about: str = ""


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


def mask_folder(
    *,
    data_dir: str,
    folder: DataPath,
    images: Name,
    masks: Name,
    shape: list[Size],
    classes: Annotated[int, Range(1, 256)],
    ignore: Byte | None,
    values: list[Byte],
    max_pixels: Count,
    test_fraction: Fraction,
) -> Pairs:
    """Read images and masks of the same names (suffixes may differ), resized and cropped to `shape`.

    images, masks: subfolders of `folder`. A mask is a palette or grey image whose numbers are the classes. values:
    the number of each class in order, such as [0, 255]; [] for 0, 1, 2, ... max_pixels: larger images are refused.
    Folders train, val and test in `folder`, or in both subfolders, are the splits. The images are
    decoded at every start.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"data.spec.shape={list(shape)}: expected channels (1 or 3), height, width")
    if values and (len(values) != classes or len(set(values)) != classes or max(values) > 255):
        raise DataError(
            f"data.source.values={list(values)}: expected {counted(classes, 'different number')} up to 255, one for "
            "each class of data.spec.classes, or [] if the masks' numbers are the classes"
        )
    root = Path(os.path.expanduser(data_dir))
    source = find(folder, root, "data.source.folder", f"a folder with the folders {images} and {masks}")
    by_split, about = mask_splits(source, images, masks)
    pairs = [pair for pairs in by_split.values() for pair in pairs]
    table = _table(classes, ignore, list(values))
    arrays, levels = _read_all(pairs, (shape[0], shape[1], shape[2]), max_pixels, table)
    ends = np.cumsum([len(each) for each in by_split.values()])
    rows = {split: np.arange(end - len(by_split[split]), end) for split, end in zip(by_split, ends, strict=True)}
    order = np.random.RandomState(0).permutation(rows.pop("train"))  # names are often in order of creation
    num_test = round(test_fraction * len(order))
    train, test = (order, rows["test"]) if "test" in rows else (order[num_test:], order[:num_test])
    if not len(train) or not len(test):
        raise DataError(
            f"data.source.test_fraction={test_fraction} of {counted(len(order), 'image')} leaves a split empty\n"
            "  expected more images, or another fraction"
        )
    val = rows.get("val", order[:0])
    train = np.concatenate([train, val])
    stacks = [np.stack([arrays[i][part] for i in chosen]) for chosen in (train, test) for part in (0, 1)]
    return Pairs(stacks[0], stacks[1], stacks[2], stacks[3], levels, len(val), about)


def _read_all(
    pairs: list[tuple[Path, Path]], shape: tuple[int, int, int], max_pixels: int, table: np.ndarray
) -> tuple[list[tuple[np.ndarray, np.ndarray]], Levels]:
    """Read each image (C, H, W) with its mask (H, W), and the levels of images with more than 8 bits a value."""
    read_image = partial(_image, shape=shape, max_pixels=max_pixels)
    with odd_files(), ThreadPoolExecutor(min(16, cpus())) as pool:
        images = list(pool.map(partial(read_image, levels={}), pairs))
        masks = list(pool.map(partial(_mask, shape=shape, max_pixels=max_pixels, table=table), pairs))
    levels = levels_of(each for each in images if isinstance(each, ValueRange))
    for i, each in enumerate(images):
        if isinstance(each, ValueRange):
            images[i] = read_image(pairs[i], levels=levels)
    pixels = [each for each in images if isinstance(each, np.ndarray)]  # all of them: every kind now has its levels
    return list(zip(pixels, masks, strict=True)), levels


def _table(classes: int, ignore: int | None, values: list[int]) -> np.ndarray:
    """Return the class of each number in masks, int16 (256,); -1 for numbers that are no class."""
    table = np.full(256, -1, np.int16)
    if ignore is not None:
        table[ignore] = ignore
    for label in range(classes):
        table[values[label] if values else label] = label
    return table


def _image(
    pair: tuple[Path, Path], shape: tuple[int, int, int], max_pixels: int, levels: Levels
) -> np.ndarray | ValueRange:
    """Read the image of a pair, in the same way as for predictions. Raises DataError if it cannot be read."""
    pixels = read(pair[0], shape, "cover", max_pixels, levels)
    if isinstance(pixels, str):
        raise _unreadable(*pair, pixels)
    return pixels


def _unreadable(image: Path, mask: Path, why: str) -> DataError:
    names = f"{printable(image)} with {printable(mask.name)}"
    return DataError(f"{names}: cannot be read: {why}\n  repair or remove both")


def _mask(pair: tuple[Path, Path], shape: tuple[int, int, int], max_pixels: int, table: np.ndarray) -> np.ndarray:
    """Read the classes of an image's pixels (H, W). Raises DataError if the mask does not fit the image."""
    from PIL import Image, ImageOps

    image, mask = pair
    try:
        size = upright_size(image, max_pixels)
        if why := irregular(mask):
            raise OSError(f"the mask is {why}")
        with open(mask, "rb") as file, open_image(file, max_pixels) as opened:
            drawn = ImageOps.exif_transpose(opened)
            drawn = drawn.convert("L") if drawn.mode == "1" else drawn
            drawn.load()
    except Exception as error:  # a damaged file can raise anything
        raise _unreadable(image, mask, str(error)) from None
    if drawn.mode not in ("L", "P"):
        raise DataError(
            f"{mask} is an image of mode {drawn.mode}: expected a palette or grey image, whose numbers are classes"
        )
    if size != drawn.size:
        expected, actual = ("x".join(map(str, reversed(each))) for each in (size, drawn.size))
        raise DataError(f"{image} has {expected} pixels, its mask {mask} has {actual}: expected the same size")
    y = table[np.asarray(drawn)]
    if y.min() < 0:
        wrong = np.unique(np.asarray(drawn)[y < 0]).astype(int)
        lossy = " (JPEG changes numbers: use PNG for masks)" if mask.suffix.lower() in LOSSY else ""
        known = ", ".join(map(str, np.flatnonzero(table >= 0)))
        raise DataError(
            f"{mask} holds {', '.join(map(str, wrong[:5]))}{lossy}: expected {known}\n"
            "  set data.spec.classes, data.spec.ignore or data.source.values to the masks' numbers"
        )
    classes, wanted = Image.fromarray(y.astype(np.uint8)), (shape[2], shape[1])
    if size != wanted:
        classes = ImageOps.fit(classes, wanted, Image.Resampling.NEAREST)
    return np.asarray(classes, np.uint8)
