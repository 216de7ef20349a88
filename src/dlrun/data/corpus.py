"""Texts as numbers, made once: every word of every text in one memory-mapped array, beside the list of words.

What depends on a run's settings (length, vocabulary, the held-out part) is no part of the cache: it is made from it in
a second.
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
from dlrun.data.words import FILTERS, split_text
from dlrun.errors import DataError, check_state
from dlrun.output.folders import sync_folder
from dlrun.types import Tokenization

VERSION = 2  # of what is stored; another one is made anew
_FILES = ("tokens.npy", "offsets.npy", "labels.npy", "words.json", "facts.json")


class Text(NamedTuple):
    """One labelled text as it is stored. is_test: of the test part; those of the train part come first."""

    is_test: bool
    label: int
    content: bytes


class Corpus(NamedTuple):
    """tokens int32: places in `words`, text after text; text i is tokens[offsets[i]:offsets[i + 1]]. labels int64.

    num_train: texts of the train part; the others are test. facts: what was odd, counted. names: the classes, in order,
    where the source knows them.
    """

    tokens: np.ndarray
    offsets: np.ndarray
    labels: np.ndarray
    words: tuple[str, ...]
    num_train: int
    facts: dict[str, int]
    names: tuple[str, ...] = ()


def cached(
    folder: Path,
    made_of: object,
    texts: Callable[[], Iterable[Text]],
    total: int | None,
    name: str,
    tokens: Tokenization,
) -> Corpus:
    """The corpus of these texts, from the cache where it was made before.

    made_of: whatever decides the content; a change of it makes another cache. texts: gives them all, train part first.
    """
    key = sha256(json.dumps([VERSION, FILTERS, made_of, tokens]).encode()).hexdigest()[:16]
    target = folder / f"{name}-{key}"
    if not target.is_dir():
        with lock(target):
            if not target.is_dir():  # else another process made it while this one waited
                _make(target, texts(), total, name, tokens)
    return _read(target)


def _make(target: Path, texts: Iterable[Text], total: int | None, name: str, tokens: Tokenization) -> None:
    from tqdm import tqdm

    bar = tqdm(texts, desc=f"reading {name}", total=total, unit=" texts", disable=None)  # shown on a terminal only
    corpus = encode(bar, tokens)
    scratch = target.with_name(f".{target.name}.part")
    shutil.rmtree(scratch, ignore_errors=True)  # what a killed process left
    try:
        scratch.mkdir()
        for file, values in zip(_FILES[:3], corpus[:3], strict=True):
            np.save(scratch / file, values, allow_pickle=False)
        (scratch / "words.json").write_text(json.dumps(corpus.words))
        about = {"num_train": corpus.num_train, "facts": corpus.facts}
        about["sha256"] = {file: _digest(scratch / file) for file in _FILES[:4]}
        (scratch / "facts.json").write_text(json.dumps(about))
        for file in _FILES:
            with open(scratch / file, "rb+") as handle:
                os.fsync(handle.fileno())
        os.rename(scratch, target)
        sync_folder(target.parent)
    except OSError as error:
        raise DataError(f"cannot write the words' cache {target}: {error}\n  expected room on that disk") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def encode(texts: Iterable[Text], tokens: Tokenization) -> Corpus:
    """Words to numbers, in the order in which they first come."""
    index: dict[str, int] = {}
    places, offsets, labels = array("i"), array("q", [0]), array("q")
    facts, num_train = {"empty": 0, "not_utf8": 0}, 0
    for text in texts:
        content, is_damaged = decode(text.content)
        words = split_text(content, tokens)
        places.extend([index.setdefault(word, len(index)) for word in words])
        offsets.append(len(places))
        labels.append(text.label)
        num_train += not text.is_test
        facts["empty"] += not words
        facts["not_utf8"] += is_damaged
    columns = np.array(places, np.int32), np.array(offsets, np.int64), np.array(labels, np.int64)
    return Corpus(*columns, tuple(index), num_train, facts)


def decode(content: bytes) -> tuple[str, bool]:
    """The text, and whether bytes that are not UTF-8 were left out of it."""
    try:
        return content.decode("utf-8-sig"), False
    except UnicodeDecodeError:
        return content.decode("utf-8", errors="replace").replace("\ufffd", " "), True


def _read(folder: Path) -> Corpus:
    """As it was written, to the bit. Raises DataError where it is not."""
    try:
        about = json.loads((folder / "facts.json").read_text())
        changed = next((file for file in _FILES[:4] if _digest(folder / file) != about["sha256"][file]), None)
        if changed:
            raise ValueError(f"{changed} is not what was written there")
        columns = [np.load(folder / file, mmap_mode="r", allow_pickle=False) for file in _FILES[:3]]
        words = tuple(json.loads((folder / "words.json").read_text()))
        check_state(about["facts"], {"empty": int, "not_utf8": int})
        if not 0 < about["num_train"] <= len(columns[2]):
            raise ValueError(f"num_train: {about['num_train']}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"the words' cache {folder} is damaged: {error}\n  expected it as it was written\n"
            "  delete it, so that it is made anew"
        ) from None
    return Corpus(*columns, words, about["num_train"], about["facts"])


def _digest(path: Path) -> str:
    """hashlib.file_digest, which Python 3.10 does not have."""
    found = sha256()
    with open(path, "rb") as file:
        while part := file.read(2**20):
            found.update(part)
    return found.hexdigest()


def vocabulary(corpus: Corpus, rows: np.ndarray, size: int) -> np.ndarray:
    """Ids of the corpus's words, by how often each comes in these texts: 4 is the most frequent, 2 is any other word.

    Ties go to the word that came first, as in Keras. size: ids are 0 .. size - 1.
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
    """Rows of `length` ids. before: padded in front. end: a longer text's end is kept. start: id 1 begins each text."""
    out = np.zeros((len(rows), length), np.int32)
    place = np.arange(length)
    for first in range(0, len(rows), 1024):
        some = rows[first : first + 1024]
        begins, whole = corpus.offsets[some], corpus.offsets[some + 1] - corpus.offsets[some] + start
        kept = np.minimum(whole, length)
        source = place - (length - kept if before else np.zeros_like(kept))[:, None]  # from the first id that is kept
        is_text = (source >= 0) & (source < kept[:, None])
        source = source + (whole - kept if end else np.zeros_like(kept))[:, None] - start  # from the text's first word
        is_word = is_text & (source >= 0)
        block = out[first : first + 1024]
        block[is_text & (source < 0)] = 1
        block[is_word] = ids[corpus.tokens[(source + begins[:, None])[is_word]]]
    return out


def words_of(corpus: Corpus, ids: np.ndarray) -> tuple[str, ...]:
    """The words by their ids, from id 4 on."""
    known = np.flatnonzero(ids >= 4)
    return tuple(corpus.words[i] for i in known[np.argsort(ids[known])])


def safe_name(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_]+", "_", text).strip("_") or "texts"
