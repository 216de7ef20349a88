"""A cache of decoded images: one NumPy file of bytes, mapped into memory.

Its name is a hash of everything that determines its content: the folder; the images' names, sizes and times; the image
size. It is written completely or not at all. It is stored in `cache` under the data folder or, if that cannot be
written to, in the user's cache folder.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from dlrun.data.images.decode import Shape, write
from dlrun.data.images.levels import Levels, levels_of
from dlrun.data.sources.lock import lock
from dlrun.errors import DataError, check_state, counted, printable
from dlrun.system.cpus import cpus

FORM = 3  # version of the cache: increase it if `decode.read` changes

CHUNK = 2**26  # bytes per checksum


class Cache(NamedTuple):
    """Decoded images. pixels: uint8 (N, C, H, W), memory-mapped; a row per image. bad: row -> why it cannot be read.

    levels: of images with more than 8 bits a value. sums: CRC-32 of every CHUNK bytes of the pixels.
    """

    path: Path
    pixels: np.ndarray
    bad: dict[int, str]
    levels: Levels
    sums: list[int]


def cached(root: Path, names: list[str], keys: tuple[Shape, str, int], data_dir: Path) -> Cache:
    """Return the images `names` under `root`, from the cache if it exists. Raises DataError if that fails.

    keys: shape, fit and max_pixels of `decode.read`.
    """
    contents = [[name, *_stamp(root / name)] for name in names]
    key = hashlib.sha256(json.dumps([FORM, str(root.resolve()), keys, contents]).encode()).hexdigest()[:24]
    file = f"{printable(root.name)}-{key}.npy"
    folders = list(_folders(data_dir))
    path = next((folder / file for folder in folders if (folder / file).is_file()), None)
    if path is None:
        path = next((folder for folder in folders if _is_writable(folder)), folders[0]) / file
        with lock(path):  # raises DataError if no folder can be written to
            if not path.is_file():  # otherwise another process wrote it while this one waited
                _make(root, names, keys, path)
    try:
        header = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        check_state(header, {"bad": dict, "levels": dict, "sums": list})
        pixels = np.load(path, mmap_mode="c", allow_pickle=False)  # copy on write: the file is never changed
        bad = {int(row): str(why) for row, why in header["bad"].items()}
        levels = {str(kind): (low, high) for kind, (low, high) in header["levels"].items()}
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from None
    if pixels.shape != (len(names), *keys[0]) or pixels.dtype != np.uint8:
        raise _damaged(path, f"it holds {pixels.dtype} of shape {pixels.shape}")
    if checksums(pixels) != header["sums"]:
        raise _damaged(path, "its pixels are not those that were written")
    return Cache(path, pixels, bad, levels, header["sums"])


def checksums(pixels: np.ndarray) -> list[int]:
    """Return the CRC-32 of every CHUNK bytes, computed on all cores (0.9 GB/s per core)."""
    flat = pixels.reshape(-1)
    with ThreadPoolExecutor(cpus()) as pool:
        return list(pool.map(crc32, (flat[i : i + CHUNK] for i in range(0, len(flat), CHUNK))))


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"the image cache {path} is damaged: {why}\n  delete it, so that it is rebuilt")


def _stamp(path: Path) -> tuple[int, int]:
    """Return a file's size and time; zeros for a broken link, which is reported when it is read."""
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns


def _folders(data_dir: Path) -> Iterator[Path]:
    """Yield the folders that may hold the cache, the preferred one first."""
    yield data_dir / "cache"
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if os.path.isabs(home):  # not so for a user without a home, such as in some containers
        yield Path(home) / "dl-run" / "cache"


def _is_writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _make(root: Path, names: list[str], keys: tuple[Shape, str, int], path: Path) -> None:
    shape = keys[0]
    free, needed = shutil.disk_usage(path.parent).free, len(names) * prod(shape)
    if free < needed:
        raise DataError(
            f"the cache of {counted(len(names), 'image')} of {'x'.join(map(str, shape))} needs {needed / 1e9:.1f} GB, "
            f"and {path.parent} has {free / 1e9:.1f} GB free\n"
            "  free some space, choose another data_dir, or smaller images (data.resize, data.spec.shape)"
        )
    part = path.with_suffix(".part")
    try:
        with open(part, "wb") as file:
            header = {"descr": "|u1", "fortran_order": False, "shape": (len(names), *shape)}
            np.lib.format.write_array_header_1_0(file, header)
            offset = file.tell()
            file.truncate(offset + needed)
        bad, levels = _decode(root, names, keys, str(part), offset)
        beside = path.with_suffix(".json")
        facts = {"bad": bad, "levels": levels, "sums": checksums(np.load(part, mmap_mode="r", allow_pickle=False))}
        beside.with_suffix(".json.part").write_text(json.dumps(facts), encoding="utf-8")
        os.replace(beside.with_suffix(".json.part"), beside)
        with open(part, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)  # last, because this file makes the cache valid
    except OSError as error:
        raise DataError(
            f"cannot write the image cache {path}: {error.strerror}\n  expected a disk with free space"
        ) from None
    except RuntimeError as error:  # a worker was killed
        raise DataError(f"decoding the images in {root} failed: {error}\n  expected enough memory") from None
    finally:
        with suppress(OSError):
            part.unlink()


def _decode(
    root: Path, names: list[str], keys: tuple[Shape, str, int], file: str, offset: int
) -> tuple[dict[int, str], Levels]:
    """Decode images into their rows of `file`: first those of 8 bits, then the others, by their common levels."""
    from tqdm import tqdm

    paths = {row: str(root / name) for row, name in enumerate(names)}
    with tqdm(desc="decoding images", total=len(names), unit=" images", leave=False, disable=None) as bar:
        bad, deep = write(paths, file, offset, (*keys, {}), cpus(), bar.update)
    if levels := levels_of(deep.values()):
        rest = {row: paths[row] for row in sorted(deep)}
        bad |= write(rest, file, offset, (*keys, levels), cpus(), lambda count: None).bad
    if len(bad) == len(names):
        raise DataError(
            f"none of {counted(len(names), 'image')} in {root} can be read, such as {printable(names[0])}: {bad[0]}"
        )
    return bad, levels
