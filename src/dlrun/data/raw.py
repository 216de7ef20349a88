"""What a network was given, as it was before: the way back from `encode`, and a data set seen by another's eyes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dlrun.data.resident import split_rows
from dlrun.data.words import join_tokens
from dlrun.spec import Image, Mask, Tokens

Raw = Tensor | list[str]


def decode(data: object, x: Tensor) -> Raw:
    """Pictures as uint8 (B, C, H, W), rows (B, features) in the data's own units, or texts; on the host."""
    x = x.cpu()
    if isinstance(data.spec, Image | Mask):
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
        return ((x * std + mean) * 255).round().clamp(0, 255).to(torch.uint8)
    if isinstance(data.spec, Tokens):
        words = ("", "", "?", "", *data.spec.words())
        return [join_tokens([words[i] for i in row if words[i]], data.tokens) for row in x.tolist()]
    fitted = data.fitted()
    if not fitted:
        return x
    mean, std = (torch.tensor(fitted[name], dtype=torch.float64) for name in ("mean", "std"))
    values = x * std + mean
    return torch.where(values.abs() > 1e-6 * (mean.abs() + std), values, 0.0).float()  # a zero comes back as one


class Through:
    """The samples of `other`, encoded as `own` does it: for a network that was trained on `own`."""

    def __init__(self, own: object, other: object) -> None:
        self.own, self.other = own, other

    def __getattr__(self, name: str) -> object:
        return getattr(self.own, name)

    def size(self, split: str) -> int:
        return self.other.size(split)

    def batches(self, split: str, *order: int) -> Iterator[tuple[Tensor, Tensor]]:
        if isinstance(self.own.spec, Tokens):
            yield from self._texts(split)
            return
        for x, y in self.other.batches(split, *order):
            yield self.own.encode(decode(self.other, x)), y

    def _texts(self, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """From the words as they were read: the other's vocabulary may lack what this one has."""
        corpus = self.other.source()
        rows = range(0 if split == "all" else corpus.num_train, len(corpus.labels))
        if split in ("train", "val"):
            rows = split_rows(corpus.num_train, *self.other.split)[split].tolist()
        for first in range(0, len(rows), self.own.eval_batch_size):
            some = rows[first : first + self.own.eval_batch_size]
            spans = (corpus.tokens[corpus.offsets[i] : corpus.offsets[i + 1]] for i in some)
            texts = [join_tokens([corpus.words[word] for word in span], self.other.tokens) for span in spans]
            y = torch.tensor([int(corpus.labels[i]) for i in some], device=self.own.device)
            yield self.own.encode(texts), y
