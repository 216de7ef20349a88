"""Pictures as bytes, decoded once: a NumPy file of all of them, mapped into memory.

It is named by all that made it (the folder; names, sizes and times of the pictures; the size asked for), and appears
whole or not at all. It lies in `cache` under the data folder or, where that cannot be written to, in the user's own
cache folder.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlrun.data.decode import Shape, cores, write
from dlrun.data.sources import lock
from dlrun.errors import DataError

FORM = 2  # of the cache: changes with what `decode.read` does to pictures


class Cache(NamedTuple):
    """pixels: uint8 (N, C, H, W), mapped; a row per picture. bad: why some of them could not be read, by row."""

    path: Path
    pixels: np.ndarray
    bad: dict[int, str]


def cached(root: Path, names: list[str], shape: Shape, fit: str, data_dir: Path) -> Cache:
    """These pictures under `root`, from the cache where they were decoded before. Raises DataError where that fails."""
    made_of = [[name, *_stamp(root / name)] for name in names]
    key = hashlib.sha256(json.dumps([FORM, str(root.resolve()), shape, fit, made_of]).encode()).hexdigest()[:24]
    file = f"{root.name}-{key}.npy"
    folders = list(_folders(data_dir))
    path = next((folder / file for folder in folders if (folder / file).is_file()), None)
    if path is None:
        path = next((folder for folder in folders if _is_writable(folder)), folders[0]) / file
        with lock(path):  # says so where no folder can be written to
            if not path.is_file():  # else another process made it while this one waited
                _make(root, names, shape, fit, path)
    try:
        bad = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        pixels = np.load(
            path, mmap_mode="c", allow_pickle=False
        )  # a page that something writes to is this process's own
        bad = {int(row): str(why) for row, why in bad.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise _damaged(path, str(error)) from None
    if pixels.shape != (len(names), *shape) or pixels.dtype != np.uint8:
        raise _damaged(path, f"it holds {pixels.dtype} of shape {pixels.shape}")
    return Cache(path, pixels, bad)


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"the cache of pictures {path} is damaged: {why}\n  delete it, so that it is made anew")


def _stamp(path: Path) -> tuple[int, int]:
    """Size and time; nothing where a link leads nowhere, which cannot be read later."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_size, found.st_mtime_ns


def _folders(data_dir: Path) -> Iterator[Path]:
    yield data_dir / "cache"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):  # else a user without a home, as in some containers
        yield Path(home) / "dl-run" / "cache"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _make(root: Path, names: list[str], shape: Shape, fit: str, path: Path) -> None:
    from tqdm import tqdm

    room, needed = shutil.disk_usage(path.parent).free, len(names) * prod(shape)
    if room < needed:
        raise DataError(
            f"the cache of {len(names):,} pictures of {'x'.join(map(str, shape))} needs {needed / 1e9:.1f} GB, and "
            f"{path.parent} has {room / 1e9:.1f} GB of room\n"
            "  make room, choose another data_dir, or smaller pictures (data.resize, data.spec.shape)"
        )
    part = path.with_suffix(".part")
    try:
        with open(part, "wb") as file:
            head = {"descr": "|u1", "fortran_order": False, "shape": (len(names), *shape)}
            np.lib.format.write_array_header_1_0(file, head)
            offset = file.tell()
            file.truncate(offset + needed)
        paths = [str(root / name) for name in names]
        with tqdm(desc="decoding pictures", total=len(names), unit=" pictures", leave=False, disable=None) as bar:
            bad = write(paths, str(part), offset, shape, fit, cores(), bar.update)
        if len(bad) == len(names):
            raise DataError(f"none of the {len(names)} pictures in {root} can be read, such as {names[0]}: {bad[0]}")
        beside = path.with_suffix(".json")
        beside.with_suffix(".json.part").write_text(json.dumps(bad), encoding="utf-8")
        os.replace(beside.with_suffix(".json.part"), beside)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)  # last: with it the cache is there
    except OSError as error:
        raise DataError(
            f"cannot write the cache of pictures {path}: {error.strerror}\n  expected a disk with room"
        ) from None
    except RuntimeError as error:  # a worker was killed
        raise DataError(f"decoding the pictures in {root} failed: {error}\n  expected enough memory") from None
    finally:
        with suppress(OSError):
            part.unlink()
