"""Principal component analysis: the best linear code in squared error, in closed form (the book, section 12.1)."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from dlrun.tasks.images import first_inputs

LARGE = 2048  # with more features than this, the components are computed from this number of images only


@torch.no_grad()
def components(batches: Iterator, count: int) -> tuple[Tensor, Tensor]:
    """The mean (D,) and the first `count` principal directions (count, D); fewer if the images span fewer dimensions.

    All images are used. With more than LARGE features only the first LARGE images are, because their Gram matrix is
    smaller than the covariance matrix.
    """
    first = next(batches)
    if first[0][0].numel() > LARGE:
        rows = first_inputs(chain([first], batches), LARGE).flatten(1)
        mean = _double(rows).mean(0)
        centred = _double(rows) - mean
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        nonzero = values.flip(0)[:count] > 1e-9 * values[-1].clamp(min=1e-12)
        directions = vectors.flip(1)[:, :count][:, nonzero].T @ centred
        return mean.to(rows), (directions / directions.norm(dim=1, keepdim=True)).to(rows)
    total = square = torch.zeros((), dtype=torch.float64)
    samples = 0
    for x, _ in chain([first], batches):
        rows = x.flatten(1)
        total, square, samples = total + _double(rows.sum(0)), square + _double(rows.T @ rows), samples + len(rows)
    mean = total / samples
    vectors = torch.linalg.eigh(square / samples - torch.outer(mean, mean))[1]
    return mean.to(rows), vectors.flip(1)[:, :count].T.to(rows)


def project(x: Tensor, mean: Tensor, directions: Tensor) -> Tensor:
    """Reconstruct images from their codes in these directions: (B, C, H, W) -> the same shape, in [0, 1]."""
    code = (x.flatten(1) - mean) @ directions.T  # (B, count)
    return (code @ directions + mean).clamp(0, 1).view_as(x)


def _double(x: Tensor) -> Tensor:
    return x.cpu().double()
