"""How often the words of texts occur near each other, for GloVe. A sample is a word with its counts beside all others.

Source: Pennington et al. 2014 (GloVe). Of all pairs of words a share is held out, as val and test.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import Batch
from dlrun.data.orders import epoch_order
from dlrun.data.resident import hashed, sums
from dlrun.data.texts.cooccurrence import by_rows, count_pairs, drawn
from dlrun.data.texts.corpus import Corpus, Text, encode, pad, vocabulary, words_of
from dlrun.errors import DataError, UserError, counted
from dlrun.spec import Words
from dlrun.types import Count, Few, Range, Size, TextReader, Tokenization

PARTS = 100  # of the pairs; one of them is val, one is test
LEAST = 10  # pairs


@dataclass(frozen=True)
class _KnownWords(Words):
    """Words that can be read, by a plain function: copies of a net then do not copy the data."""

    get_words: Callable[[], tuple[str, ...]] = tuple

    def words(self) -> tuple[str, ...]:
        return self.get_words()


class WordPairs:
    """The counts of pairs of words within a window of the training texts. Labels are not read.

    length: ids of a text that `encode` keeps. vocab: number of ids. window: places to each side.
    Batches: x int64 (B,), ids of words; y float32 (B, vocab), their counts of this split, 0 for none.
    """

    def __init__(
        self,
        *,
        spec: Words,
        source: TextReader,
        length: Size,
        vocab: Annotated[int, Range(6, 10**6)],
        tokens: Tokenization,
        window: Few,
        batch_size: Count,
        eval_batch_size: Count,
    ) -> None:
        if (spec.length, spec.vocab) != (length, vocab):
            raise UserError(
                f"data.spec.length={spec.length} data.spec.vocab={spec.vocab}: expected data.length={length} and "
                f"data.vocab={vocab}; set those, and the spec follows"
            )
        if spec.classes or spec.labels:
            raise UserError(f"data.spec.classes={spec.classes} data.spec.labels={list(spec.labels)}: words have none")
        self.source: Callable[[], Corpus] = source
        self.window, self.tokens, self.length = window, tokens, length
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.known: tuple[str, ...] = ()  # the words with the ids 4, 5, ...
        self.spec = _KnownWords(length, vocab, get_words=lambda: self.known)

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the texts and count. Raises DataError if no two known words are near each other."""
        corpus, vocab = self.source(), self.spec.vocab
        rows = np.arange(corpus.num_train)
        ids = vocabulary(corpus, rows, vocab)
        texts = np.repeat(rows, np.diff(corpus.offsets[: corpus.num_train + 1]))
        words = ids[corpus.tokens[: len(texts)]]
        is_known = words >= 4
        pairs, counts = count_pairs(words[is_known], texts[is_known], vocab, self.window)
        if len(pairs) < LEAST:
            raise DataError(
                f"the texts have {counted(len(pairs), 'pair')} of words within data.window={self.window}\n"
                f"  expected {LEAST} or more, of which some are held out"
            )
        held = max(1, len(pairs) // PARTS)
        places = drawn(pairs, 2 * held)
        chosen = {"train": np.delete(np.arange(len(pairs)), places), "val": places[:held], "test": places[held:]}
        self.known, self.device = words_of(corpus, ids), device
        self.num_words, self.num_texts = int(is_known.sum()), corpus.num_train
        self.splits = {split: by_rows(pairs[rows], counts[rows], vocab) for split, rows in chosen.items()}
        self.stored = {
            split: tuple(torch.from_numpy(each).to(device) for each in rows) for split, rows in self.splits.items()
        }

    def size(self, split: str) -> int:
        return len(self.known)

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[Batch]:
        """Yield words and their counts. Train: in the epoch's order from batch `first` on."""
        ids, size = torch.arange(4, 4 + len(self.known)), self.eval_batch_size
        if split == "train":
            order = epoch_order(len(ids), lambda: ids, "none", seed, epoch)
            ids, size = ids[order[first * self.batch_size :]], self.batch_size
        for words in ids.to(self.device).split(size):
            yield words, self._rows(split, words)

    def _rows(self, split: str, words: Tensor) -> Tensor:
        """The counts of these words: (B,) -> (B, vocab)."""
        starts, columns, counts = self.stored[split]
        begins, ends = starts[words], starts[words + 1]
        rows = torch.repeat_interleave(torch.arange(len(words), device=self.device), ends - begins)
        before = torch.cumsum(ends - begins, 0) - (ends - begins)  # of the entries of these words, side by side
        places = torch.arange(len(rows), device=self.device) + (begins - before)[rows]
        out = torch.zeros(len(words), self.spec.vocab, device=self.device)
        out[rows, columns[places].long()] = counts[places]
        return out

    def encode(self, texts: list[str]) -> Tensor:
        """Turn texts into rows of ids, int32 (texts, length)."""
        index = {word: i for i, word in enumerate(self.known, 4)}
        corpus = encode((Text(False, 0, text.encode("utf-8", "replace")) for text in texts), self.tokens)
        ids = np.array([index.get(word, 2) for word in corpus.words], np.int32)
        rows = pad(corpus, ids, np.arange(len(texts)), self.length, before=False, end=False, start=False)
        return torch.from_numpy(rows).to(self.device)

    def fitted(self) -> dict:
        """Return the vocabulary."""
        return {"words": list(self.known)}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        self.known, self.device = tuple(fitted["words"]), device

    def digest(self) -> str:
        """Return a hash of the pairs of all splits."""
        return hashed((starts, columns) for starts, columns, _ in self.stored.values())

    def sums(self) -> list[float]:
        """Return checksums of the counts."""
        return [number for _, _, counts in self.stored.values() for number in sums(counts)]

    def describe(self) -> str:
        pairs = sum(len(rows.counts) for rows in self.splits.values())
        return (
            f"{self.num_words:,} words of {self.num_texts:,} texts, {len(self.known):,} different ones; "
            f"{pairs:,} counts within {self.window} words on {self.device}"
        )
