"""The outputs for a whole split, gathered from all processes. Metrics and the threshold are computed from them."""

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlrun.system.distributed import Distributed

OUTCOMES = "outcomes"  # a metric of a training step: true class * classes + predicted class of each sample, int64 (N,)


class Outcomes(NamedTuple):
    """The targets of a split's samples and the predictions for them, in stored order, on the host.

    y: classes int64 (N,), or real targets (N, targets). predicted: probabilities (N, classes), or real outputs.
    """

    y: np.ndarray
    predicted: np.ndarray


def gathered(batches: Sequence[tuple[Tensor, Tensor]], dist: Distributed) -> Outcomes | None:
    """Join the batches (targets, predictions) of all processes in stored order; None on all ranks but 0.

    Of N processes, each one has every N-th batch.
    """
    of_rank = [(y.cpu(), predicted.cpu()) for y, predicted in batches]
    others = dist.gather_objects(of_rank)
    if dist.rank:
        return None
    ordered = [batch for turn in zip_longest(of_rank, *others) for batch in turn if batch is not None]
    y, predicted = (torch.cat(column).numpy() for column in zip(*ordered, strict=True))
    return Outcomes(y, predicted)
