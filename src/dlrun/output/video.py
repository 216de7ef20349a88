"""Pictures of an epoch, kept as small files in the run's folder, and what they make together: a strip and a film."""

import os
from pathlib import Path

import numpy as np

FRAMES, SHOWN = 100, 24  # of a film, of a strip: at most, the first and the last among them
COLUMNS, WIDTH, CAPTION, GAP = 6, 200, 20, 10  # of a strip: frames in a row, their pixels, those above and between


def path_of(folder: Path, name: str, epoch: int) -> Path:
    return folder / f"{name}_{epoch:05}.png"


def epoch_of(path: Path) -> int:
    return int(path.stem.rpartition("_")[2])


def kept(folder: Path) -> list[Path]:
    """The pictures in a folder, by epoch."""
    return sorted((p for p in folder.glob("*_*.png") if p.stem.rpartition("_")[2].isdecimal()), key=epoch_of)


def keep(path: Path, picture: object) -> None:
    """A tensor (C, H, W) in [0, 1] as a PNG, replaced at once."""
    from PIL import Image

    pixels = np.rint(np.nan_to_num(picture.numpy()).transpose(1, 2, 0) * 255).astype(np.uint8)  # (H, W, C)
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(temporary, "png", compress_level=1)
    os.replace(temporary, path)


def pixels(path: Path) -> np.ndarray:
    """A picture as bytes (H, W, 3)."""
    from PIL import Image

    with Image.open(path, formats=["PNG"]) as picture:
        return np.asarray(picture.convert("RGB"))


def assemble(folder: Path, plots: Path) -> dict[str, Path]:
    """<name>_strip.png and <name>.gif in `plots`, of each picture that `folder` has of two epochs; gives the strips."""
    from PIL import Image

    strips = {}
    by_name: dict[str, list[Path]] = {}
    for path in kept(folder):
        by_name.setdefault(path.stem.rpartition("_")[0], []).append(path)
    for name, paths in by_name.items():
        if len(paths) > 1:
            chosen = _some(paths, FRAMES)
            plots.mkdir(exist_ok=True)
            strips[name] = plots / f"{name}_strip.png"
            _strip(_some(paths, SHOWN)).save(strips[name])
            frames = [Image.fromarray(pixels(path)) for path in chosen]
            write_gif(plots / f"{name}.gif", frames, [150] * (len(frames) - 1) + [1500])
    return strips


def _some(paths: list[Path], most: int) -> list[Path]:
    return [paths[round(i)] for i in np.linspace(0, len(paths) - 1, min(most, len(paths)))]


def _strip(paths: list[Path]) -> object:
    """The frames row by row, the epoch above each. Small ones are enlarged, pixel by pixel."""
    from PIL import Image, ImageDraw

    with Image.open(paths[0], formats=["PNG"]) as first:
        scale = WIDTH / first.width if first.width > WIDTH else WIDTH // first.width
        width, height = round(first.width * scale), round(first.height * scale)
    columns, across, up = min(COLUMNS, len(paths)), width + GAP, height + CAPTION + GAP
    sheet = Image.new("RGB", (columns * across + GAP, -(-len(paths) // columns) * up), "white")
    pen = ImageDraw.Draw(sheet)
    how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.LANCZOS
    for i, path in enumerate(paths):
        x, y = i % columns * across + GAP, i // columns * up
        pen.text((x, y + 5), f"epoch {epoch_of(path)}", fill="#24292f")
        with Image.open(path, formats=["PNG"]) as frame:
            sheet.paste(frame.convert("RGB").resize((width, height), how), (x, y + CAPTION))
    return sheet


def write_gif(path: Path, frames: list, milliseconds: int | list[int]) -> None:
    """Pillow's pictures as an animation without end, each shown so long."""
    from PIL import Image

    first, *others = [frame.quantize(256, dither=Image.Dither.NONE) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0)
