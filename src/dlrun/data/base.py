"""The protocol of a data set, which tasks, the session and the commands rely on, and the arrays that a reader returns.

A data set of your own is any class with these members. The beginning of a small one:

    class Ramp:
        def __init__(self, *, spec: Table, batch_size: Count) -> None:
            self.spec, self.batch_size = spec, batch_size

        def load(self, device, channels_last=False):
            x = torch.linspace(0, 1, 100, device=device)[:, None]
            rows = {"train": slice(0, 80), "val": slice(80, 90), "test": slice(90, 100)}
            self.splits = {split: (x[indices], 2 * x[indices]) for split, indices in rows.items()}

        def batches(self, split, seed=0, epoch=0, first=0):
            x, y = self.splits[split]
            order = torch.arange(len(x))
            if split == "train":
                order = torch.randperm(len(x), generator=generator("cpu", seed, epoch))[first * self.batch_size :]
            for rows in order.split(self.batch_size):
                yield x[rows], y[rows]
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dlrun.seeds import mix
from dlrun.spec import Spec


class Data(Protocol):
    """A data set with the splits train, val and test. Nothing is read before `load`.

    batch_size: samples of a training batch. eval_batch_size: samples of a batch of val or test.
    """

    batch_size: int
    eval_batch_size: int

    @property
    def spec(self) -> Spec:
        """The description of a sample (shape, classes, targets), from which networks are built."""

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError if it does not match the spec."""

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (inputs, targets) of a split. Train: in an order drawn from (seed, epoch), from batch `first` on."""

    def size(self, split: str) -> int:
        """Return the number of samples of a split; 0 for the val and test splits of environments."""

    def encode(self, stored: Any) -> Tensor:
        """Turn samples, as they are stored or typed, into the network's input: normalised, without augmentation."""

    def fitted(self) -> dict:
        """Return the facts learned from the train split that new inputs need (words, means). Checkpoints hold them."""

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` from `fitted` alone, without reading any data."""

    def digest(self) -> str:
        """Return a hash of the data. A run is resumed only if it is unchanged."""

    def describe(self) -> str:
        """Describe where the data is stored and how large it is, for the run's header."""


@dataclass(frozen=True)
class Draw:
    """What random changes to a chunk of train samples may depend on.

    random: a generator. seed, epoch: the run's. rows: (B,), the samples' positions in the data.
    """

    random: torch.Generator
    seed: int
    epoch: int
    rows: Tensor

    def alternating(self) -> Tensor:
        """A coin for each sample that turns over in every epoch: (B,) bool. It depends on the seed and the row only."""
        hashed = (self.rows + mix(self.seed) % 2**31) * 0x9E3779B1 >> 20  # multiplicative hashing, within 63 bits
        return (hashed + self.epoch) % 2 == 1


class Arrays(NamedTuple):
    """The train and test samples that a reader returns.

    Images are uint8 (N, C, H, W), rows float32 (N, features); labels int64 (N,), targets float32 (N, targets).
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
