"""Principal components: the best linear code in squared error, in closed form (book section 12.1)."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor

from dlrun.tasks.images import first_rows

LARGE = 2048  # features from which the components are those of so many pictures only


@torch.no_grad()
def components(batches: Iterator, count: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and the first `count` principal directions (count, D), fewer where the pictures span less.

    Of all pictures; of more than LARGE features, of the first LARGE pictures, whose Gram matrix is small.
    """
    first = next(batches)
    if first[0][0].numel() > LARGE:
        rows = first_rows(chain([first], batches), LARGE).flatten(1)
        mean = _double(rows).mean(0)
        centred = _double(rows) - mean
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        kept = values.flip(0)[:count] > 1e-9 * values[-1].clamp(min=1e-12)
        directions = vectors.flip(1)[:, :count][:, kept].T @ centred
        return mean.to(rows), (directions / directions.norm(dim=1, keepdim=True)).to(rows)
    total, square, samples = 0.0, 0.0, 0
    for x, _ in chain([first], batches):
        rows = x.flatten(1)
        total, square, samples = total + _double(rows.sum(0)), square + _double(rows.T @ rows), samples + len(rows)
    mean = total / samples
    vectors = torch.linalg.eigh(square / samples - torch.outer(mean, mean))[1]
    return mean.to(rows), vectors.flip(1)[:, :count].T.to(rows)


def project(x: Tensor, mean: Tensor, directions: Tensor) -> Tensor:
    """Pictures as their code in these directions gives them back: (B, C, H, W) -> the same, in [0, 1]."""
    code = (x.flatten(1) - mean) @ directions.T  # (B, count)
    return (code @ directions + mean).clamp(0, 1).view_as(x)


def _double(x: Tensor) -> Tensor:
    return x.cpu().double()
