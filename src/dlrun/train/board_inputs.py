"""A run's inputs in TensorBoard: images of its first batch and a histogram of the labels.

Source: the book, sections 8.7 and 15.2.
"""

import torch

from dlrun.data.base import SampleData
from dlrun.output.board import Board
from dlrun.spec import Function, Image, Mask
from dlrun.tasks.images import rescaled
from dlrun.tasks.losses.balance import class_counts

SHOWN = 9  # images, as many as the book shows


def add_inputs(board: Board, data: SampleData, seed: int) -> None:
    """Add the first images that the run will learn from, with pixels in [0, 1], and the labels of the train split."""
    spec = data.spec
    if isinstance(spec, Image) and spec.shape[0] in (1, 3) and not hasattr(data, "position"):  # a stream is read once
        x, *_ = next(iter(rescaled(data.batches("train", seed), data, 0.0, 1.0)))
        board.add_images("inputs", x[:SHOWN].float().cpu().clamp(0, 1), 0)
    if not isinstance(spec, Function | Mask) and spec.classes and (counts := class_counts(data, spec.classes)):
        labels = torch.arange(spec.classes).repeat_interleave(torch.as_tensor(counts))
        board.add_histogram("labels", labels, 0, bins=max(2, min(spec.classes, 100)))
