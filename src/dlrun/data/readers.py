"""The formats that data sets are published in, as NumPy arrays: IDX, CIFAR, digits, moons, a line, Auto MPG.

Each reader finds its files under `data_dir` in the publisher's layout, or fetches them. Splits and made points come
from `np.random.RandomState`, whose stream NumPy has frozen: the same rows in every run, under every version.
"""

import os
from importlib.util import find_spec
from math import ceil, pi
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from dlrun.data.formats import damaged, read_cifar, read_idx
from dlrun.data.sources import fetch, unpack
from dlrun.errors import DataError
from dlrun.types import Count, Fraction, NonNegative, Seed

LARGEST = float(np.finfo(np.float32).max)


class Arrays(NamedTuple):
    """Pictures are uint8 (N, C, H, W), rows float32 (N, features); labels int64 (N,), targets float32 (N, targets)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def idx(*, data_dir: str, download: bool, folder: str, mirrors: list[str], checksums: dict[str, str]) -> Arrays:
    """MNIST's format (yann.lecun.com/exdb/mnist), unpacked or .gz, in `folder` or in one named after the set."""
    root = Path(os.path.expanduser(data_dir))
    top = Path(folder).parts[0]
    places = [root / folder, root / top, root / top.lower(), root / top.lower() / "raw"]
    places += [root / top.lower().replace("mnist", f"{mark}mnist").lstrip(mark) for mark in "_-"]
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    found = {name: _first_file(places, name) for name in names}
    wanted = [root / folder / name for name in names if not found[name]]
    for path in wanted:
        checksum = _checksum(checksums, path.name)
        urls = [mirror.rstrip("/") + "/" + path.name for mirror in mirrors]
        found[path.name] = fetch(urls, path, checksum, download=download, wanted=wanted)
    parts = []
    for images, labels in (names[:2], names[2:]):
        x, y = read_idx(found[images], 3), read_idx(found[labels], 1)
        if len(x) != len(y):
            raise damaged(found[labels], f"{len(y):,} labels", f"{len(x):,}, as images in {found[images].name}")
        parts += [x[:, None], y.astype(np.int64)]  # (N, 1, H, W), (N,)
    return Arrays(*parts)


def _first_file(places: list[Path], name: str) -> Path | None:
    """`name` without .gz where it lies unpacked (read ten times as fast), else as it is."""
    paths = [place / file for place in places for file in (name.removesuffix(".gz"), name)]
    return next((path for path in paths if path.is_file()), None)


def _checksum(checksums: dict[str, str], name: str) -> str:
    if name not in checksums:
        raise DataError(f"data.source.checksums has no {name!r}; it has {', '.join(checksums) or 'nothing'}")
    return checksums[name]


class _Layout(NamedTuple):
    """One publication of CIFAR: the archive, the folder in it, its files, and where the label is."""

    archive: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label: int | str  # bytes of labels before a picture (the last counts), or the pickle's key


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
    """CIFAR-10 or CIFAR-100 (fine labels), of the binary or the python archive (cs.toronto.edu/~kriz/cifar.html)."""
    root = Path(os.path.expanduser(data_dir))
    layout = _find_cifar(root, classes, download, mirrors, checksums)
    folder = root / layout.folder
    for name in layout.train + layout.test:
        if not (folder / name).is_file():
            raise DataError(f"{folder} has no {name}\n  delete the folder, so that it is fetched again, or complete it")
    parts = []
    for names in (layout.train, layout.test):
        parts += read_cifar([folder / name for name in names], layout.label, classes)
    return Arrays(*parts)


