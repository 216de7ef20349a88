"""A cache of tokenised texts: every word of every text in one memory-mapped array, and the list of words.

The cache does not depend on a run's settings (length, vocabulary, val split). These are applied to it in a second.
"""

import json
import os
import re
import shutil
from array import array
from collections.abc import Callable, Iterable
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dlrun.data.sources.lock import lock
from dlrun.data.texts.words import FILTERS, split_text
from dlrun.errors import DataError, check_state
from dlrun.output.written import sync_folder
from dlrun.types import Tokenization

CACHE = "dl-run-words"  # the folder of all caches, under data_dir
VERSION = 2  # of the stored format; caches of other versions are rebuilt
_FILES = ("tokens.npy", "offsets.npy", "labels.npy", "words.json", "facts.json")


class Text(NamedTuple):
    """One labelled text as it is stored. is_test: whether it is in the test split."""

    is_test: bool
    label: int
    content: bytes


class Corpus(NamedTuple):
    """Tokenised texts. tokens int32: indices into `words`; text i is tokens[offsets[i]:offsets[i + 1]]. labels int64.

    num_train: number of training texts; the test texts follow them. facts: number of empty and of damaged texts.
    names: the classes in order, if the source knows them. files: where each text comes from, if the source knows it.
    num_val: number of the last training texts that are val by the source; 0: val is cut from them. split_note:
    describes the splits that the source gives.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    words: tuple[str, ...]
    num_train: int
    facts: dict[str, int]
    names: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    num_val: int = 0
    split_note: str = ""


def cached(
    folder: Path,
    contents: object,
    texts: Callable[[], Iterable[Text]],
    total: int | None,
    name: str,
    tokens: Tokenization,
) -> Corpus:
    """Return the corpus of these texts, from the cache if it exists.

    contents: everything that determines the content, JSON values; each value has a cache of its own. texts: yields all
    texts, the training texts first. total: number of texts, for the progress bar. name: of the cache's folder.
    """
    key = sha256(json.dumps([VERSION, FILTERS, contents, tokens]).encode()).hexdigest()[:16]
    target = folder / f"{name}-{key}"
    if not target.is_dir():
        with lock(target):
            if not target.is_dir():  # otherwise another process wrote it while this one waited
                _make(target, texts(), total, name, tokens)
    return _read(target)


def _make(target: Path, texts: Iterable[Text], total: int | None, name: str, tokens: Tokenization) -> None:
    from tqdm import tqdm

    bar = tqdm(texts, desc=f"reading {name}", total=total, unit=" texts", disable=None)  # shown on a terminal only
    corpus = encode(bar, tokens)
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)  # left by a killed process
    try:
        scratch.mkdir()
        for file, values in zip(_FILES[:3], corpus[:3], strict=True):
            np.save(scratch / file, values, allow_pickle=False)
        (scratch / "words.json").write_text(json.dumps(corpus.words))
        header = {"num_train": corpus.num_train, "facts": corpus.facts}
        header["sha256"] = {file: _digest(scratch / file) for file in _FILES[:4]}
        (scratch / "facts.json").write_text(json.dumps(header))
        for file in _FILES:
            with open(scratch / file, "rb+") as handle:
                os.fsync(handle.fileno())
        os.rename(scratch, target)
        sync_folder(target.parent)
    except OSError as error:
        raise DataError(
            f"cannot write the words' cache {target}: {error}\n  expected free space on that disk"
        ) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def encode(texts: Iterable[Text], tokens: Tokenization) -> Corpus:
    """Tokenise texts; words are numbered in the order in which they first occur."""
    index: dict[str, int] = {}
    word_ids, offsets, labels = array("i"), array("q", [0]), array("q")
    facts, num_train = {"empty": 0, "not_utf8": 0}, 0
    for text in texts:
        content, is_damaged = decode(text.content)
        words = split_text(content, tokens)
        word_ids.extend([index.setdefault(word, len(index)) for word in words])
        offsets.append(len(word_ids))
        labels.append(text.label)
        num_train += not text.is_test
        facts["empty"] += not words
        facts["not_utf8"] += is_damaged
    columns = np.array(word_ids, np.int32), np.array(offsets, np.int64), np.array(labels, np.int64)
    return Corpus(*columns, tuple(index), num_train, facts)


def decode(content: bytes) -> tuple[str, bool]:
    """Return the text, and whether bytes that are not UTF-8 were left out of it."""
    try:
        return content.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return content.decode("utf-8", errors="replace").replace("\ufffd", " "), True


def _read(folder: Path) -> Corpus:
    """Read a cached corpus. Raises DataError if it is not what was written, to the bit."""
    try:
        header = json.loads((folder / "facts.json").read_text())
        changed = next((file for file in _FILES[:4] if _digest(folder / file) != header["sha256"][file]), None)
        if changed:
            raise ValueError(f"{changed} is not what was written")
        ids, offsets, labels = (np.load(folder / file, mmap_mode="r", allow_pickle=False) for file in _FILES[:3])
        words = tuple(json.loads((folder / "words.json").read_text()))
        check_state(header["facts"], {"empty": int, "not_utf8": int})
        if not 0 < header["num_train"] <= len(labels):
            raise ValueError(f"num_train: {header['num_train']}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the words' cache {folder} is damaged: {error}\n  expected the files as they were written\n"
            "  delete it, so that it is rebuilt"
        ) from None
    return Corpus(ids, offsets, labels, words, header["num_train"], header["facts"])


def _digest(path: Path) -> str:
    """Return a file's SHA-256 (Python 3.10 does not have hashlib.file_digest)."""
    digest = sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def vocabulary(corpus: Corpus, rows: np.ndarray, size: int) -> np.ndarray:
    """Return the id of each of the corpus's words, by its frequency in the texts `rows`: 4 is the most frequent word.

    Words outside the vocabulary have id 2. Of equally frequent words the first to occur comes first, as in Keras.
    size: ids are 0 .. size - 1.
    """
    wanted = np.zeros(len(corpus.labels), bool)
    wanted[rows] = True
    is_counted = np.repeat(wanted, np.diff(corpus.offsets))
    counts = np.bincount(corpus.tokens[is_counted], minlength=len(corpus.words))
    order = np.argsort(-counts, kind="stable")[: size - 4]
    order = order[counts[order] > 0]
    ids = np.full(len(counts), 2, np.int32)
    ids[order] = np.arange(4, 4 + len(order), dtype=np.int32)
    return ids


