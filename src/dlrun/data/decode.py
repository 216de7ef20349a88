"""Pictures from files: decoded, resized and written as bytes, by one process or several. No torch: each imports it."""

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np

from dlrun.processes.python import SAFE

LOT = 32  # pictures that a process takes at a time
ORIENTATION = 0x0112  # of the camera: an EXIF tag
# What pictures may be, whatever their names say: Pillow would have Ghostscript run the program that an EPS is.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "PPM", "TIFF", "WEBP", "ICO", "JPEG2000")

Shape = tuple[int, int, int]


def read(path: str | Path, shape: Shape, fit: str) -> np.ndarray | str:
    """A picture as uint8 (C, H, W), or why it cannot be read.

    fit: "cover" keeps proportions and cuts the middle out, "stretch" does not. Transparent pixels become white, 16 bits
    the upper 8. More pixels than Pillow's MAX_IMAGE_PIXELS are not read: a small file can claim a terabyte.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as found:
                if found.size == (1, 1):
                    return "one pixel is no picture"
                pixels = np.asarray(_resized(found, shape, fit), np.uint8)
    except Exception as error:  # a damaged file can fail in any way at all
        why = f"{type(error).__name__}: {error}".partition("\n")[0].replace(f" {str(path)!r}", "")
        return why.removeprefix("UnidentifiedImageError: ")
    return pixels[None] if shape[0] == 1 else pixels.transpose(2, 0, 1)


def upright_size(path: str | Path) -> tuple[int, int]:
    """Width and height, as the camera was held."""
    from PIL import Image

    with Image.open(path, formats=FORMATS) as found:
        return found.size[::-1] if found.getexif().get(ORIENTATION, 1) >= 5 else found.size


def _resized(found: object, shape: Shape, fit: str) -> object:
    from PIL import Image, ImageOps

    channels, height, width = shape
    found.draft(None, 2 * (2 * max(height, width),))  # JPEGs can be decoded at a half, a quarter or an eighth
    picture = ImageOps.exif_transpose(found) if found.getexif().get(ORIENTATION, 1) != 1 else found
    if picture.mode.startswith("I"):
        picture = Image.fromarray((np.asarray(picture).clip(0, 2**16 - 1) >> 8).astype(np.uint8))
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


def write(
    paths: list[str], file: str, offset: int, shape: Shape, fit: str, processes: int, tick: Callable[[int], object]
) -> dict[int, str]:
    """Picture i of `paths` to row i of `file`, whose rows begin at `offset`. Gives the rows that could not be, and why.

    tick: is told how many more are done. Raises OSError where the file cannot be written, RuntimeError where a process
    dies.
    """
    lots = [(first, paths[first : first + LOT], file, offset, shape, fit) for first in range(0, len(paths), LOT)][::-1]
    bad: dict[int, str] = {}
    processes = min(processes, len(lots))
    if processes == 1:
        while lots:
            lot = lots.pop()
            bad |= _write_lot(*lot)
            tick(len(lot[1]))
        return bad
    # plain processes: those of multiprocessing would import the caller's main module again, where it has one
    env = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-c", SAFE + "from dlrun.data.decode import serve; serve()"]
    workers = [Popen(command, stdin=PIPE, stdout=PIPE, env=env, text=True, encoding="utf-8") for _ in range(processes)]
    try:
        with ThreadPoolExecutor(processes) as threads:
            for done in [threads.submit(_hand_out, worker, lots, bad, tick) for worker in workers]:
                done.result()
    finally:
        lots.clear()
        for worker in workers:
            worker.kill()
            worker.communicate()
    return bad


def _hand_out(worker: Popen, lots: list[tuple], bad: dict[int, str], tick: Callable[[int], object]) -> None:
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
            if "errno" in found:
                raise OSError(found["errno"], os.strerror(found["errno"]))
            bad |= {int(row): why for row, why in found.items()}
            tick(len(lot[1]))
    except IndexError:  # another thread took the last one
        pass
    except BaseException:
        lots.clear()  # the others stop, too
        raise


def serve() -> None:
    """A process of `write`: lots come in as lines of JSON, what was bad goes out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the one that asks decides
    for line in sys.stdin:
        try:
            found = _write_lot(*json.loads(line))
        except OSError as error:
            found = {"errno": error.errno}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def _write_lot(first: int, paths: list[str], file: str, offset: int, shape: Shape, fit: str) -> dict[int, str]:
    size, bad = shape[0] * shape[1] * shape[2], {}
    with open(file, "r+b", buffering=0) as out:  # not through a memory map: on a full disk that kills the process
        for row, path in enumerate(paths, first):
            pixels = read(path, shape, fit)
            if isinstance(pixels, str):
                bad[row] = pixels
            else:
                out.seek(offset + row * size)
                out.write(pixels.tobytes())
    return bad


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
