"""Folders of pictures: by class, by a CSV, or without labels; decoded once, in parallel, to a memory-mapped cache.

Source: book sections 15.1 and 15.2 (images.csv, 60/20/20, resize, random crop and flip, normalisation).
Deviations: val and test pictures are not augmented; there the middle is taken.
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
from dlrun.data.image_cache import Cache, cached
from dlrun.data.image_lists import Listing, by_csv, by_folders, find_root, split, write_csv
from dlrun.data.levels import told
from dlrun.data.pixels import Pixels
from dlrun.data.resident import Resident, check_contrast
from dlrun.data.streamed import Streamed, free_memory
from dlrun.errors import DataError, UserError, printable, some
from dlrun.spec import Image
from dlrun.types import Augmentation, Count, DataPath, Fraction, Index, Name, Positive, Size


class ImageFolder:
    """A data set of picture files. Nothing is read before `load`, but the classes' names where a net asks for the spec.

    resize: (height, width) of the cached pictures, at least the spec's; None for the spec's. resident: whether they lie
    on the device, whole, or are read ahead from the cache; auto: the first where it takes at most half the free memory.
    max_pixels: larger pictures are left out.
    """

    def __init__(
        self,
        *,
        spec: Image,
        data_dir: str,
        root: DataPath,
        layout: Literal["auto", "folders", "flat", "csv"],
        csv: Name,
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
    ) -> None:
        _check(spec, resize, layout, write_csv)
        self.given, self.classes = spec, None
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.pixels, self.mean, self.std = Pixels(spec.shape, mean, std, augment), mean, std
        self.data_dir = Path(os.path.expanduser(data_dir))
        self.place, self.layout, self.csv, self.write_csv = root, layout, csv, write_csv
        self.stored, self.fit = (spec.shape[0], *(resize or spec.shape[1:])), fit
        self.max_pixels, self.levels = max_pixels, None
        self.split, self.wanted = (split, stratify, folds, fold), resident

    @property
    def spec(self) -> Image:
        """As given, with the classes' names once they are known; they are looked for where none are given."""
        if self.layout == "flat" or self.given.classes is not None and self.classes is None:
            return self.given
        if self.classes is None:
            self.classes = self._list()[1].classes
        return Image(self.given.shape, len(self.classes) or None, self.classes)

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Decode what was not decoded before, and put it on the device or read it ahead. Raises DataError."""
        root, listing = self._list()
        if self.write_csv and not (file := self._csv(root)).is_file():
            write_csv(file, listing)
        self.cache = cached(root, sorted(listing.names), (self.stored, self.fit, self.max_pixels), self.data_dir)
        self.bad, self.classes = bad_names(self.cache, listing), listing.classes
        self.levels = self.cache.levels or None
        check_contrast(self.cache.pixels, self.cache.bad, str(root))
        self.restore(self.fitted(), device, channels_last)
        parts = split(listing.labels, *self.split)  # of all, so that a broken picture moves no other one
        parts = {
            part: rows[[printable(listing.names[row]) not in self.bad for row in rows]] for part, rows in parts.items()
        }
        check_parts(parts, listing)
        rows = np.argsort(np.argsort(listing.names))  # in the cache, which does not know the split
        y = np.empty(len(rows), np.int64)
        y[rows] = listing.labels
        self.names = {part: [listing.names[row] for row in mine] for part, mine in parts.items()}
        parts = {part: rows[mine] for part, mine in parts.items()}
        x, free = self.cache.pixels, free_memory(device)
        if self.wanted is True or self.wanted == "auto" and x.nbytes <= free / 2:
            arrays = Arrays(x, y, x[:0], y[:0])
            self.parts, self.why = Resident(arrays, parts, device, self.pixels), ""
        else:
            self.parts = Streamed(x, y, parts, device, self.pixels)
            self.why = f" (more than half of the {free / 2**20:,.1f} MB free on {device})" if self.wanted else ""

    def fitted(self) -> dict:
        """What it learned from the folder: the classes' names, and the levels of pictures that hold more than bytes."""
        levels = {"levels": {kind: list(ends) for kind, ends in self.levels.items()}} if self.levels else {}
        return {"classes": list(self.classes or ()), **levels}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Ready to encode, without reading any data."""
        self.classes, self.levels, self.device = tuple(fitted["classes"]), fitted.get("levels"), device
        self.pixels.to(device, channels_last)

    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures as the cache has them, uint8 (B, C, H, W), as the network takes them."""
        return self.pixels(pixels.to(self.device), None)

    def size(self, split: str) -> int:
        return self.parts.size(split)

    def files(self, split: str) -> list[str]:
        """The samples' files, in the order of `batches` (val and test)."""
        return self.names[split]

    def digest(self) -> str:
        """The same as long as the data is: its rows, labels, and some of its content."""
        return self.parts.digest()

    def sums(self) -> list[int]:
        """What tells whether the pictures are what they were, every pixel of them."""
        return self.cache.sums

    def describe(self) -> str:
        said = f"{self.parts.describe()}{self.why}{told(self.levels or {})}"
        if self.cache.path.parent != self.data_dir / "cache":
            said += f"; {self.data_dir} cannot be written to, so the cache is {self.cache.path}"
        if self.bad:
            named = some([f"{name} ({why})" for name, why in self.bad.items()])
            count = f"{len(self.bad)} of {len(self.cache.pixels):,}"
            said += f"\n          {count} pictures cannot be read and are left out: {named}"
        return said

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y): x float (B, C, H, W), normalised; y int64 (B,). Train: in the epoch's order from batch `first` on."""
        if split == "train":
            return self.parts.train(self.batch_size, seed, epoch, first)
        return self.parts.evaluate(split, self.eval_batch_size)

    def _csv(self, root: Path) -> Path:
        return root / Path(os.path.expanduser(self.csv))

    def _list(self) -> tuple[Path, Listing]:
        """The root and what is in it."""
        root, classes = find_root(self.place, self.data_dir), self.given.labels
        file = self._csv(root)
        if self.layout == "csv" and not file.is_file() and not self.write_csv:
            raise DataError(
                f"data.csv={self.csv}: there is no file {file}\n"
                "  expected rows of path and label; data.write_csv=true writes it from the class folders"
            )
        if file.is_file() and self.layout in ("auto", "csv"):
            listing = by_csv(root, file, classes, self.given.classes)
        else:
            listing = by_folders(root, classes, self.given.classes, self.layout)
            if self.write_csv and not listing.classes:
                raise DataError(f"data.write_csv=true: {root} has no class folders to write labels from")
        if self.given.classes is not None and not listing.classes:
            raise DataError(
                f"{root} has no class folders and no {self.csv}, data.spec.classes={self.given.classes}\n"
                "  expected one folder per class, or data.spec.classes=null for pictures without labels"
            )
        return root, listing


