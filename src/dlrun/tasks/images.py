"""What generative tasks share: pixels in the range that a net needs, means over a split, grids of pictures, figures."""

from collections.abc import Iterator, Sequence
from math import ceil, sqrt

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.base import Data
from dlrun.output.drawing import new_figure

Batch = tuple[Tensor, Tensor]
TITLES = {  # of sheets of the test part: with what stands over their halves
    "reconstructions": ("reconstructions, test", ("originals", "reconstructions")),
    "denoised": ("denoised, test", ("with noise", "reconstructions")),
    "samples": ("samples of noise",),
}


def rescaled(batches: Iterator[Batch], data: Data, low: float, high: float) -> Iterator[Batch]:
    """Batches with pixels of [0, 1] moved to [low, high], whatever data.mean and data.std are; tables as they are.

    Costs nothing where the data gives them so: mean 0, std 1 for [0, 1]; mean 0.5, std 0.5 for [-1, 1].
    """
    mean, std = getattr(data, "mean", None), getattr(data, "std", None)
    if mean is None:
        return iter(batches)
    scale, shift = [s * (high - low) for s in std], [m * (high - low) + low for m in mean]
    if all(s == 1 for s in scale) and not any(shift):
        return iter(batches)
    return _moved(batches, scale, shift)


def _moved(batches: Iterator[Batch], scale: list[float], shift: list[float]) -> Iterator[Batch]:
    a = b = None
    for x, y in batches:
        if a is None:
            a, b = (torch.tensor(v, device=x.device).view(-1, 1, 1) for v in (scale, shift))
        yield torch.addcmul(b, x, a), y  # in one pass


def first_rows(batches: Iterator[Batch], count: int) -> Tensor:
    """The first inputs of an iterator of batches, `count` or as many as there are."""
    found: list[Tensor] = []
    for x, _ in batches:
        found.append(x[: count - sum(map(len, found))])
        if sum(map(len, found)) >= count:
            break
    return torch.cat(found)


def means(parts: Iterator[dict[str, Tensor]]) -> dict[str, float]:
    """Means over all samples of what comes in batches, a value per sample; summed in double precision."""
    sums: dict[str, Tensor] = {}
    samples = 0
    for values in parts:
        samples += len(next(iter(values.values())))
        for name, value in values.items():
            exact = torch.float64 if value.device.type != "mps" else torch.float32
            sums[name] = sums.get(name, 0) + value.to(exact).sum()
    names = list(sums)
    return dict(zip(names, (torch.stack([sums[n] for n in names]) / samples).tolist(), strict=True))


def grid(pictures: Tensor, columns: int | None = None) -> Tensor:
    """(N, C, H, W) in [0, 1] -> (C, height, width): row by row with white gaps; as square as can be without columns."""
    columns = columns or ceil(sqrt(len(pictures)))
    rows, gap = ceil(len(pictures) / columns), _gap(pictures)
    missing = pictures.new_ones(rows * columns - len(pictures), *pictures.shape[1:])
    tiles = F.pad(torch.cat((pictures.clamp(0, 1), missing)), (0, gap, 0, gap), value=1.0)
    _, c, h, w = tiles.shape
    sheet = tiles.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4).reshape(c, rows * h, columns * w)
    return sheet[:, : rows * h - gap, : columns * w - gap].cpu()


def _gap(pictures: Tensor) -> int:
    """Pixels between pictures: a sixteenth of their width."""
    return max(1, round(pictures.shape[-1] / 16))


def beside(originals: Tensor, copies: Tensor) -> Tensor:
    """The book's 10x10 grid (section 12.2): the left five columns are originals, the right five their copies.

    (N, C, H, W) each, the first 50 of them, column by column.
    """
    count = min(50, len(originals))
    rows = ceil(count / 5)
    sheets = []
    for pictures in (originals[:count], copies[:count]):
        missing = pictures.new_ones(5 * rows - count, *pictures.shape[1:])
        tiles = torch.cat((pictures, missing)).unflatten(0, (5, rows)).transpose(0, 1).flatten(0, 1)  # to row by row
        sheets.append(grid(tiles, 5))
    return torch.cat((sheets[0], sheets[0].new_ones(*sheets[0].shape[:2], 3 * _gap(originals)), sheets[1]), 2)


def shown(picture: Tensor, title: str, heads: Sequence[str] = (), key: dict[str, tuple] | None = None) -> object:
    """A picture (C, H, W) in [0, 1] as a figure. heads: over parts of it that are as wide. key: what colours mean."""
    height, width = picture.shape[1:]
    across, up = max(3.0, 6.4 * min(1.0, width / height)), max(1.5, 6.4 * min(1.0, height / width))
    figure, axes = new_figure(across, up + 0.3 + 0.2 * bool(heads) + 0.3 * bool(key))
    axes.imshow(picture.permute(1, 2, 0).numpy().squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_title(title, pad=20 if heads else 6)
    for i, head in enumerate(heads):
        place = ((i + 0.5) / len(heads), 1.01)
        axes.annotate(head, place, xycoords="axes fraction", ha="center", va="bottom", fontsize=9)
    if key:
        from matplotlib.patches import Patch

        patches = [Patch(facecolor=colour, label=name) for name, colour in key.items()]
        figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(key)), fontsize=9)
    axes.set_axis_off()
    return figure


def between(starts: Tensor, ends: Tensor, steps: int) -> Tensor:
    """Straight lines from code to code: (N, latent) twice -> (N steps, latent), line by line."""
    shares = torch.linspace(0, 1, steps, device=starts.device).view(1, -1, 1)
    return torch.lerp(starts[:, None], ends[:, None], shares).flatten(0, 1)
