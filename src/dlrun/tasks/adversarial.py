"""What adversarial tasks share: whose weights are held, fixed noise, and how good the samples are.

Sliced Wasserstein distance: Bonneel et al. 2015; Karras et al. 2018 use it on patches, here it is on whole samples.
Modes and good samples (within 3 standard deviations of a mode): Srivastava et al. 2017, section 4.1.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.place import Place
from dlrun.plots import new_figure
from dlrun.seeds import generator
from dlrun.spec import Image, Table
from dlrun.tasks.pictures import between, first_rows, grid, rescaled, shown

SAMPLES = 2000  # at most, for numbers: of the data and of the generator
DIRECTIONS = 256
COVERED = 0.2  # a mode is covered when it gets this share of what would be its part of all samples


def check_pair(net: nn.Module, spec: Image | Table, name: str) -> None:
    """Raise UserError where the net is no generator with a critic."""
    if not all(hasattr(net, child) for child in ("generator", "critic", "latent")):
        raise UserError(f"task={name} needs a generator and a critic: expected model=gan, dcgan, wgan or wgan_gp")


@contextmanager
def held(net: nn.Module) -> Iterator[None]:
    """No gradients for these weights: they are another update's."""
    params = [p for p in net.parameters() if p.requires_grad]
    for p in params:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in params:
            p.requires_grad_(True)


def real_batches(batches: Iterator, data: object) -> Iterator:
    """Batches with pixels in [-1, 1], the range of the generator's tanh; tables as they are."""
    return rescaled(batches, data, -1.0, 1.0)


def noise(latent: int, count: int, place: Place, seed: int) -> Tensor:
    """Noise (count, latent) that is the same in every epoch and every run."""
    return torch.randn(count, latent, generator=generator(place.device, 0, seed), device=place.device)


@torch.no_grad()
def draw(net: nn.Module, z: Tensor, place: Place, size: int = 500) -> Tensor:
    """What a generator makes of noise, in pieces that fit the memory: (N, latent) -> (N, *shape)."""
    parts = []
    for piece in (z,) if torch.compiler.is_exporting() else z.split(size):  # a graph is for batches of any size
        with place.autocast():
            parts.append(net(piece).float())
    return torch.cat(parts)


def predicted(net: nn.Module, z: Tensor, spec: Image | Table, place: Place) -> Tensor:
    """Samples (N, *shape) of noise (N, latent): pixels in [0, 1], rows as they are."""
    samples = draw(net, z, place)
    return ((samples + 1) / 2).clamp(0, 1) if isinstance(spec, Image) else samples


@torch.no_grad()
def quality(net: nn.Module, latent: int, data: object, split: str, place: Place) -> dict[str, float]:
    """swd: distance to the split. modes, good: of a table with classes, each taken for one mode."""
    real = first_rows(real_batches(data.batches(split), data), SAMPLES)
    fake = draw(net, noise(latent, len(real), place, 3), place)
    found = {"swd": sliced_wasserstein(real, fake).item()}
    if isinstance(data.spec, Table) and data.spec.classes:
        found |= modes(*centres(data), draw(net, noise(latent, SAMPLES, place, 4), place))
    return found


def scores(spec: Image | Table) -> dict[str, str]:
    """What `quality` gives, each with which is better."""
    return {"swd": "min"} | ({"modes": "max", "good": "max"} if isinstance(spec, Table) and spec.classes else {})


