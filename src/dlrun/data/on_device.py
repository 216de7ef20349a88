"""The common members of data sets whose samples stay on the device."""

from collections.abc import Iterator, Sequence

from torch import Tensor

from dlrun.data.base import Batch
from dlrun.data.resident import Resident
from dlrun.types import Sampler


class OnDevice:
    """A data set whose splits are in `resident`, which a subclass sets in `load`."""

    resident: Resident
    folds: int = 0  # of k-fold cross-validation; 0: none
    sampler: Sampler = "none"  # see orders.py
    batch_size: int
    eval_batch_size: int

    def size(self, split: str) -> int:
        return self.resident.size(split)

    def targets(self, split: str) -> Tensor:
        """Return the targets of a split, in stored order."""
        return self.resident.targets(split)

    def origins(self, split: str) -> Sequence[int | str]:
        """Return where the samples of a split are in the stored data, from 0, in the order of `targets`."""
        return self.resident.rows[split].tolist()

    def digest(self) -> str:
        """Return a hash of the rows of the splits, the labels and some of the stored values."""
        return self.resident.digest()

    def sums(self) -> list[float]:
        """Return checksums of all stored numbers, to detect changed data."""
        return self.resident.sums()

    def describe(self) -> str:
        return self.resident.describe()

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        """Yield (inputs, targets) of a split. Train: in the epoch's order from batch `first` on."""
        if split == "train":
            return self.resident.train(self.batch_size, self.sampler, seed, epoch, first)
        return self.resident.evaluate(split, self.eval_batch_size)
