"""How good samples are, in numbers: their distance to the data, and the modes of a mixture that they cover.

Sliced Wasserstein distance: Bonneel et al. 2015; Karras et al. 2018 use it on patches, here it is on whole samples.
Frechet distance: Heusel et al. 2017, in the features of a classifier trained here instead of Inception's, so that it
compares with itself only: the same classifier, the same number of samples (few samples make it larger).
Modes and good samples (within 3 standard deviations of a mode): Srivastava et al. 2017, section 4.1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlrun.data.base import Data
from dlrun.errors import UserError
from dlrun.seeds import generator
from dlrun.spec import Image, Table
from dlrun.tasks.images import first_rows, rescaled

SAMPLES = 2000  # at most, for numbers: of the data and of what is made
DIRECTIONS = 256
COVERED = 0.2  # a mode is covered when it gets this share of what would be its part of all samples

Trained = Callable[[str], tuple[nn.Module, list[float], list[float]]]


class Quality:
    """Measures samples against a split. Pixels are in [-1, 1] here, rows as they are.

    run: the folder of a classifier's run on the same data, or None. trained(run): its network, and the mean and
    standard deviation of pixels in [0, 1] that it takes. scores: what is measured, with which is better.
    """

    def __init__(self, spec: Image | Table, trained: Trained, run: str | None) -> None:
        if run is not None and not isinstance(spec, Image):
            raise UserError(
                f"task.quality={run}: a classifier's features are of pictures, and this data gives {spec}\n"
                "  expected task.quality=null here: points are measured as they are"
            )
        self.features = Features(*trained(run), run) if run is not None else None
        self.has_modes = isinstance(spec, Table) and bool(spec.classes)
        self.scores = {"swd": "min"} | ({"fd": "min"} if self.features else {})
        self.scores |= {"modes": "max", "good": "max"} if self.has_modes else {}
        self.goal = "fd" if self.features else "swd"
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}  # mean and covariance of a split's features

    @torch.no_grad()
    def measure(self, make: Callable[[int, int], Tensor], data: Data, split: str) -> dict[str, float]:
        """make(count, seed): so many samples. swd, fd: distances; modes, good: of a table's classes, each a mode."""
        real = first_rows(rescaled(data.batches(split), data, -1.0, 1.0), SAMPLES)
        fake = make(len(real), 3)
        found = {"swd": sliced_wasserstein(real, fake).item()}
        if self.features:
            if split not in self.seen:
                self.seen[split] = moments(self.features((real + 1) / 2))
            found["fd"] = frechet(*self.seen[split], *moments(self.features((fake + 1) / 2)))
        if self.has_modes:
            found |= modes(*centres(data), make(SAMPLES, 4))
        return found


class Features:
    """What goes into the last dense layer of a classifier: pictures (N, C, H, W) in [0, 1] -> (N, features)."""

    def __init__(self, net: nn.Module, mean: list[float], std: list[float], run: str) -> None:
        layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise UserError(
                f"task.quality={run}: that network has no dense layer, whose inputs would be its features\n"
                "  expected a classifier such as model=lenet or resnet18"
            )
        self.net, self.last = net, layers[-1]
        self.mean, self.std = (torch.tensor(v, device=layers[-1].weight.device).view(-1, 1, 1) for v in (mean, std))

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        found: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda layer, given: found.append(given[0].flatten(1)))
        try:
            for piece in pictures.clamp(0, 1).split(500):
                self.net((piece - self.mean) / self.std)
        finally:
            hook.remove()
        return torch.cat(found)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and covariance (F, F), in double precision on the CPU: (N, F) -> those."""
    if len(features) < 2:
        raise UserError("task.quality compares the spread of samples: expected two pictures or more in val and test")
    features = features.cpu().double()
    return features.mean(0), features.T.cov()


def frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """|m - n|^2 + tr(A + B - 2 (A B)^(1/2)), the squared W2 distance of two Gaussians."""
    if not cov_a.isfinite().all() or not cov_b.isfinite().all():
        return float("nan")
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap).item()


def sliced_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Root of the mean squared W2 between projections onto fixed random directions; as many samples on both sides.

    In the samples' unit: a shift by d moves it by |d| / sqrt(dimensions).
    """
    a, b = a.flatten(1), b.flatten(1)
    directions = torch.randn(a.shape[1], DIRECTIONS, generator=generator("cpu", 0, 5)).to(a.device)
    directions /= directions.norm(dim=0)
    return ((a @ directions).sort(0).values - (b @ directions).sort(0).values).square().mean().sqrt()


def centres(data: Data) -> tuple[Tensor, Tensor]:
    """Mean (classes, features) and standard deviation per feature (classes,) of each class of the train part."""
    parts = [(x, y) for x, y in data.batches("train")]
    x, y = torch.cat([p for p, _ in parts]), torch.cat([p for _, p in parts])
    found = [x[y == k] for k in range(data.spec.classes)]
    if empty := sum(not len(rows) for rows in found):
        raise UserError(
            f"{empty} of {len(found)} modes have no point among the {len(x)} of the train part\n"
            "  expected some of each: a larger data.source.samples"
        )
    means = torch.stack([rows.mean(0) for rows in found])
    spread = torch.stack([(rows - mean).square().mean().sqrt() for rows, mean in zip(found, means, strict=True)])
    return means, spread


def modes(means: Tensor, spread: Tensor, samples: Tensor) -> dict[str, float]:
    """modes: how many are covered. good: share of samples within 3 standard deviations of their nearest mode."""
    distance, nearest = torch.cdist(samples, means).min(1)
    good = distance <= 3 * spread[nearest]
    counts = torch.bincount(nearest[good], minlength=len(means))
    covered = (counts >= COVERED * len(samples) / len(means)).sum()
    return {"modes": float(covered), "good": good.float().mean().item()}
