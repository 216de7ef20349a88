"""Measures of sample quality: distances to the data, and the number of modes of a mixture that samples cover.

Sliced Wasserstein distance: Bonneel et al. 2015; Karras et al. 2018 use it on patches, here it is on whole samples.
Frechet distance: Heusel et al. 2017, but in the features of a classifier trained with dl-run instead of Inception. So
only values from the same classifier and the same number of samples are comparable (fewer samples make it larger).
Inception score: Salimans et al. 2016, with the same classifier instead of Inception: exp of the mean KL divergence of
its probabilities for a sample from their mean over all samples. It is 1 at least, and the number of classes at most.
Modes and good samples (within 3 standard deviations of a mode): Srivastava et al. 2017, section 4.1.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlrun.data.base import SampleData
from dlrun.errors import UserError
from dlrun.seeds import generator
from dlrun.spec import Image, Table
from dlrun.tasks.images import first_inputs, rescaled

SAMPLES = 2000  # most samples of the data and of the model that a measure uses
DIRECTIONS = 256
COVERED = 0.2  # a mode counts as covered from this share of its expected number of samples on

ClassifierLoader = Callable[[str], tuple[nn.Module, list[float], list[float]]]


class Quality:
    """Measures samples against a split. Pixels are in [-1, 1]; table rows are not rescaled.

    run: the folder of a classifier's run on the same data, or None. load_classifier(run): loads its network, and the
    mean and standard deviation by which it normalises pixels in [0, 1]. scores: the measures, each with its direction.
    """

    def __init__(self, spec: Image | Table, load_classifier: ClassifierLoader, run: str | None) -> None:
        if run is not None and not isinstance(spec, Image):
            raise UserError(
                f"task.quality={run}: a classifier's features need images, and the data is {spec}\n"
                "  expected task.quality=null here: points are measured directly"
            )
        self.features = Features(*load_classifier(run), run) if run is not None else None
        self.num_modes = spec.classes or 0 if isinstance(spec, Table) else 0
        self.scores = {"swd": "min"} | ({"fd": "min", "inception_score": "max"} if self.features else {})
        self.scores |= {"modes": "max", "good": "max"} if self.num_modes else {}
        self.goal = "fd" if self.features else "swd"
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}  # mean and covariance of a split's features

    @torch.no_grad()
    def measure(self, make: Callable[[int, int], Tensor], data: SampleData, split: str) -> dict[str, float]:
        """Measure the samples that make(count, seed) returns.

        swd: sliced Wasserstein distance; fd: Frechet distance; inception_score; modes and good: see
        `modes`; each class is a mode.
        """
        real = first_inputs(rescaled(data.batches(split), data, -1.0, 1.0), SAMPLES)
        fake = make(len(real), 3)
        metrics = {"swd": sliced_wasserstein(real, fake).item()}
        if self.features:
            if split not in self.seen:
                self.seen[split] = moments(self.features((real + 1) / 2))
            metrics["fd"] = frechet(*self.seen[split], *moments(self.features((fake + 1) / 2)))
            metrics["inception_score"] = inception_score(self.features.classify((fake + 1) / 2))
        if self.num_modes:
            metrics |= modes(*centres(data, self.num_modes), make(SAMPLES, 4))
        return metrics


class Features:
    """The inputs of a classifier's last dense layer: images (N, C, H, W) in [0, 1] -> (N, features)."""

    def __init__(self, net: nn.Module, mean: list[float], std: list[float], run: str) -> None:
        layers = [layer for layer in net.modules() if isinstance(layer, nn.Linear)]
        if not layers:
            raise UserError(
                f"task.quality={run}: that network has no dense layer whose inputs could serve as features\n"
                "  expected a classifier such as model=lenet or resnet18"
            )
        self.net, self.last = net, layers[-1]
        self.mean, self.std = (torch.tensor(v, device=layers[-1].weight.device).view(-1, 1, 1) for v in (mean, std))

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        features: list[Tensor] = []
        hook = self.last.register_forward_pre_hook(lambda layer, inputs: features.append(inputs[0].flatten(1)))
        try:
            self.outputs(images)
        finally:
            hook.remove()
        return torch.cat(features)

    @torch.no_grad()
    def outputs(self, images: Tensor) -> Tensor:
        """The classifier's outputs (N, outputs)."""
        return torch.cat([self.net((chunk - self.mean) / self.std) for chunk in images.clamp(0, 1).split(500)])

    def classify(self, images: Tensor) -> Tensor:
        """The classifier's probabilities (N, classes)."""
        out = self.outputs(images).float()
        p = out.sigmoid()
        return torch.cat((1 - p, p), 1) if out.shape[1] == 1 else out.softmax(1)


def inception_score(p: Tensor) -> float:
    """exp of the mean over samples of KL(p || mean of p), from probabilities (N, classes)."""
    p = p.double()
    divergence = (torch.special.entr(p.mean(0)) - torch.special.entr(p).mean(0)).sum()
    return divergence.exp().item()


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (F,) and covariance (F, F) of features (N, F), in double precision on the CPU."""
    if len(features) < 2:
        raise UserError("task.quality compares the spread of samples: expected two images or more in val and test")
    features = features.cpu().double()
    return features.mean(0), features.T.cov()


def frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> float:
    """The squared W2 distance of two Gaussians: |m - n|^2 + tr(A + B - 2 (A B)^(1/2))."""
    if not cov_a.isfinite().all() or not cov_b.isfinite().all():
        return float("nan")
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    overlap = torch.linalg.eigvalsh(root @ cov_b @ root).clamp(min=0).sqrt().sum()
    return ((mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * overlap).item()


def sliced_wasserstein(a: Tensor, b: Tensor) -> Tensor:
    """Root of the mean squared W2 distance between projections onto fixed random directions.

    Both sides must have the same number of samples. The unit is that of the samples: a shift by d gives
    |d| / sqrt(dimensions).
    """
    a, b = a.flatten(1), b.flatten(1)
    directions = torch.randn(a.shape[1], DIRECTIONS, generator=generator("cpu", 0, 5)).to(a.device)
    directions /= directions.norm(dim=0)
    return ((a @ directions).sort(0).values - (b @ directions).sort(0).values).square().mean().sqrt()


def centres(data: SampleData, classes: int) -> tuple[Tensor, Tensor]:
    """Mean (classes, features) and standard deviation over all features (classes,) of each class of the train split."""
    pairs = list(data.batches("train"))
    x, y = torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])
    points = [x[y == k] for k in range(classes)]
    if empty := sum(not len(rows) for rows in points):
        raise UserError(
            f"{empty} of {len(points)} modes have no point among the {len(x)} of the train split\n"
            "  expected some of each: a larger data.source.samples"
        )
    means = torch.stack([rows.mean(0) for rows in points])
    spread = torch.stack([(rows - mean).square().mean().sqrt() for rows, mean in zip(points, means, strict=True)])
    return means, spread


def modes(means: Tensor, spread: Tensor, samples: Tensor) -> dict[str, float]:
    """modes: number of modes covered. good: share of samples within 3 standard deviations of their nearest mode."""
    distance, nearest = torch.cdist(samples, means).min(1)
    good = distance <= 3 * spread[nearest]
    counts = torch.bincount(nearest[good], minlength=len(means))
    covered = (counts >= COVERED * len(samples) / len(means)).sum()
    return {"modes": float(covered), "good": good.float().mean().item()}
