"""Folders of images: labelled by folders, names or a list, or without labels. Decoded once, in parallel, to a cache.

Source: the book, sections 15.1 and 15.2 (images.csv, 60/20/20, resize, random crop and flip, normalisation).
Deviations: val and test images are not augmented; they are cropped in the middle.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import Arrays
from dlrun.data.classes import check_labels
from dlrun.data.images.cache import Cache, cached
from dlrun.data.images.label_file import ListFormat
from dlrun.data.images.labelling import DEFAULT, Labelling
from dlrun.data.images.levels import Levels, describe_levels
from dlrun.data.images.lists import Classes, Listing, check_splits, find_root, split
from dlrun.data.images.pixels import Pixels
from dlrun.data.images.streamed import Streamed, free_memory
from dlrun.data.resident import Resident, check_contrast
from dlrun.data.splits import cut
from dlrun.errors import DataError, UserError, counted, printable, some
from dlrun.spec import Image
from dlrun.types import Augmentation, Count, DataPath, Fraction, Index, Name, Positive, Sampler, Size


class ImageFolder:
    """A data set of image files. Nothing is read before `load`, except the classes' names if the spec is read earlier.

    label_file, label_pattern: see labelling.py; None for images.csv if it is there, else the folders.
    resize: (height, width) of the cached images, at least the spec's; None for the spec's. resident: whether all images
    are stored on the device or read ahead from the cache; auto: on the device if they take at most half the free
    memory. max_pixels: larger images are left out.
    """

    def __init__(
        self,
        *,
        spec: Image,
        data_dir: str,
        root: DataPath,
        layout: Literal["auto", "folders", "flat", "csv"],
        label_file: Name | None,
        label_pattern: Name | None,
        path_column: Name | None,
        label_column: Name | None,
        folder: str,
        suffix: str,
        write_csv: bool,
        resize: tuple[Size, Size] | None,
        max_pixels: Count,
        fit: Literal["cover", "stretch"],
        split: tuple[Fraction, Fraction, Fraction],
        stratify: bool,
        folds: Index,
        fold: Index,
        resident: bool | Literal["auto"],
        batch_size: Count,
        eval_batch_size: Count,
        mean: list[float],
        std: list[Positive],
        augment: Augmentation,
        sampler: Sampler,
    ) -> None:
        _check(spec, resize, layout, write_csv)
        self.config_spec: Image = spec
        self.classes: tuple[str, ...] | None = None
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.pixels, self.mean, self.std = Pixels(spec.shape, mean, std, augment), mean, std
        self.data_dir = Path(os.path.expanduser(data_dir))
        self.root, self.layout, self.form = root, layout, ListFormat(path_column, label_column, folder, suffix)
        self.labelling = Labelling(layout, label_file, label_pattern, self.form, write_csv)
        self.stored, self.fit = (spec.shape[0], *(resize or spec.shape[1:])), fit
        self.max_pixels: int = max_pixels
        self.levels: Levels | None = None
        self.split_config, self.folds = (split, stratify, folds, fold), folds
        self.resident, self.sampler = resident, sampler
        self.header_lines: dict[str, str] = {}

    @property
    def spec(self) -> Image:
        """The config's spec with the classes' names, which are read from the folder if the config has none."""
        if self.layout == "flat" or self.config_spec.classes is not None and self.classes is None:
            return self.config_spec
        if self.classes is None:
            self.classes = self._list()[1].classes
        return Image(self.config_spec.shape, len(self.classes) or None, self.classes)

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Decode the images that are not cached yet; put them on the device or prepare to stream. Raises DataError."""
        root, listing = self._list()
        self.labelling.write(root, listing)
        self._read(root, listing)
        self.classes = listing.classes
        self.restore(self.fitted(), device, channels_last)
        fractions, stratify, folds, fold = self.split_config
        if listing.fixed:
            labels = listing.labels if stratify and listing.classes else None
            splits = cut(dict(listing.fixed), fractions, folds, fold, labels)
        else:
            splits = split(listing.labels, fractions, stratify, folds, fold)
        splits = {name: self._readable(rows, listing) for name, rows in splits.items()}
        check_splits(splits, listing)
        self._store(listing, splits)

    def load_like(self, fitted: dict, device: torch.device) -> None:
        """Read all images as those of a run whose data has learned `fitted`. They are the test split."""
        self.restore(fitted, device)
        root, listing = self._list(Classes(self.classes or (), None, is_subset=True))
        if len(listing.classes) != len(self.classes or ()):
            raise DataError(
                f"{root} has no class folders and no {self.labelling.label_file or DEFAULT}: there are no labels to "
                "compare with"
            )
        learned = self.levels
        self._read(root, listing)
        self.levels = learned
        rows = self._readable(np.arange(len(listing.names)), listing)
        self._store(listing, {"train": rows[:0], "val": rows[:0], "test": rows})

    def _read(self, root: Path, listing: Listing) -> None:
        self.cache = cached(root, sorted(listing.names), (self.stored, self.fit, self.max_pixels), self.data_dir)
        self.bad, self.levels = bad_names(self.cache, listing), self.cache.levels or None
        self.header_lines = {"splits": listing.split_note} if listing.split_note else {}
        check_contrast(self.cache.pixels, self.cache.bad, str(root))

    def _readable(self, rows: np.ndarray, listing: Listing) -> np.ndarray:
        """Leave out broken images after the split, so that none changes the split of the others."""
        return rows[[printable(listing.names[row]) not in self.bad for row in rows]]

    def _store(self, listing: Listing, splits: dict[str, np.ndarray]) -> None:
        cache_rows = np.argsort(np.argsort(listing.names))  # the cache is in alphabetical order, whatever the split
        y = np.empty(len(cache_rows), np.int64)
        y[cache_rows] = listing.labels
        self.names = {name: [listing.names[row] for row in rows] for name, rows in splits.items()}
        splits = {name: cache_rows[rows] for name, rows in splits.items()}
        x, device = self.cache.pixels, self.device
        free, self.why = free_memory(device), ""
        if self.resident is True or self.resident == "auto" and x.nbytes <= free / 2:
            arrays = Arrays(x, y, x[:0], y[:0])
            self.storage: Resident | Streamed = Resident(arrays, splits, device, self.pixels)
        else:
            self.storage = Streamed(x, y, splits, device, self.pixels)
            if self.resident:
                self.why = f" (more than half of the {free / 2**20:,.1f} MB free on {device})"

    def fitted(self) -> dict:
        """Return the classes' names, and the levels of images with more than 8 bits a value."""
        levels = {"levels": {kind: list(ends) for kind, ends in self.levels.items()}} if self.levels else {}
        return {"classes": list(self.classes or ()), **levels}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        self.classes, self.levels, self.device = tuple(fitted["classes"]), fitted.get("levels"), device
        self.pixels.to(device, channels_last)

    def encode(self, pixels: Tensor) -> Tensor:
        """Normalise cached images: uint8 (B, C, H, W) -> float (B, C, H, W)."""
        return self.pixels(pixels.to(self.device), None)

    def size(self, split: str) -> int:
        return self.storage.size(split)

    def targets(self, split: str) -> Tensor:
        """Return the labels of a split, in the order of `files`."""
        return self.storage.targets(split)

    def origins(self, split: str) -> list[str]:
        """Return the samples' file names, in the order of `targets`."""
        return self.files(split)

    def files(self, split: str) -> list[str]:
        """Return the samples' file names under the root, in the order of `batches` (val and test)."""
        return self.names[split]

    def digest(self) -> str:
        """Return a hash of the rows of the splits, the labels and some of the pixels."""
        return self.storage.digest()

    def sums(self) -> list[int]:
        """Return checksums of all pixels, to detect changed data."""
        return self.cache.sums

    def describe(self) -> str:
        text = f"{self.storage.describe()}{self.why}{describe_levels(self.levels or {})}"
        if self.cache.path.parent != self.data_dir / "cache":
            text += f"; {self.data_dir} cannot be written to, so the cache is {self.cache.path}"
        if self.bad:
            names = some([f"{name} ({why})" for name, why in self.bad.items()])
            count = counted(len(self.cache.pixels), "image")
            text += f"\n{len(self.bad)} of {count} cannot be read and are left out: {names}"
        return text

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (x, y): x float (B, C, H, W), normalised; y int64 (B,). Train: from batch `first` on."""
        if split == "train":
            return self.storage.train(self.batch_size, self.sampler, seed, epoch, first)
        return self.storage.evaluate(split, self.eval_batch_size)

    def _list(self, classes: Classes | None = None) -> tuple[Path, Listing]:
        """Find the root folder and list its images. classes: None for those of the config."""
        classes = classes or Classes(self.config_spec.labels, self.config_spec.classes)
        root = find_root(self.root, self.data_dir)
        listing = self.labelling.listing(root, classes)
        if self.config_spec.classes is not None and not listing.classes:
            raise DataError(
                f"{root} has no class folders and no {self.labelling.label_file or DEFAULT}, "
                f"data.spec.classes={self.config_spec.classes}\n"
                "  expected one folder per class, or data.spec.classes=null for images without labels"
            )
        return root, listing


def _check(spec: Image, resize: tuple[int, int] | None, layout: str, writes: bool) -> None:
    shape = list(spec.shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"data.spec.shape={shape}: expected channels (1 or 3), height, width")
    if resize and (resize[0] < shape[1] or resize[1] < shape[2]):
        raise UserError(
            f"data.resize={list(resize)} is smaller than data.spec.shape={shape}: expected at least {shape[1:]}, "
            "the size of the crop, or null"
        )
    check_labels(spec.labels, spec.classes)
    if layout == "flat" and (spec.classes or spec.labels or writes):
        raise UserError(
            "data.layout=flat is for images without labels: expected data.spec.classes=null, data.spec.labels=[] and "
            "data.write_csv=false"
        )


def bad_names(cache: Cache, listing: Listing) -> dict[str, str]:
    """Return the names of the images that could not be read, each with the reason."""
    names = sorted(listing.names)
    return {printable(names[row]): why for row, why in sorted(cache.bad.items())}