def _find_cifar(root: Path, classes: int, download: bool, mirrors: list[str], checksums: dict[str, str]) -> _Layout:
    layouts = _CIFAR[classes]
    for layout in layouts:
        if (root / layout.folder).is_dir():
            return layout
    archives = [root / f"cifar-{classes}-{layout.archive}.tar.gz" for layout in layouts]
    chosen = next((i for i, path in enumerate(archives) if path.exists()), 0)
    archive, kept = archives[chosen], archives[chosen].exists()
    urls = [mirror.rstrip("/") + "/" + archive.name for mirror in mirrors]
    fetch(urls, archive, _checksum(checksums, archive.name), download=download)
    unpack(archive, root / layouts[chosen].folder)
    if not kept:
        archive.unlink(missing_ok=True)  # 170 MB that nobody put there by hand
    return layouts[chosen]


def digits() -> Arrays:
    """The 1,797 pictures in scikit-learn's own file, without the second that importing it takes; a fifth is test."""
    package = find_spec("sklearn")
    path = Path(package.submodule_search_locations[0] if package else "sklearn", "datasets", "data", "digits.csv.gz")
    if not path.is_file():
        raise DataError(f"{path} is not there\n  expected scikit-learn's digits\n  pip install scikit-learn")
    rows = np.loadtxt(path, delimiter=",", dtype=np.uint8)  # 64 pixels of 0 .. 16, then the digit
    x = np.rint(rows[:, :-1] * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
    y = rows[:, -1].astype(np.int64)
    rng, test = np.random.RandomState(0), np.zeros(len(y), bool)
    for digit in range(10):  # the same share of each
        where = rng.permutation(np.flatnonzero(y == digit))
        test[where[: round(0.2 * len(where))]] = True
    return Arrays(x[~test], y[~test], x[test], y[test])


def moons(*, samples: Count, noise: NonNegative, test_fraction: Fraction, random_state: Seed) -> Arrays:
    """scikit-learn's make_moons and train_test_split(random_state=42), to the bit, without the second that it takes."""
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
        raise DataError(f"data.source.{key} of {whole} rows leaves nothing to train on or nothing to test on")
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
    """y = w x + b + noise, x uniform on [low, high)."""
    if not low < high:
        raise DataError(f"data.source.low={low} is not below data.source.high={high}")
    rng = np.random.RandomState(random_state)
    parts = []
    for num in (samples, test_samples):
        x = rng.uniform(low, high, (num, 1))
        y = w * x + b + rng.normal(0, noise, (num, 1))
        parts += [x.astype(np.float32), y.astype(np.float32)]
    return Arrays(*parts)


def auto_mpg(
    *,
    data_dir: str,
    download: bool,
    mirrors: list[str],
    checksums: dict[str, str],
    train_fraction: Fraction,
    random_state: Seed,
) -> Arrays:
    """The file's 392 whole rows in the order of the book's pandas `sample(frac, random_state)`; the rest is test."""
    root, name = Path(os.path.expanduser(data_dir)), "auto-mpg.data"
    path = _first_file([root / "auto_mpg", root], name)
    if not path:
        urls = [mirror.rstrip("/") + "/" + name for mirror in mirrors]
        path = fetch(urls, root / "auto_mpg" / name, _checksum(checksums, name), download=download)
    rows = np.array(_cars(path), np.float64)  # mpg, 6 features, origin
    x = np.concatenate([rows[:, 1:7], rows[:, 7:] == (1, 2, 3)], 1).astype(np.float32)
    y = rows[:, :1].astype(np.float32)
    num = _share(round(train_fraction * len(rows)), len(rows), f"train_fraction={train_fraction}")
    train = np.random.RandomState(random_state).choice(len(rows), num, replace=False)
    test = np.setdiff1d(np.arange(len(rows)), train)
    return Arrays(x[train], y[train], x[test], y[test])


def _cars(path: Path) -> list[list[float]]:
    """mpg, cylinders, displacement, horsepower, weight, acceleration, year, origin of each whole row; ? drops a row."""
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
            raise damaged(path, f"line {number}: {line[:60]!r}", "8 numbers or ?, the last one 1, 2 or 3")
        if len(known) == 8:
            cars.append(known)
    if not cars:
        raise damaged(path, "no rows", "8 numbers a line")
    return cars
