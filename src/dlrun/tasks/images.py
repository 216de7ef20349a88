"""Images in generative tasks: rescaling pixels, means over a split, grids of images, figures."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import ceil, sqrt
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.base import Batch, SampleData, pixel_statistics
from dlrun.output.figures import new_figure
from dlrun.system.device import exact_dtype

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES: dict[
    str, tuple[str, tuple[str, ...]]
] = {  # of the sheets of the test split: the title, then the headings of the two halves
    "reconstructions": ("reconstructions, test", ("originals", "reconstructions")),
    "denoised": ("denoised, test", ("with noise", "reconstructions")),
    "samples": ("samples", ()),
}


ROW = 10  # images of a strip


def rescaled(batches: Iterator[Batch], data: SampleData, low: float, high: float) -> Iterator[Batch]:
    """Rescale batches so that pixels of [0, 1] become [low, high], whatever data.mean and data.std are.

    Tables are not rescaled. It costs nothing if the data already has the range: mean 0 and std 1 for [0, 1], mean 0.5
    and std 0.5 for [-1, 1].
    """
    if (statistics := pixel_statistics(data)) is None:
        return iter(batches)
    mean, std = statistics
    scale, shift = [s * (high - low) for s in std], [m * (high - low) + low for m in mean]
    if all(s == 1 for s in scale) and not any(shift):
        return iter(batches)
    return _moved(batches, scale, shift)


def _moved(batches: Iterator[Batch], scale: list[float], shift: list[float]) -> Iterator[Batch]:
    constants: list[Tensor] = []
    for x, y in batches:
        constants = constants or [torch.tensor(v, device=x.device).view(-1, 1, 1) for v in (scale, shift)]
        yield torch.addcmul(constants[1], x, constants[0]), y  # one kernel instead of two


def first_inputs(batches: Iterator[Batch], count: int) -> Tensor:
    """The first `count` inputs of an iterator of batches, or all of them if there are fewer."""
    inputs: list[Tensor] = []
    for x, _ in batches:
        inputs.append(x[: count - sum(map(len, inputs))])
        if sum(map(len, inputs)) >= count:
            break
    return torch.cat(inputs)


def means(batches: Iterator[dict[str, Tensor]]) -> dict[str, float]:
    """Means over all samples; each batch holds one value per sample. Sums are in double precision."""
    sums: dict[str, Tensor] = {}
    samples = 0
    for values in batches:
        samples += len(next(iter(values.values())))
        for name, value in values.items():
            exact = exact_dtype(value.device)
            sums[name] = sums.get(name, 0) + value.to(exact).sum()
    names = list(sums)
    return dict(zip(names, (torch.stack([sums[n] for n in names]) / samples).tolist(), strict=True))


def grid(images: Tensor, columns: int | None = None) -> Tensor:
    """Arrange images row by row with white gaps: (N, C, H, W) in [0, 1] -> (C, height, width).

    Without `columns` the grid is as square as possible.
    """
    columns = columns or ceil(sqrt(len(images)))
    rows, gap = ceil(len(images) / columns), _gap(images)
    missing = images.new_ones(rows * columns - len(images), *images.shape[1:])
    tiles = F.pad(torch.cat((images.clamp(0, 1), missing)), (0, gap, 0, gap), value=1.0)
    _, c, h, w = tiles.shape
    sheet = tiles.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)
    return sheet[:, : rows * h - gap, : columns * w - gap].cpu()


def _gap(images: Tensor) -> int:
    """Number of pixels between images: a sixteenth of their width."""
    return max(1, round(images.shape[-1] / 16))


def side_by_side(originals: Tensor, copies: Tensor) -> Tensor:
    """The 10x10 grid of the book, section 12.2: five columns of originals on the left, their copies on the right.

    Takes (N, C, H, W) twice and shows the first 50 images, column by column.
    """
    count = min(50, len(originals))
    rows = ceil(count / 5)
    sheets = []
    for images in (originals[:count], copies[:count]):
        missing = images.new_ones(5 * rows - count, *images.shape[1:])
        tiles = torch.cat((images, missing)).unflatten(0, (5, rows)).transpose(0, 1).flatten(0, 1)  # row by row
        sheets.append(grid(tiles, 5))
    return torch.cat((sheets[0], sheets[0].new_ones(*sheets[0].shape[:2], 3 * _gap(originals)), sheets[1]), 2)


def strip(images: Tensor, count: int = ROW) -> np.ndarray:
    """The first images (N, C, H, W) in [0, 1] side by side, as bytes: (height, width, C)."""
    return (grid(images[:count], count) * 255).round().byte().permute(1, 2, 0).numpy()


def image_figure(image: Tensor, title: str, heads: Sequence[str] = (), key: dict[str, tuple] | None = None) -> "Figure":
    """Draw an image (C, H, W) in [0, 1] as a figure.

    heads: headings over equally wide parts of it. key: a legend, names of colours.
    """
    height, width = image.shape[1:]
    across, up = max(3.0, 6.4 * min(1.0, width / height)), max(1.5, 6.4 * min(1.0, height / width))
    figure, axes = new_figure(across, up + 0.3 + 0.2 * bool(heads) + 0.3 * bool(key))
    axes.imshow(image.permute(1, 2, 0).numpy().squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, pad=20 if heads else 6)
    for i, head in enumerate(heads):
        position = ((i + 0.5) / len(heads), 1.01)
        axes.annotate(head, position, xycoords="axes fraction", ha="center", va="bottom", fontsize=9)
    if key:
        from matplotlib.patches import Patch

        patches = [Patch(facecolor=colour, label=name) for name, colour in key.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(key)), fontsize=9)
    axes.set_axis_off()
    return figure


def sheets(images: dict[str, Tensor]) -> dict[str, Callable]:
    """Figures of the sheets of the test split, by name (see TITLES)."""
    return {name: partial(image_figure, image, *TITLES[name]) for name, image in images.items()}


def before_and_after(data: SampleData) -> Tensor | None:
    """Eight images of val above three draws of their augmentation: (C, height, width). None if it does nothing."""
    pixels = getattr(data, "pixels", None)
    if pixels is None:
        return None
    x = first_inputs(data.batches("val"), 8)
    before = torch.cat([x] * 3)
    after = pixels.augmented(before)
    if torch.allclose(after, before, atol=1e-2):
        return None
    tiles, _ = next(rescaled(iter([(torch.cat((x, after)), x)]), data, 0.0, 1.0))
    return grid(tiles, len(x))


def interpolate(starts: Tensor, ends: Tensor, steps: int) -> Tensor:
    """Interpolate linearly between codes: (N, latent) twice -> (N steps, latent), line by line."""
    shares = torch.linspace(0, 1, steps, device=starts.device).view(1, -1, 1)
    return torch.lerp(starts[:, None], ends[:, None], shares).flatten(0, 1)