def sliced_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Root of the mean squared W2 between projections onto fixed random directions; as many samples on both sides.

    In the samples' unit: a shift by d moves it by |d| / sqrt(dimensions).
    """
    a, b = a.flatten(1), b.flatten(1)
    directions = torch.randn(a.shape[1], DIRECTIONS, generator=generator("cpu", 0, 5)).to(a.device)
    directions /= directions.norm(dim=0)
    return ((a @ directions).sort(0).values - (b @ directions).sort(0).values).square().mean().sqrt()


def centres(data: object) -> tuple[Tensor, Tensor]:
    """Mean (classes, features) and standard deviation per feature (classes,) of each class of the train part."""
    parts = [(x, y) for x, y in data.batches("train")]
    x, y = torch.cat([p for p, _ in parts]), torch.cat([p for _, p in parts])
    means = torch.stack([x[y == k].mean(0) for k in range(data.spec.classes)])
    spread = torch.stack([(x[y == k] - means[k]).square().mean().sqrt() for k in range(data.spec.classes)])
    return means, spread


def modes(means: Tensor, spread: Tensor, samples: Tensor) -> dict[str, float]:
    """modes: how many are covered. good: share of samples within 3 standard deviations of their nearest mode."""
    distance, nearest = torch.cdist(samples, means).min(1)
    good = distance <= 3 * spread[nearest]
    counts = torch.bincount(nearest[good], minlength=len(means))
    covered = (counts >= COVERED * len(samples) / len(means)).sum()
    return {"modes": float(covered), "good": good.float().mean().item()}


@torch.no_grad()
def previews(net: nn.Module, latent: int, data: object, place: Place) -> dict[str, Tensor]:
    """Samples of the same noise every time: 100 pictures, or where points of a plane lie beside the data."""
    if isinstance(data.spec, Image):
        return {"samples": grid((draw(net, noise(latent, 100, place, 2), place) + 1) / 2)}
    if data.spec.features != 2:
        return {}
    real, fake = first_rows(data.batches("val"), SAMPLES), draw(net, noise(latent, SAMPLES, place, 2), place)
    reach = 1.2 * real.abs().max()
    return {"samples": torch.stack([_density(fake, reach), _density(real, reach), _density(fake, reach)])}


def _density(points: Tensor, reach: Tensor, side: int = 96) -> Tensor:
    """Points of the plane as a picture (side, side); stacked by `previews`: samples magenta, data green."""
    cells = ((points / reach + 1) / 2 * side).long()
    cells = cells[((cells >= 0) & (cells < side)).all(1)]
    counts = torch.bincount((side - 1 - cells[:, 1]) * side + cells[:, 0], minlength=side * side).view(side, side)
    return (counts.float() / counts.float().quantile(0.995).clamp(min=1)).clamp(0, 1).sqrt().cpu()


@torch.no_grad()
def figures(net: nn.Module, critic: nn.Module, latent: int, data: object, place: Place) -> dict[str, object]:
    """Samples and lines through the noise; of a plane: the samples over the data and the critic's levels."""
    if isinstance(data.spec, Image):
        ends = noise(latent, 20, place, 6)
        lines = (draw(net, between(ends[:10], ends[10:], 10), place) + 1) / 2
        sheets = previews(net, latent, data, place) | {"interpolation": grid(lines, 10)}
        return {name: shown(sheet, name) for name, sheet in sheets.items()}
    return {"samples": _plane(net, critic, latent, data, place)} if data.spec.features == 2 else {}


def _plane(net: nn.Module, critic: nn.Module, latent: int, data: object, place: Place) -> object:
    real = first_rows(data.batches("test"), SAMPLES)
    fake = draw(net, noise(latent, SAMPLES, place, 2), place).cpu()
    reach = 1.3 * real.abs().max().item()
    line = torch.linspace(-reach, reach, 120, device=real.device)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)  # (120, 120, 2)
    level = draw(critic, points.view(-1, 2), place, 4000).view(120, 120).cpu()
    figure, axes = new_figure(6.4, 6.0)
    axes.contour(line.cpu().numpy(), line.cpu().numpy(), level.numpy(), 16, cmap="viridis", linewidths=0.7, alpha=0.7)
    axes.scatter(*real.cpu().T.numpy(), s=5, color="tab:orange", label="data", linewidths=0)
    axes.scatter(*fake.T.numpy(), s=5, color="tab:green", label="samples", linewidths=0, alpha=0.6)
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), title="samples over the test data; lines: the critic's levels")
    axes.legend(loc="upper right", markerscale=3)
    return figure
