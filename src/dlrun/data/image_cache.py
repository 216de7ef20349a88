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
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

import numpy as np

from dlrun.data.decode import Shape, cores, write
from dlrun.data.levels import Levels, levels_of
from dlrun.data.sources.lock import lock
from dlrun.errors import DataError, check_state, printable

FORM = 3  # of the cache: changes with what `decode.read` does to pictures

CHUNK = 2**26  # bytes of a checksum


class Cache(NamedTuple):
    """pixels: uint8 (N, C, H, W), mapped; a row per picture. bad: why some of them could not be read, by row.

    levels: of pictures that hold more than bytes. sums: CRC-32 of every CHUNK bytes of the pixels.
    """

    path: Path
    pixels: np.ndarray
    bad: dict[int, str]
    levels: Levels
    sums: list[int]


def cached(root: Path, names: list[str], keys: tuple[Shape, str, int], data_dir: Path) -> Cache:
    """These pictures under `root`, from the cache where they were decoded before. Raises DataError where that fails.

    keys: shape, fit and max_pixels of `decode.read`.
    """
    made_of = [[name, *_stamp(root / name)] for name in names]
    key = hashlib.sha256(json.dumps([FORM, str(root.resolve()), keys, made_of]).encode()).hexdigest()[:24]
    file = f"{printable(root.name)}-{key}.npy"
    folders = list(_folders(data_dir))
    path = next((folder / file for folder in folders if (folder / file).is_file()), None)
    if path is None:
        path = next((folder for folder in folders if _is_writable(folder)), folders[0]) / file
        with lock(path):  # says so where no folder can be written to
            if not path.is_file():  # else another process made it while this one waited
                _make(root, names, keys, path)
    try:
        found = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        check_state(found, {"bad": dict, "levels": dict, "sums": list})
        pixels = np.load(
            path, mmap_mode="c", allow_pickle=False
        )  # a page that something writes to is this process's own
        bad = {int(row): str(why) for row, why in found["bad"].items()}
        levels = {str(kind): (low, high) for kind, (low, high) in found["levels"].items()}
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(path, str(error)) from None
    if pixels.shape != (len(names), *keys[0]) or pixels.dtype != np.uint8:
        raise _damaged(path, f"it holds {pixels.dtype} of shape {pixels.shape}")
    if checksums(pixels) != found["sums"]:
        raise _damaged(path, "its pixels are not what was written there")
    return Cache(path, pixels, bad, levels, found["sums"])


def checksums(pixels: np.ndarray) -> list[int]:
    """CRC-32 of every CHUNK bytes, by all cores: 0.9 GB/s on each, as fast as a good disk reads."""
    flat = pixels.reshape(-1)
    with ThreadPoolExecutor(cores()) as pool:
        return list(pool.map(crc32, (flat[i : i + CHUNK] for i in range(0, len(flat), CHUNK))))


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


def _make(root: Path, names: list[str], keys: tuple[Shape, str, int], path: Path) -> None:
    shape = keys[0]
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
        bad, levels = _decode(root, names, keys, str(part), offset)
        beside = path.with_suffix(".json")
        about = {"bad": bad, "levels": levels, "sums": checksums(np.load(part, mmap_mode="r", allow_pickle=False))}
        beside.with_suffix(".json.part").write_text(json.dumps(about), encoding="utf-8")
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


def _decode(
    root: Path, names: list[str], keys: tuple[Shape, str, int], file: str, offset: int
) -> tuple[dict[int, str], Levels]:
    """The pictures to their rows of `file`: those of bytes first, then others, by what all of them hold."""
    from tqdm import tqdm

    paths = {row: str(root / name) for row, name in enumerate(names)}
    with tqdm(desc="decoding pictures", total=len(names), unit=" pictures", leave=False, disable=None) as bar:
        bad, deep = write(paths, file, offset, (*keys, {}), cores(), bar.update)
    if levels := levels_of(deep.values()):
        rest = {row: paths[row] for row in sorted(deep)}
        bad |= write(rest, file, offset, (*keys, levels), cores(), lambda count: None).bad
    if len(bad) == len(names):
        raise DataError(
            f"none of the {len(names)} pictures in {root} can be read, such as {printable(names[0])}: {bad[0]}"
        )
    return bad, levels
