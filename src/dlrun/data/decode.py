"""Pictures from files: decoded, resized and written as bytes, by one process or several. No torch: each imports it."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from subprocess import PIPE, Popen
from typing import NamedTuple

import numpy as np

from dlrun.data.levels import Held, Levels, held, levels_of, to_bytes
from dlrun.paths import irregular
from dlrun.system.python import SAFE

LOT = 32  # pictures that a process takes at a time
ORIENTATION = 0x0112  # of the camera: an EXIF tag
MAX_SAMPLE, S_MAX_SAMPLE = 281, 341  # of TIFF: the greatest number in use
MAX_PIXELS = 89_478_485  # Pillow's own limit
# What pictures may be, whatever their names say: Pillow would have Ghostscript run the program that an EPS is.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "ICO", "JPEG2000")

Shape = tuple[int, int, int]


def read(
    path: str | Path | BytesIO, shape: Shape, fit: str, max_pixels: int = MAX_PIXELS, levels: Levels | None = None
) -> np.ndarray | Held | str:
    """A picture as uint8 (C, H, W), or why it cannot be read.

    fit: "cover" keeps proportions and cuts the middle out, "stretch" does not. Transparent pixels become white.
    max_pixels: larger ones are not read, as a small file can claim a terabyte. levels: of pictures that hold more than
    bytes; None takes the picture's own, and where its kind is not among them, what it holds is given instead.
    """
    from PIL import Image

    try:
        if not isinstance(path, BytesIO) and (why := irregular(path)):
            return f"it is {why}"
        Image.MAX_IMAGE_PIXELS = max_pixels  # from twice of it on, Pillow raises an error by itself
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as found:
                if found.size == (1, 1):
                    return "one pixel is no picture"
                made = _resized(found, shape, fit, levels)
                if isinstance(made, Held):
                    return made
                pixels = np.asarray(made, np.uint8)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        return f"{type(error).__name__}: it has more pixels than max_pixels={max_pixels}"
    except Exception as error:  # a damaged file can fail in any way at all
        why = f"{type(error).__name__}: {error}".partition("\n")[0].replace(f" {str(path)!r}", "")
        return why.removeprefix("UnidentifiedImageError: ")
    return pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)


def upright_size(path: str | Path) -> tuple[int, int]:
    """Width and height, as the camera was held."""
    from PIL import Image

    with Image.open(path, formats=FORMATS) as found:
        return found.size[::-1] if found.getexif().get(ORIENTATION, 1) >= 5 else found.size


def _resized(found: object, shape: Shape, fit: str, levels: Levels | None) -> object:
    from PIL import Image, ImageOps

    channels, height, width = shape
    found.draft(None, 2 * (2 * max(height, width),))  # JPEGs can be decoded at a half, a quarter or an eighth
    picture = ImageOps.exif_transpose(found) if found.getexif().get(ORIENTATION, 1) != 1 else found
    if picture.mode[0] in "IF":  # one channel of 16 or 32 bits
        values = np.asarray(picture)
        tags = getattr(found, "tag_v2", {})
        declared = tags.get(S_MAX_SAMPLE, tags.get(MAX_SAMPLE))
        own = held(values, max(declared) if isinstance(declared, tuple) else declared)
        if levels is not None and own.kind not in levels:
            return own
        picture = Image.fromarray(to_bytes(values, (levels or levels_of([own]))[own.kind]))
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:  # on white
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    mode = "L" if channels == 1 else "RGB"
    picture = picture if picture.mode == mode else picture.convert(mode)  # it would copy
    if picture.size == (width, height):
        return picture
    if fit == "stretch":
        return picture.resize((width, height), Image.Resampling.BICUBIC)
    return ImageOps.fit(picture, (width, height), Image.Resampling.BICUBIC)


class Written(NamedTuple):
    """By row: why a picture could not be read (bad), and what one holds that no levels are known for (deep)."""

    bad: dict[int, str]
    deep: dict[int, Held]


def write(
    paths: dict[int, str], file: str, offset: int, keys: tuple, processes: int, tick: Callable[[int], object]
) -> Written:
    """The pictures to their rows of `file`, whose rows begin at `offset`.

    keys: shape, fit, max_pixels and levels of `read`. tick: is given how many more are done. Raises OSError where the
    file cannot be written, RuntimeError where a process dies.
    """
    rows = list(paths.items())
    lots = [(rows[first : first + LOT], file, offset, keys) for first in range(0, len(rows), LOT)][::-1]
    done = Written({}, {})
    processes = min(processes, len(lots))
    if processes == 1:
        while lots:
            lot = lots.pop()
            _add(done, _write_lot(*lot))
            tick(len(lot[0]))
        return done
    # plain processes: those of multiprocessing would import the caller's main module again, where it has one
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", SAFE + "from dlrun.data.decode import serve; serve()"]
    workers = [Popen(command, stdin=PIPE, stdout=PIPE, env=env, text=True, encoding="utf-8") for _ in range(processes)]
    try:
        with ThreadPoolExecutor(processes) as threads:
            for future in [threads.submit(_hand_out, worker, lots, done, tick) for worker in workers]:
                future.result()
    finally:
        lots.clear()
        for worker in workers:
            worker.kill()
            worker.communicate()
    return done


def _add(done: Written, lot: tuple[dict, dict]) -> None:
    done.bad.update({int(row): why for row, why in lot[0].items()})
    done.deep.update({int(row): Held(*own) for row, own in lot[1].items()})


def _hand_out(worker: Popen, lots: list[tuple], done: Written, tick: Callable[[int], object]) -> None:
    """Gives a process lot after lot."""
    try:
        while lots:
            lot = lots.pop()  # of all threads one gets it
            try:
                worker.stdin.write(json.dumps(lot) + "\n")
                worker.stdin.flush()
                answer = worker.stdout.readline()
            except BrokenPipeError:  # no error of the disk, which other OSErrors are
                answer = ""
            if not answer:
                raise RuntimeError("a process that decodes pictures died")
            found = json.loads(answer)
            if isinstance(found, int):
                raise OSError(found, os.strerror(found))
            _add(done, found)
            tick(len(lot[0]))
    except IndexError:  # another thread took the last one
        pass
    except BaseException:
        lots.clear()  # the others stop, too
        raise


def serve() -> None:
    """A process of `write`: lots come in as lines of JSON, what was bad or deep goes out, or an error's number."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asks decides
    for line in sys.stdin:
        try:
            found = _write_lot(*json.loads(line))
        except OSError as error:
            found = error.errno
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def _write_lot(rows: list[tuple[int, str]], file: str, offset: int, keys: tuple) -> Written:
    shape, bad, deep = keys[0], {}, {}
    size = shape[0] * shape[1] * shape[2]
    with open(file, "r+b", buffering=0) as out:  # not through a memory map: on a full disk that kills the process
        for row, path in rows:
            pixels = read(path, *keys)
            if isinstance(pixels, str):
                bad[row] = pixels
            elif isinstance(pixels, Held):
                deep[row] = pixels
            else:
                out.seek(offset + row * size)
                out.write(pixels.tobytes())
    return Written(bad, deep)


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
