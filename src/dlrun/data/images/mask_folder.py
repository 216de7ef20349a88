"""Folders of your own images and masks, paired by name. They are decoded at every start."""

import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from dlrun.data.images.decode import odd_files, open_image, read, upright_size
from dlrun.data.images.levels import Levels, ValueRange, levels_of
from dlrun.data.images.mask_pairs import mask_splits
from dlrun.data.images.masks import Masks, Pairs
from dlrun.errors import DataError, UserError, counted, printable
from dlrun.paths import find, irregular
from dlrun.spec import Mask
from dlrun.system.cpus import cpus
from dlrun.types import Augmentation, Byte, Count, DataPath, Fraction, Index, Name, Positive

LOSSY = (".jpg", ".jpeg")


class MaskFolder(Masks):
    """A data set of your own images and masks of the same names (suffixes may differ), cropped to the spec's shape.

    images, masks: subfolders of `root`. A mask is a palette or grey image whose numbers are the classes. values: the
    number of each class in order, such as [0, 255]; [] for 0, 1, 2, ... max_pixels: larger images are refused. Folders
    train, val and test in `root`, or in both subfolders, are the splits; else test_fraction is the share of test.
    """

    def __init__(
        self,
        *,
        spec: Mask,
        data_dir: str,
        root: DataPath,
        images: Name,
        masks: Name,
        values: list[Byte],
        max_pixels: Count,
        test_fraction: Fraction,
        batch_size: Count,
        eval_batch_size: Count,
        val_fraction: Fraction,
        folds: Index,
        fold: Index,
        mean: list[float],
        std: list[Positive],
        augment: Augmentation,
    ) -> None:
        _check(spec, values)
        super().__init__(
            spec=spec, source=self._pairs, batch_size=batch_size, eval_batch_size=eval_batch_size,
            val_fraction=val_fraction, folds=folds, fold=fold, mean=mean, std=std, augment=augment,
        )  # fmt: skip
        self.data_dir, self.root, self.subfolders = Path(os.path.expanduser(data_dir)), root, (images, masks)
        self.fit, self.max_pixels, self.test_fraction = "cover", max_pixels, test_fraction
        self.class_table = _table(spec.classes, spec.ignore, list(values))

    def _pairs(self) -> Pairs:
        """Read all images and masks."""
        images, masks = self.subfolders
        source = find(self.root, self.data_dir, "data.root", f"a folder with the folders {images} and {masks}")
        by_split, split_note = mask_splits(source, images, masks)
        pairs = [pair for pairs in by_split.values() for pair in pairs]
        arrays, levels = _read_all(pairs, self.spec.shape, self.max_pixels, self.class_table)
        ends = np.cumsum([len(each) for each in by_split.values()])
        rows = {split: np.arange(end - len(by_split[split]), end) for split, end in zip(by_split, ends, strict=True)}
        order = np.random.RandomState(0).permutation(rows.pop("train"))  # names are often in order of creation
        num_test = round(self.test_fraction * len(order))
        train, test = (order, rows["test"]) if "test" in rows else (order[num_test:], order[:num_test])
        if not len(train) or not len(test):
            raise DataError(
                f"data.test_fraction={self.test_fraction} of {counted(len(order), 'image')} leaves a split empty\n"
                "  expected more images, or another fraction"
            )
        val = rows.get("val", order[:0])
        train = np.concatenate([train, val])
        stacks = [np.stack([arrays[i][part] for i in chosen]) for chosen in (train, test) for part in (0, 1)]
        return Pairs(stacks[0], stacks[1], stacks[2], stacks[3], levels, len(val), split_note)


def _check(spec: Mask, values: list[int]) -> None:
    if spec.shape[0] not in (1, 3):
        raise UserError(f"data.spec.shape={list(spec.shape)}: expected channels (1 or 3), height, width")
    if values and (len(values) != spec.classes or len(set(values)) != spec.classes):
        raise UserError(
            f"data.values={list(values)}: expected {counted(spec.classes, 'different number')} up to 255, one for "
            "each class of data.spec.classes, or [] if the masks' numbers are the classes"
        )


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
            "  set data.spec.classes, data.spec.ignore or data.values to the masks' numbers"
        )
    classes, wanted = Image.fromarray(y.astype(np.uint8)), (shape[2], shape[1])
    if size != wanted:
        classes = ImageOps.fit(classes, wanted, Image.Resampling.NEAREST)
    return np.asarray(classes, np.uint8)
