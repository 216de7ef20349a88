"""What a data set offers: the protocol that tasks, the session and the commands rely on; and what a reader returns.

A data set of your own is any class with these members. The smallest one:

    class Ramp:
        def __init__(self, *, spec: Table, batch_size: Count) -> None:
            self.spec, self.batch_size = spec, batch_size

        def load(self, device, channels_last=False):
            x = torch.linspace(0, 1, 100, device=device)[:, None]
            self.parts = {"train": (x[:80], 2 * x[:80]), "val": (x[80:90], 2 * x[80:90]), "test": (x[90:], 2 * x[90:])}

        def batches(self, split, seed=0, epoch=0, first=0):
            x, y = self.parts[split]
            order = torch.randperm(len(x), generator=generator("cpu", seed, epoch)) if split == "train" else ...
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dlrun.spec import Spec


class Data(Protocol):
    """A data set with the splits train, val and test. Nothing is read before `load`.

    spec: what a sample is; networks are built from it. batch_size: samples of a training batch.
    """

    spec: Spec
    batch_size: int

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError if it is not what the spec says."""

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, targets) of a split. Train: in an order drawn from (seed, epoch), from batch `first` on."""

    def size(self, split: str) -> int:
        """Number of samples of a split; 0 where there are none, as in environments."""

    def encode(self, stored: Tensor) -> Tensor:
        """What the network takes, from samples as they are stored or typed: normalised, without augmentation."""

    def fitted(self) -> dict:
        """What was learned from the train split and new inputs need (words, means); it travels in checkpoints."""

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Get ready to encode from `fitted` alone, without reading any data."""

    def digest(self) -> str:
        """A hash that stays the same as long as the data does: resuming on other data is refused."""

    def describe(self) -> str:
        """Where the data is and how much of it, for the header."""


class Arrays(NamedTuple):
    """What a reader returns.

    Images are uint8 (N, C, H, W), rows float32 (N, features); labels int64 (N,), targets float32 (N, targets).
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
