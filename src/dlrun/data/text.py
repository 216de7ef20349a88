"""Texts as rows of whole numbers, kept on the device and gathered there.

Source: book section 11.5 (IMDB: 10,000 words, the last 80 of each review, ids as Keras gives them), notes E38.
Deviations: the vocabulary counts the train part only, the val part is held out of that, and no batch is dropped.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import Arrays
from dlrun.data.classes import check_labels
from dlrun.data.corpus import Corpus, Text, encode, pad, vocabulary, words_of
from dlrun.data.resident import Resident, split_rows
from dlrun.errors import DataError, UserError
from dlrun.spec import Tokens
from dlrun.types import Count, Fraction, Index, Range, Size, TextReader, Tokenization

MANY = 0.3  # share of unknown words from which the user is warned
_WHAT = {"words": "words", "keras": "words", "characters": "characters"}


@dataclass(frozen=True)
class _Worded(Tokens):
    """Tokens whose words can be asked for; a plain function, so that copies of a net do not copy the data."""

    ask: Callable[[], tuple[str, ...]] = tuple

    def words(self) -> tuple[str, ...]:
        return self.ask()


class Texts:
    """A data set of labelled texts; nothing is read before `load`, or before a net asks for the words.

    length: ids in a row; vocab: number of ids. tokens: see data/words.py. pad: which side is filled up; truncate: which
    side of a longer text is left out. start: whether id 1 begins each text, as in Keras.
    """

    def __init__(
        self,
        *,
        spec: Tokens,
        source: TextReader,
        length: Size,
        vocab: Annotated[int, Range(5, 10**7)],
        tokens: Tokenization,
        pad: Literal["pre", "post"],
        truncate: Literal["pre", "post"],
        start: bool,
        batch_size: Count,
        eval_batch_size: Count,
        val_fraction: Fraction,
        folds: Index,
        fold: Index,
    ) -> None:
        if (spec.length, spec.vocab) != (length, vocab):
            raise UserError(
                f"data.spec.length={spec.length} data.spec.vocab={spec.vocab}: expected data.length={length} and "
                f"data.vocab={vocab}; set those, and the spec follows"
            )
        check_labels(spec.labels, spec.classes)
        self.source: Callable[[], Corpus] = source
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.split = (val_fraction, folds, fold)
        self.layout = (length, pad == "pre", truncate == "pre", start)
        self.given, self.classes, self.labels, self.tokens = spec, spec.classes, spec.labels, tokens
        self.ask: Callable[[], tuple[str, ...]] = lambda: self._words()
        self.read: tuple[Corpus, dict[str, np.ndarray], np.ndarray] | None = None
        self.words: tuple[str, ...] = ()  # of the ids from 4 on, once they are known

    @property
    def spec(self) -> Tokens:
        """As given, with the classes once they are known; the texts are read for it where none are given."""
        if self.classes is None:
            self._read()
        return _Worded(self.given.length, self.given.vocab, self.classes, self.labels, self.ask)

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError where it is not what the spec says."""
        corpus, parts, ids = self._read()
        fit, test = np.arange(corpus.num_train), np.arange(corpus.num_train, len(corpus.labels))
        x_train, x_test = (pad(corpus, ids, rows, *self.layout) for rows in (fit, test))
        labels = np.array(corpus.labels)
        arrays = Arrays(x_train, labels[: corpus.num_train], x_test, labels[corpus.num_train :])
        self.resident = Resident(arrays, parts, device, lambda x, random: x)
        self.words = words_of(corpus, ids)
        self.odd = _oddities(corpus, int((ids >= 4).sum()), self.given.vocab)
        self.unknown = float((x_test == 2).sum() / max(1, (x_test > 1).sum()))
        self.read, self.device = None, device

    def fitted(self) -> dict:
        """What it learned from the train part: the vocabulary, and the classes' names."""
        return {"words": list(self.words), "labels": list(self.spec.labels)}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Ready to encode, without reading any data.

        The spec tells no words then: a net that is built from it reads no file of vectors, its weights are to come.
        """
        self.device, self.words = device, tuple(fitted["words"])
        self.labels, self.ask = tuple(fitted["labels"]), tuple
        self.classes = self.classes or len(self.labels)

    def size(self, split: str) -> int:
        return self.resident.size(split)

    def digest(self) -> str:
        """The same as long as the data is: its rows, labels, and some of its content."""
        return self.resident.digest()

    def sums(self) -> list[float]:
        """What tells whether the data is what it was, every number of it."""
        return self.resident.sums()

    def describe(self) -> str:
        share = f"{self.unknown:.1%} of the test part's {_WHAT[self.tokens]} unknown"
        if self.unknown > MANY:
            other = "" if self.tokens == "characters" else ", or data.tokens=characters"
            share += f" (warning: more than {MANY:.0%}; expected a larger data.vocab{other})"
        return f"{self.resident.describe()}; {share}{self.odd}"

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(x, y): x int32 (B, length); y int64 (B,). Train: in the epoch's order from batch `first` on."""
        if split == "train":
            return self.resident.train(self.batch_size, seed, epoch, first)
        return self.resident.evaluate(split, self.eval_batch_size)

    def encode(self, texts: list[str]) -> Tensor:
        """Texts as the network takes them: int32 (texts, length)."""
        index = {word: i for i, word in enumerate(self.words, 4)}
        corpus = encode((Text(False, 0, text.encode("utf-8", "replace")) for text in texts), self.tokens)
        ids = np.array([index.get(word, 2) for word in corpus.words], np.int32)
        return torch.from_numpy(pad(corpus, ids, np.arange(len(texts)), *self.layout)).to(self.device)

    def _read(self) -> tuple[Corpus, dict[str, np.ndarray], np.ndarray]:
        if self.read is None:
            corpus = self.source()
            self.classes = _check(corpus, self.classes)
            self.labels = corpus.names or self.labels
            parts = split_rows(corpus.num_train, *self.split)
            self.read = corpus, parts, vocabulary(corpus, parts["train"], self.given.vocab)
        return self.read

    def _words(self) -> tuple[str, ...]:
        if not self.words:
            corpus, _, ids = self._read()
            self.words = words_of(corpus, ids)
        return self.words


def _check(corpus: Corpus, wanted: int | None) -> int:
    """How many classes there are. wanted: by the config, None for any. Raises DataError where they differ."""
    classes = np.unique(corpus.labels)
    count = wanted or len(classes)
    if len(classes) != count or classes[-1] != count - 1:
        raise DataError(
            f"the texts have {len(classes)} classes, data.spec.classes={count}: "
            f"expected the numbers 0 to {count - 1}, each there; set data.spec.classes={len(classes)}"
        )
    if not len(corpus.tokens):
        raise DataError(f"all {len(corpus.labels)} texts are empty: expected words")
    return count


def _oddities(corpus: Corpus, known: int, vocab: int) -> str:
    """What the user should know, in the run's header."""
    said = ""
    if known < vocab - 4:
        said += f"; data.vocab={vocab}, but the train part has {known:,} words: {vocab - 4 - known:,} ids are not used"
    if corpus.facts["empty"]:
        said += f"; texts without a word: {corpus.facts['empty']:,}"
    if corpus.facts["not_utf8"]:
        said += f"; texts with bytes that are not UTF-8 (left out): {corpus.facts['not_utf8']:,}"
    return said
