"""Decode images to one array of bytes: dl-run's cache against a Pillow loop in as many processes. Print the seconds.

bench_images.py make FOLDER COUNT         create COUNT JPEGs, noise over a slope, 120 to 200 pixels a side
bench_images.py bare|dl-run FOLDER        decode all of them to 64x64
"""

import sys
import time
from multiprocessing import Pool
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from dlrun.data.images.cache import cached
from dlrun.system.cpus import cpus

SIDE = 64


def make(folder: Path, count: int) -> None:
    random = np.random.default_rng(0)
    for i in range(count):
        height, width = random.integers(120, 200, 2)
        slope = np.add.outer(np.linspace(0, 120, height), np.linspace(0, 120, width))[..., None]
        pixels = (slope + random.integers(0, 16, (height, width, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:06}.jpg", quality=85)


def decode(path: str) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def bare(folder: Path) -> None:
    paths = sorted(map(str, folder.iterdir()))
    out = np.empty((len(paths), SIDE, SIDE, 3), np.uint8)
    with Pool(cpus()) as pool:
        for row, pixels in enumerate(pool.imap(decode, paths, chunksize=32)):
            out[row] = pixels
    with TemporaryDirectory() as cache:
        np.save(Path(cache) / "images.npy", out)


def ours(folder: Path) -> None:
    with TemporaryDirectory() as cache:
        cached(folder, sorted(path.name for path in folder.iterdir()), (3, SIDE, SIDE), "stretch", Path(cache))


if __name__ == "__main__":
    what, folder = sys.argv[1], Path(sys.argv[2])
    started = time.perf_counter()
    if what == "make":
        make(folder, int(sys.argv[3]))
    else:
        {"bare": bare, "dl-run": ours}[what](folder)
    print(time.perf_counter() - started)
