"""Decode, resize and write image files as bytes, in one process or several. No torch, which each would import."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from subprocess import PIPE, Popen
from threading import Lock
from time import perf_counter
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import numpy as np

from dlrun.data.images.levels import Levels, ValueRange, levels_of, to_bytes, value_range
from dlrun.paths import irregular
from dlrun.system.python import SAFE

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

CHUNK = 32  # images that a process takes at a time
START = 0.5  # seconds in which a process starts
ORIENTATION = 0x0112  # EXIF tag: how the camera was held
MAX_SAMPLE, S_MAX_SAMPLE = 281, 341  # TIFF tags: the greatest number in the file
MAX_PIXELS = 89_478_485  # Pillow's own limit
OPENING = Lock()  # Pillow's limit belongs to the whole process, and images are read in threads
# Formats that are accepted, whatever a file's suffix: for an EPS, a program, Pillow would start Ghostscript.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "ICO", "JPEG2000")

Shape = tuple[int, int, int]


def read(
    path: str | Path | BytesIO, shape: Shape, fit: str, max_pixels: int = MAX_PIXELS, levels: Levels | None = None
) -> np.ndarray | ValueRange | str:
    """Read an image as uint8 (C, H, W), or return the reason why it cannot be read.

    fit: "cover" keeps proportions and crops the middle, "stretch" does not. Transparent pixels become white.
    max_pixels: larger images are not read, because a small file can claim a terabyte. levels: of images with more than
    8 bits a value; None takes the image's own. If the image's kind has no levels, its range is returned instead.
    """
    from PIL.Image import DecompressionBombError

    try:
        if not isinstance(path, BytesIO) and (why := irregular(path)):
            return f"it is {why}"
        with open_image(path, max_pixels) as image:
            if image.size == (1, 1):
                return "it has only one pixel"
            resized = _resized(image, shape, fit, levels)
            if isinstance(resized, ValueRange):
                return resized
            pixels = np.asarray(resized, np.uint8)
    except DecompressionBombError:
        return f"it has more pixels than data.max_pixels={max_pixels}"
    except Exception as error:  # a damaged file can fail in any way at all
        if isinstance(error, OSError) and error.strerror:
            return error.strerror
        why = f"{type(error).__name__}: {error}".partition("\n")[0].replace(f" {str(path)!r}", "")
        return why.removeprefix("UnidentifiedImageError: ")
    return pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)


def open_image(path: str | Path | BytesIO | IO[bytes], max_pixels: int) -> "ImageFile":
    """Open an image, without its pixels. Raises DecompressionBombError if it has more than max_pixels."""
    from PIL import Image

    with OPENING:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, max_pixels
        try:
            image = Image.open(path, formats=FORMATS)  # above max_pixels it only warns, above twice as many it raises
        finally:
            Image.MAX_IMAGE_PIXELS = limit
    if image.width * image.height > max_pixels:
        image.close()
        raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels are more than {max_pixels}")
    return image


@contextmanager
def odd_files() -> Iterator[None]:
    """Ignore Pillow's warnings about odd files. Not inside threads: Python's filters belong to the whole process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def upright_size(path: str | Path, max_pixels: int) -> tuple[int, int]:
    """Return the width and height of an image, turned upright by its EXIF tag."""
    with open_image(path, max_pixels) as image:
        return image.size[::-1] if image.getexif().get(ORIENTATION, 1) >= 5 else image.size


def _resized(file: "ImageFile", shape: Shape, fit: str, levels: Levels | None) -> "Image | ValueRange":
    from PIL import Image, ImageOps

    channels, height, width = shape
    file.draft(None, 2 * (2 * max(height, width),))  # JPEGs can be decoded at a half, a quarter or an eighth
    image = ImageOps.exif_transpose(file) if file.getexif().get(ORIENTATION, 1) != 1 else file
    if image.mode[0] in "IF":  # one channel of 16 or 32 bits
        values = np.asarray(image)
        tags = getattr(file, "tag_v2", {})
        declared = tags.get(S_MAX_SAMPLE, tags.get(MAX_SAMPLE))
        limits = value_range(values, max(declared) if isinstance(declared, tuple) else declared)
        if levels is not None and limits.kind not in levels:
            return limits
        image = Image.fromarray(to_bytes(values, (levels or levels_of([limits]))[limits.kind]))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:  # on white
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    mode = "L" if channels == 1 else "RGB"
    image = image if image.mode == mode else image.convert(mode)  # convert would copy
    if image.size == (width, height):
        return image
    if fit == "stretch":
        return image.resize((width, height), Image.Resampling.BICUBIC)
    return ImageOps.fit(image, (width, height), Image.Resampling.BICUBIC)


