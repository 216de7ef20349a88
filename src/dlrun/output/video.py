"""Preview images of the epochs (small PNG files, a strip and an animated GIF of them all), and animations of frames."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image as ImageType
    from torch import Tensor

FRAMES, SHOWN = 100, 24  # most frames of a GIF and of a strip; the first and the last epoch are always among them
COLUMNS, WIDTH, CAPTION, GAP = 6, 200, 20, 10  # of a strip: frames in a row; width, caption and spacing in pixels


def frame_path(folder: Path, name: str, epoch: int) -> Path:
    """Path of the preview image of an epoch."""
    return folder / f"{name}_{epoch:05}.png"


def epoch_of(path: Path) -> int:
    """The epoch of a path that `frame_path` made."""
    return int(path.stem.rpartition("_")[2])


def frame_paths(folder: Path) -> list[Path]:
    """The preview images in a folder, by epoch."""
    return sorted((p for p in folder.glob("*_*.png") if p.stem.rpartition("_")[2].isdecimal()), key=epoch_of)


def save_frame(path: Path, image: "Tensor") -> None:
    """Write an image (C, H, W) in [0, 1] as a PNG, atomically."""
    from PIL import Image

    pixels = np.rint(np.nan_to_num(image.numpy()).transpose(1, 2, 0) * 255).astype(np.uint8)  # (H, W, C)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(temporary, "png", compress_level=1)
    os.replace(temporary, path)


def pixels(path: Path) -> np.ndarray:
    """Read a PNG as uint8 (H, W, 3)."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as image:
        return np.asarray(image.convert("RGB"))


def assemble(folder: Path, plots: Path) -> dict[str, Path]:
    """Write <name>_strip.png and <name>.gif to `plots` for each name with images of two epochs or more.

    Returns the paths of the strips, by name.
    """
    from PIL import Image

    strips = {}
    by_name: dict[str, list[Path]] = {}
    for path in frame_paths(folder):
        by_name.setdefault(path.stem.rpartition("_")[0], []).append(path)
    for name, paths in by_name.items():
        if len(paths) > 1:
            chosen = _evenly(paths, FRAMES)
            plots.mkdir(exist_ok=True)
            strips[name] = plots / f"{name}_strip.png"
            _strip(_evenly(paths, SHOWN)).save(strips[name])
            frames = [Image.fromarray(pixels(path)) for path in chosen]
            write_gif(plots / f"{name}.gif", frames, [150] * (len(frames) - 1) + [1500])
    return strips


def _evenly(paths: list[Path], most: int) -> list[Path]:
    """At most that many paths, evenly spaced, with the first and the last."""
    return [paths[round(i)] for i in np.linspace(0, len(paths) - 1, min(most, len(paths)))]


def _strip(paths: list[Path]) -> "ImageType":
    """The frames row by row, each under its epoch. Small frames are enlarged without smoothing."""
    from PIL import Image, ImageDraw

    with Image.open(paths[0], formats=["PNG"]) as first:
        scale = WIDTH / first.width if first.width > WIDTH else WIDTH // first.width
        width, height = round(first.width * scale), round(first.height * scale)
    columns, across, up = min(COLUMNS, len(paths)), width + GAP, height + CAPTION + GAP
    sheet = Image.new("RGB", (columns * across + GAP, -(-len(paths) // columns) * up), "white")
    pen = ImageDraw.Draw(sheet)
    resampling = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    for i, path in enumerate(paths):
        x, y = i % columns * across + GAP, i // columns * up
        pen.text((x, y + 5), f"epoch {epoch_of(path)}", fill="#24292f")
        with Image.open(path, formats=["PNG"]) as frame:
            sheet.paste(frame.convert("RGB").resize((width, height), resampling), (x, y + CAPTION))
    return sheet


def animate(path: Path, frames: list[np.ndarray], fps: float) -> None:
    """Write frames (H, W, 3), uint8, as an animation; frames wider than 400 pixels at half their size."""
    from PIL import Image

    images = [Image.fromarray(frame) for frame in frames]
    write_gif(path, [image.reduce(2) if image.width > 400 else image for image in images], round(1000 / fps))


def write_gif(path: Path, frames: "list[ImageType]", milliseconds: int | list[int]) -> None:
    """Write frames as an endless animation. milliseconds: how long each is shown, one number or one for each frame."""
    from PIL import Image

    first, *others = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
