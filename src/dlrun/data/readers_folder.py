"""Any folder of pictures, flat or by class: decoded once, in parallel, into a memory-mapped cache of bytes.

The cache lies under the data folder, in `cache/`, in a file named by all that made it (paths, sizes and times of the
pictures, the shape asked for), and is written whole or not at all. Pictures that cannot be read are left out and named.
"""

import hashlib
import json
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from dlrun.data.readers import Arrays
from dlrun.data.sources import lock
from dlrun.errors import DataError
from dlrun.types import Count, Fraction

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
FORM = 1  # of the cache: changes with what is done to pictures here


def pictures(*, data_dir: str, folder: str, shape: list[Count], test_fraction: Fraction) -> Arrays:
    """The pictures under `folder` (in `data_dir`, or a path of its own), resized and cropped, in a fixed order.

    Labels are the subfolders in alphabetical order, or 0 where the folder is flat. shape: (channels, height, width).
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise DataError(f"data.spec.shape={list(shape)}: expected channels (1 or 3), height, width")
    root = Path(data_dir).expanduser()
    place = root / Path(folder).expanduser()
    files = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not files:
        kinds = ", ".join(sorted(SUFFIXES))
        raise DataError(
            f"{place} has no pictures\n  expected a folder of {kinds}, flat or with one folder per class\n"
            "  put them there, or name another with data.source.folder=... (or data_dir=...)"
        )
    order = np.random.RandomState(0).permutation(len(files))  # the files' order is often that of their making
    made_by = [[p.relative_to(place).as_posix(), p.stat().st_size, p.stat().st_mtime_ns] for p in files]
    key = hashlib.sha256(json.dumps([FORM, list(shape), made_by]).encode()).hexdigest()[:24]
    cache = root / "cache" / f"{place.name}-{key}.npy"
    broken = cache.with_suffix(".json")
    try:
        with lock(cache):
            if not (cache.is_file() and broken.is_file()):
                _decode(place, [files[i] for i in order], tuple(shape), cache, broken)
    except OSError as error:
        raise DataError(
            f"cannot write the cache {cache}: {error.strerror}\n  expected a data folder with room"
        ) from error
    bad = json.loads(broken.read_text(encoding="utf-8"))
    if bad:
        named = ", ".join(list(bad)[:5]) + (", ..." if len(bad) > 5 else "")
        warnings.warn(f"{len(bad)} of {len(files)} pictures cannot be read and are left out: {named}", stacklevel=2)
    x = np.load(cache, mmap_mode="c")  # private to this process where something writes to it
    kept = [files[i] for i in order if files[i].relative_to(place).as_posix() not in bad]
    y = _labels(kept, place)
    num_test = round(test_fraction * len(x))
    if not 0 < num_test < len(x):
        raise DataError(
            f"data.source.test_fraction={test_fraction} of {len(x)} pictures leaves nothing to train on or to test on\n"
            "  expected more pictures, or another fraction"
        )
    return Arrays(x[num_test:], y[num_test:], x[:num_test], y[:num_test])


def _labels(files: list[Path], place: Path) -> np.ndarray:
    names = [p.relative_to(place).parts[0] if p.parent != place else "" for p in files]
    known = {name: label for label, name in enumerate(sorted(set(names)))}
    return np.array([known[name] for name in names], np.int64)


def _decode(place: Path, files: list[Path], shape: tuple[int, int, int], cache: Path, broken: Path) -> None:
    """Writes the pictures that can be read to `cache`, in order, and why the others cannot to `broken`."""
    from tqdm import tqdm

    partial = cache.with_suffix(".part")
    rows = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=(len(files), *shape))
    bad, count = {}, 0
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        found = tqdm(pool.map(lambda p: _read(p, shape), files), "pictures", len(files), leave=False, disable=None)
        for path, picture in zip(files, found, strict=True):
            if isinstance(picture, str):
                bad[path.relative_to(place).as_posix()] = picture
            else:
                rows[count] = picture
                count += 1
    if not count:
        partial.unlink()
        path, why = next(iter(bad.items()))
        raise DataError(f"none of the {len(files)} pictures can be read, such as {path}: {why}")
    rows.flush()
    if bad:  # the rows that are there, in a file of their size
        kept = np.lib.format.open_memmap(partial.with_suffix(".kept"), mode="w+", dtype=np.uint8, shape=(count, *shape))
        kept[:] = rows[:count]
        kept.flush()
        os.replace(partial.with_suffix(".kept"), partial)
    broken.with_suffix(".json.part").write_text(json.dumps(bad), encoding="utf-8")
    os.replace(broken.with_suffix(".json.part"), broken)
    os.replace(partial, cache)  # last: with it the cache is whole


def _read(path: Path, shape: tuple[int, int, int]) -> np.ndarray | str:
    """A picture (C, H, W), the shorter side resized and the middle cropped; or why it cannot be read."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    try:
        with Image.open(path) as found:
            picture = ImageOps.exif_transpose(found)
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:  # on white
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            picture = picture.convert("L" if channels == 1 else "RGB")
            if picture.size != (width, height):
                picture = ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return f"{type(error).__name__}: {error}"
    pixels = np.asarray(picture, np.uint8)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