class Written(NamedTuple):
    """The images that were not written, by row.

    bad: why an image could not be read. deep: the range of an image of more than 8 bits whose levels are not known.
    """

    bad: dict[int, str]
    deep: dict[int, ValueRange]


def write(
    paths: dict[int, str], file: str, offset: int, keys: tuple, processes: int, tick: Callable[[int], object]
) -> Written:
    """Decode images into their rows of `file`, whose rows begin at `offset`.

    keys: shape, fit, max_pixels and levels of `read`. tick: called with the number of images that have just been done.
    Raises OSError if the file cannot be written, RuntimeError if a process dies.
    """
    rows = list(paths.items())
    chunks = [(rows[first : first + CHUNK], file, offset, keys) for first in range(0, len(rows), CHUNK)][::-1]
    done = Written({}, {})
    began, whole, left = perf_counter(), len(chunks), 0.0  # left: seconds that the rest would take in this process
    while chunks and (min(processes, len(chunks)) == 1 or left < START):
        chunk = chunks.pop()
        _add(done, _write_chunk(*chunk))
        tick(len(chunk[0]))
        left = (perf_counter() - began) / (whole - len(chunks)) * len(chunks)
    processes = min(processes, len(chunks))
    if not processes:
        return done
    # plain processes, because multiprocessing would import the caller's main module again
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", SAFE + "from dlrun.data.images.decode import serve; serve()"]
    workers = [Popen(command, stdin=PIPE, stdout=PIPE, env=env, text=True, encoding="utf-8") for _ in range(processes)]
    try:
        with ThreadPoolExecutor(processes) as threads:
            for future in [threads.submit(_hand_out, worker, chunks, done, tick) for worker in workers]:
                future.result()
    finally:
        chunks.clear()
        for worker in workers:
            worker.kill()
            worker.communicate()
    return done


def _add(done: Written, chunk: tuple[dict, dict]) -> None:
    done.bad.update({int(row): why for row, why in chunk[0].items()})
    done.deep.update({int(row): ValueRange(*limits) for row, limits in chunk[1].items()})


def _hand_out(worker: Popen, chunks: list[tuple], done: Written, tick: Callable[[int], object]) -> None:
    """Give a worker process chunk after chunk, until none is left."""
    to_worker, from_worker = cast("IO[str]", worker.stdin), cast("IO[str]", worker.stdout)  # both are pipes
    try:
        while chunks:
            chunk = chunks.pop()  # atomic: each chunk goes to one thread
            try:
                to_worker.write(json.dumps(chunk) + "\n")
                to_worker.flush()
                answer = from_worker.readline()
            except BrokenPipeError:  # the process died; any other OSError is the disk's
                answer = ""
            if not answer:
                raise RuntimeError("a process that decodes images died")
            result = json.loads(answer)
            if isinstance(result, int):
                raise OSError(result, os.strerror(result))
            _add(done, result)
            tick(len(chunk[0]))
    except IndexError:  # another thread took the last chunk
        pass
    except BaseException:
        chunks.clear()  # so that the other threads stop, too
        raise


def serve() -> None:
    """Run a worker process of `write`: it reads chunks as lines of JSON, and writes `Written` or an error number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process decides when to stop
    for line in sys.stdin:
        result: Written | int | None
        try:
            result = _write_chunk(*json.loads(line))
        except OSError as error:
            result = error.errno
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


def _write_chunk(rows: list[tuple[int, str]], file: str, offset: int, keys: tuple) -> Written:
    shape, bad, deep = keys[0], {}, {}
    size = shape[0] * shape[1] * shape[2]
    with odd_files(), open(file, "r+b", buffering=0) as out:  # no memory map, which kills the process on a full disk
        for row, path in rows:
            pixels = read(path, *keys)
            if isinstance(pixels, str):
                bad[row] = pixels
            elif isinstance(pixels, ValueRange):
                deep[row] = pixels
            else:
                out.seek(offset + row * size)
                out.write(pixels.tobytes())
    return Written(bad, deep)
