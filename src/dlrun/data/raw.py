"""The inverse of `encode`, and a view of one data set encoded as another."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from dlrun.data.base import Batch, SampleData, pixel_statistics
from dlrun.data.texts.texts import Texts
from dlrun.data.texts.words import join_tokens
from dlrun.spec import Columns, Series

Raw = Tensor | list[str]


def decode(data: SampleData, x: Tensor) -> Raw:
    """Turn network inputs back into images, uint8 (B, C, H, W), rows (B, features) in the data's units, or texts.

    The result is on the CPU. Rows and series of columns of several kinds stay encoded.
    """
    x = x.cpu()
    if isinstance(data.spec, Columns) or isinstance(data.spec, Series) and "columns" in data.fitted():
        return x
    if (statistics := pixel_statistics(data)) is not None:
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in statistics)
        return ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    if isinstance(data, Texts):
        words = ("", "", "?", "", *data.spec.words())
        return [join_tokens([words[i] for i in row if words[i]], data.tokens) for row in x.tolist()]
    fitted = data.fitted()
    if not fitted:
        return x
    mean, std = (torch.tensor(fitted[name], dtype=torch.float64) for name in ("mean", "std"))
    values = x * std + mean
    return torch.where(values.abs() > 1e-6 * (mean.abs() + std), values, 0.0).float()  # a zero stays exactly zero


class Reencoded:
    """The samples of `other`, encoded as those of `data`, for a network that was trained on `data`."""

    def __init__(self, data: SampleData, other: SampleData) -> None:
        self.data, self.other = data, other

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of `data`."""
        return getattr(self.data, name)

    def size(self, split: str) -> int:
        return self.other.size(split)

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of `other`, encoded as those of `data`."""
        if isinstance(self.other, Texts):
            yield from self._texts(split, self.other)
            return
        for x, y in self.other.batches(split, seed, epoch, first):
            yield self.data.encode(decode(self.other, x)), y

    def _texts(self, split: str, other: Texts) -> Iterator[Batch]:
        """Encode from the words as they were read: the other's vocabulary may lack words that this one has."""
        corpus = other.source()
        rows: Sequence[int] = range(0 if split == "all" else corpus.num_train, len(corpus.labels))
        if split in ("train", "val"):
            rows = other.split(corpus)[split].tolist()
        for first in range(0, len(rows), self.data.eval_batch_size):
            batch = rows[first : first + self.data.eval_batch_size]
            spans = (corpus.tokens[corpus.offsets[i] : corpus.offsets[i + 1]] for i in batch)
            texts = [join_tokens([corpus.words[word] for word in span], other.tokens) for span in spans]
            x = self.data.encode(texts)
            yield x, torch.tensor([int(corpus.labels[i]) for i in batch], device=x.device)