def _check(spec: Image, resize: tuple[int, int] | None, layout: str, writes: bool) -> None:
    shape = list(spec.shape)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise UserError(f"data.spec.shape={shape}: expected channels (1 or 3), height, width")
    if resize and (resize[0] < shape[1] or resize[1] < shape[2]):
        raise UserError(
            f"data.resize={list(resize)} is smaller than data.spec.shape={shape}: expected at least {shape[1:]}, "
            "which are cut out of it, or null"
        )
    check_labels(spec.labels, spec.classes)
    if layout == "flat" and (spec.classes or spec.labels or writes):
        raise UserError(
            "data.layout=flat is for pictures without labels: expected data.spec.classes=null, data.spec.labels=[] and "
            "data.write_csv=false"
        )


def bad_names(cache: Cache, listing: Listing) -> dict[str, str]:
    """Why some pictures could not be read, by name."""
    names = sorted(listing.names)
    return {printable(names[row]): why for row, why in sorted(cache.bad.items())}


def check_parts(parts: dict[str, object], listing: Listing) -> None:
    """Raise DataError where a part is empty, or where there is too little to learn a class from and to judge it by."""
    for part, rows in parts.items():
        if not len(rows):
            raise DataError(f"no picture of the {part} part can be read: expected pictures that Pillow opens")
    readable = np.bincount(listing.labels[np.concatenate(list(parts.values()))], minlength=len(listing.classes))
    counts = [(name, readable[label]) for label, name in enumerate(listing.classes)]
    few = [f"{name} ({count})" for name, count in counts if count < len(parts)]
    if few:
        raise DataError(
            f"of some classes fewer than {len(parts)} pictures can be read: {some(few)}\n"
            "  expected one to train, one to validate and one to test at least: mend the files, or leave the class out"
        )
    there = set(listing.labels[parts["train"]].tolist())
    missing = [name for label, name in enumerate(listing.classes) if label not in there]
    if missing:
        raise DataError(
            f"the train part has no picture of {some(missing)}\n"
            "  expected all classes: data.stratify=true gives each part its share of every class"
        )