def pad(
    corpus: Corpus, ids: np.ndarray, rows: np.ndarray, length: int, before: bool, end: bool, start: bool
) -> np.ndarray:
    """Return rows of `length` ids, int32 (texts, length).

    before: pad in front. end: keep the end of a longer text. start: begin each text with id 1.
    """
    out = np.zeros((len(rows), length), np.int32)
    columns = np.arange(length)
    for first in range(0, len(rows), 1024):
        batch = rows[first : first + 1024]
        begins, whole = corpus.offsets[batch], corpus.offsets[batch + 1] - corpus.offsets[batch] + start
        lengths = np.minimum(whole, length)
        source = (
            columns - (length - lengths if before else np.zeros_like(lengths))[:, None]
        )  # from the first id that is kept
        is_text = (source >= 0) & (source < lengths[:, None])
        source = (
            source + (whole - lengths if end else np.zeros_like(lengths))[:, None] - start
        )  # from the text's first word
        is_word = is_text & (source >= 0)
        block = out[first : first + 1024]
        block[is_text & (source < 0)] = 1
        block[is_word] = ids[corpus.tokens[(source + begins[:, None])[is_word]]]
    return out


def words_of(corpus: Corpus, ids: np.ndarray) -> tuple[str, ...]:
    """Return the words with the ids 4, 5, ..."""
    known = np.flatnonzero(ids >= 4)
    return tuple(corpus.words[i] for i in known[np.argsort(ids[known])])


def safe_name(text: str) -> str:
    """Return the text as part of a file name: letters, digits and underscores."""
    return re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "texts"
