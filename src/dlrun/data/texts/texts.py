"""Texts as rows of token ids, stored on the device and gathered there.

Source: the book, section 11.5 (IMDB: 10,000 words, the last 80 of each review, Keras's ids).
Deviations: the vocabulary is counted on the train split only, val is held out of the training texts, and no batch is
dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from torch import Tensor

from dlrun.data.base import Arrays
from dlrun.data.classes import check_labels, numbers_like
from dlrun.data.on_device import OnDevice
from dlrun.data.resident import Resident
from dlrun.data.splits import split_random, split_rows
from dlrun.data.texts.corpus import Corpus, Text, encode, pad, vocabulary, words_of
from dlrun.errors import DataError, UserError, counted, printable
from dlrun.spec import Tokens
from dlrun.types import Count, Fraction, Index, Range, Sampler, Size, TextReader, Tokenization

MANY = 0.3  # warn above this share of unknown words
_UNITS = {"words": "words", "keras": "words", "characters": "characters"}


@dataclass(frozen=True)
class _TokensWithWords(Tokens):
    """Tokens that can return their vocabulary, by a plain function: copies of a net then do not copy the data."""

    get_words: Callable[[], tuple[str, ...]] = tuple
    of_finished_run: bool = False

    def words(self) -> tuple[str, ...]:
        return self.get_words()

    @property
    def is_restored(self) -> bool:
        return self.of_finished_run


class Texts(OnDevice):
    """A data set of labelled texts. Nothing is read before `load`, or before a network reads the words from the spec.

    length: ids in a row; vocab: number of ids. tokens: see data/texts/words.py. pad: the side that is padded; truncate:
    the side of a longer text that is cut off. start: whether id 1 begins each text, as in Keras. stratify: whether val
    is cut from each class separately.
    Batches: x int32 (B, length); y int64 (B,).
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
        sampler: Sampler,
        stratify: bool,
    ) -> None:
        if (spec.length, spec.vocab) != (length, vocab):
            raise UserError(
                f"data.spec.length={spec.length} data.spec.vocab={spec.vocab}: expected data.length={length} and "
                f"data.vocab={vocab}; set those, and the spec follows"
            )
        check_labels(spec.labels, spec.classes)
        self.source: Callable[[], Corpus] = source
        self.batch_size, self.eval_batch_size = batch_size, eval_batch_size
        self.split_config, self.stratify = (val_fraction, folds, fold), stratify
        self.folds, self.sampler = folds, sampler
        self.layout = (length, pad == "pre", truncate == "pre", start)
        self.config_spec, self.classes, self.labels, self.tokens = spec, spec.classes, spec.labels, tokens
        self.get_words: Callable[[], tuple[str, ...]] = lambda: self._words()
        self.is_restored = False  # whether the words are those of a finished run
        self.loaded: tuple[Corpus, dict[str, np.ndarray], np.ndarray] | None = None
        self.header_lines: dict[str, str] = {}
        self.words: tuple[str, ...] = ()  # the words with the ids 4, 5, ...; empty before they are known

    @property
    def spec(self) -> Tokens:
        """The config's spec with the classes, which are read from the texts if the config has none."""
        if self.classes is None:
            self._read()
        config_spec = self.config_spec
        shape = (config_spec.length, config_spec.vocab, self.classes, self.labels)
        return _TokensWithWords(*shape, self.get_words, self.is_restored)

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the data and put it on the device. Raises DataError if it does not match the spec."""
        corpus, splits, ids = self._read()
        train, test = np.arange(corpus.num_train), np.arange(corpus.num_train, len(corpus.labels))
        x_train, x_test = (pad(corpus, ids, rows, *self.layout) for rows in (train, test))
        labels = np.array(corpus.labels)
        arrays = Arrays(x_train, labels[: corpus.num_train], x_test, labels[corpus.num_train :])
        self.resident = Resident(arrays, splits, device, lambda x, random: x)
        self.words = words_of(corpus, ids)
        self.oddities = _oddities(corpus, int((ids >= 4).sum()), self.config_spec.vocab)
        self.header_lines = {"splits": corpus.split_note} if corpus.split_note else {}
        self.unknown_share = float((x_test == 2).sum() / max(1, (x_test > 1).sum()))
        self.sources, self.rows = corpus.files, splits | {"test": test}
        self.loaded, self.device = None, device

    def fitted(self) -> dict:
        """Return the vocabulary of the train split and the classes' names."""
        return {"words": list(self.words), "labels": list(self.spec.labels)}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Prepare `encode` without reading any data."""
        self.device, self.words, self.is_restored = device, tuple(fitted["words"]), True
        self.labels = tuple(fitted["labels"])
        self.classes = self.classes or len(self.labels)

    def load_like(self, fitted: dict, device: torch.device) -> None:
        """Read all texts as those of a run whose data has learned `fitted`. They are the test split."""
        self.restore(fitted, device)
        corpus = self.source()
        index = {word: i for i, word in enumerate(self.words, 4)}
        ids = np.array([index.get(word, 2) for word in corpus.words], np.int32)
        known = numbers_like("the data", list(corpus.names or self.labels), self.labels)
        rows = np.arange(len(corpus.labels))
        x, y = pad(corpus, ids, rows, *self.layout), known[np.array(corpus.labels)]
        splits = {"train": rows[:0], "val": rows[:0], "test": rows}
        self.resident = Resident(Arrays(x, y, x[:0], y[:0]), splits, device, lambda x, random: x)
        self.sources, self.rows = corpus.files, splits

    def files(self, split: str) -> list[str]:
        """Return the origins of the samples, in the order of `batches` (val and test); empty if it is not known."""
        return [printable(self.sources[row]) for row in self.rows[split]] if self.sources else []

    def describe(self) -> str:
        share = f"{self.unknown_share:.1%} of the test split's {_UNITS[self.tokens]} unknown"
        if self.unknown_share > MANY:
            other = "" if self.tokens == "characters" else ", or data.tokens=characters"
            share += f" (warning: more than {MANY:.0%}; expected a larger data.vocab{other})"
        return f"{self.resident.describe()}; {share}{self.oddities}"

    def encode(self, texts: list[str]) -> Tensor:
        """Turn texts into rows of ids, int32 (texts, length)."""
        index = {word: i for i, word in enumerate(self.words, 4)}
        corpus = encode((Text(False, 0, text.encode("utf-8", "replace")) for text in texts), self.tokens)
        ids = np.array([index.get(word, 2) for word in corpus.words], np.int32)
        return torch.from_numpy(pad(corpus, ids, np.arange(len(texts)), *self.layout)).to(self.device)

    def _read(self) -> tuple[Corpus, dict[str, np.ndarray], np.ndarray]:
        """Return the corpus, the rows of train and val, and the id of each of the corpus's words."""
        if self.loaded is None:
            corpus = self.source()
            self.classes = _check(corpus, self.classes)
            self.labels = corpus.names or self.labels
            splits = self.split(corpus)
            self.loaded = corpus, splits, vocabulary(corpus, splits["train"], self.config_spec.vocab)
        return self.loaded

    def split(self, corpus: Corpus) -> dict[str, np.ndarray]:
        """Return the rows of train and val among the corpus's training texts."""
        fraction, folds, fold = self.split_config
        if not self.stratify or corpus.num_val and not folds or not fraction and not folds:
            return split_rows(corpus.num_train, *self.split_config, corpus.num_val)
        labels = np.array(corpus.labels[: corpus.num_train])
        splits = split_random(corpus.num_train, (1 - fraction, fraction, 0.0), folds, fold, labels, "text")
        return {name: splits[name] for name in ("train", "val")}

    def _words(self) -> tuple[str, ...]:
        if not self.words and not self.is_restored:
            corpus, _, ids = self._read()
            self.words = words_of(corpus, ids)
        return self.words


def _check(corpus: Corpus, wanted: int | None) -> int:
    """Return the number of classes. wanted: the config's number, None for any. Raises DataError if they differ."""
    classes = np.unique(corpus.labels)
    count = wanted or len(classes)
    if len(classes) != count or classes[-1] != count - 1:
        raise DataError(
            f"the texts have {counted(len(classes), 'class')}, data.spec.classes={count}: "
            f"expected every number from 0 to {count - 1}; set data.spec.classes={len(classes)}"
        )
    if not len(corpus.tokens):
        raise DataError(f"all {len(corpus.labels)} texts are empty: expected words")
    return count


def _oddities(corpus: Corpus, known: int, vocab: int) -> str:
    """Describe unusual facts about the texts, for the run's header."""
    text = ""
    if known < vocab - 4:
        text += f"; data.vocab={vocab}, but the train split has {known:,} words: {vocab - 4 - known:,} ids are not used"
    if corpus.facts["empty"]:
        text += f"; texts without a word: {corpus.facts['empty']:,}"
    if corpus.facts["not_utf8"]:
        text += f"; texts with bytes that are not UTF-8 (left out): {corpus.facts['not_utf8']:,}"
    return text
