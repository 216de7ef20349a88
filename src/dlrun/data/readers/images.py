"""Readers of image data sets: IDX, CIFAR, scikit-learn's digits; grey and coloured digits; an image of numbers.

Each reader finds its files under `data_dir` in the publisher's layout, or downloads them.
"""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dlrun.data.base import Arrays
from dlrun.data.readers.files import checksum_of, first_file
from dlrun.data.readers.formats import damaged, read_cifar, read_idx
from dlrun.data.sources.fetch import fetch
from dlrun.data.sources.unpack import unpack
from dlrun.errors import DataError, counted
from dlrun.types import Count, Seed, Size


def idx(*, data_dir: str, download: bool, folder: str, mirrors: list[str], checksums: dict[str, str]) -> Arrays:
    """Read MNIST's format (yann.lecun.com/exdb/mnist), .gz or not, from `folder` or a folder named after the set."""
    if not Path(folder).parts:
        raise DataError(f"data.source.folder={folder!r}: expected a folder under data_dir, such as MNIST/raw")
    root = Path(os.path.expanduser(data_dir))
    top = Path(folder).parts[0]
    folders = [root / folder, root / top, root / top.lower(), root / top.lower() / "raw"]
    folders += [root / top.lower().replace("mnist", f"{mark}mnist").lstrip(mark) for mark in "_-"]
    names = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    files = {name: path for name in names if (path := first_file(folders, name))}
    wanted = [root / folder / name for name in names if name not in files]
    for path in wanted:
        checksum = checksum_of(checksums, path.name)
        urls = [mirror.rstrip("/") + "/" + path.name for mirror in mirrors]
        files[path.name] = fetch(urls, path, checksum, download=download, wanted=wanted)
    arrays = []
    for images, labels in (names[:2], names[2:]):
        x, y = read_idx(files[images], 3), read_idx(files[labels], 1)
        if len(x) != len(y):
            raise damaged(
                files[labels], counted(len(y), "label"), f"{len(x):,}, one for each image in {files[images].name}"
            )
        arrays += [x[:, None], y.astype(np.int64)]  # (N, 1, H, W), (N,)
    return Arrays(*arrays)


def coloured(
    *,
    data_dir: str,
    download: bool,
    folder: str,
    mirrors: list[str],
    checksums: dict[str, str],
    samples: Count,
    test_samples: Count,
    random_state: Seed,
) -> Arrays:
    """Draw digits from MNIST's files (see idx): class 0 keeps its digits grey, class 1 paints each in a bright colour.

    No digit is in both classes, so there are no pairs. All images have three channels; an image is a function of
    random_state and its number. samples, test_samples: of both classes together. Raises DataError if there are fewer.
    """
    digits = idx(data_dir=data_dir, download=download, folder=folder, mirrors=mirrors, checksums=checksums)
    rng = np.random.RandomState(random_state)
    arrays: list[np.ndarray] = []
    for name, x, count in (("samples", digits.x_train, samples), ("test_samples", digits.x_test, test_samples)):
        if count > len(x):
            raise DataError(f"data.source.{name}={count:,}: expected at most {len(x):,}, the digits that there are")
        grey = x[rng.permutation(len(x))[:count]]  # (count, 1, H, W)
        y = np.arange(count) % 2
        hue = 6 * rng.uniform(size=(count, 1))  # in sixths of the circle of colours
        colour = np.clip(np.abs((hue + np.array([[0, 4, 2]])) % 6 - 3) - 1, 0, 1)  # (count, 3), brightness 1
        colour[y == 0] = 1
        arrays += [np.rint(grey * colour[:, :, None, None]).astype(np.uint8), y.astype(np.int64)]
    return Arrays(*arrays)


class _Layout(NamedTuple):
    """One published form of CIFAR: the archive, the folder in it, its files, and the position of the label."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label: int | str  # number of label bytes before an image (the last one is used), or the pickle's key


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_CIFAR = {
    10: [
        _Layout("binary", "cifar-10-batches-bin", tuple(f"{b}.bin" for b in _BATCHES), ("test_batch.bin",), 1),
        _Layout("python", "cifar-10-batches-py", _BATCHES, ("test_batch",), "labels"),
    ],
    100: [
        _Layout("binary", "cifar-100-binary", ("train.bin",), ("test.bin",), 2),  # coarse, fine
        _Layout("python", "cifar-100-python", ("train",), ("test",), "fine_labels"),
    ],
}


def cifar(
    *, data_dir: str, download: bool, classes: Literal[10, 100], mirrors: list[str], checksums: dict[str, str]
) -> Arrays:
    """Read CIFAR-10 or CIFAR-100 (fine labels), the binary or the python version (cs.toronto.edu/~kriz/cifar.html)."""
    root = Path(os.path.expanduser(data_dir))
    layout = _find_cifar(root, classes, download, mirrors, checksums)
    folder = root / layout.folder
    for name in layout.train + layout.test:
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}\n  delete the folder, so that it is fetched again, or complete it")
    arrays: list[np.ndarray] = []
    for names in (layout.train, layout.test):
        arrays += read_cifar([folder / name for name in names], layout.label, classes)
    return Arrays(*arrays)


def _find_cifar(root: Path, classes: int, download: bool, mirrors: list[str], checksums: dict[str, str]) -> _Layout:
    """Return the layout that is there. Downloads and unpacks an archive if there is none."""
    layouts = _CIFAR[classes]
    for layout in layouts:
        if (root / layout.folder).is_dir():
            return layout
    archives = [root / f"cifar-{classes}-{layout.archive}.tar.gz" for layout in layouts]
    chosen = next((i for i, path in enumerate(archives) if path.exists()), 0)
    archive, is_users = archives[chosen], archives[chosen].exists()
    urls = [mirror.rstrip("/") + "/" + archive.name for mirror in mirrors]
    fetch(urls, archive, checksum_of(checksums, archive.name), download=download)
    unpack(archive, root / layouts[chosen].folder)
    if not is_users:
        archive.unlink(missing_ok=True)  # 170 MB that this function has downloaded
    return layouts[chosen]


def digits() -> Arrays:
    """Read scikit-learn's 1,797 digits from its file: importing it takes a second. A fifth is the test split."""
    package = find_spec("sklearn")
    folders = (package.submodule_search_locations if package else None) or ["sklearn"]
    path = Path(folders[0], "datasets", "data", "digits.csv.gz")
    if not path.is_file():
        raise DataError(f"{path} does not exist\n  expected scikit-learn's digits\n  pip install scikit-learn")
    rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # 64 pixels of 0 .. 16, then the digit
    x = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    y = rows[:, -1].astype(np.int64)
    rng, test = np.random.RandomState(0), np.zeros(len(y), bool)
    for digit in range(10):  # the same share of each digit
        indices = rng.permutation(np.flatnonzero(y == digit))
        test[indices[: round(0.2 * len(indices))]] = True
    return Arrays(x[~test], y[~test], x[test], y[test])


def counting(*, height: Size, width: Size) -> Arrays:
    """An image of the numbers 1, 2, 3 and so on, row by row, by which convolutions are checked (the book, 10.11.2)."""
    if height * width > 255:
        raise DataError(
            f"data.source.height={height} data.source.width={width}: the numbers would go up to {height * width}\n"
            "  expected at most 255, the largest of a byte"
        )
    x = np.arange(1, height * width + 1, dtype=np.uint8).reshape(1, 1, height, width)
    return Arrays(x.repeat(2, 0), np.zeros(2, np.int64), x, np.zeros(1, np.int64))
