"""How often words occur near each other: a sum of 1 / distance over all pairs of places within a window.

Source: Pennington et al. 2014, section 4.2, and their program cooccur: the window is symmetric, words outside the
vocabulary are left out before distances are counted, and no pair crosses the end of a text.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

BLOCK = 2**24  # pairs of places that are sorted at once: 128 MB


class Counts(NamedTuple):
    """A sparse symmetric matrix by rows: row i has counts[starts[i]:starts[i + 1]] in columns[...]."""

    starts: np.ndarray  # int64 (vocab + 1,)
    columns: np.ndarray  # int32
    counts: np.ndarray  # float32


def count_pairs(words: np.ndarray, texts: np.ndarray, vocab: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the unordered pairs of words that occur within the window, and their counts, float32.

    words: the ids of all words in order; texts: for each, the number of its text, ascending. A pair of words i <= j is
    i * vocab + j. A word beside itself counts twice, as each of the two is near the other.
    """
    words = words.astype(np.int64)
    per_word = np.zeros(vocab, np.int64)
    for low, _, _ in _places(words, texts, window):
        per_word += np.bincount(low, minlength=vocab)
    ends = np.cumsum(per_word)
    edges = [0, *(1 + np.searchsorted(ends, np.arange(BLOCK, ends[-1], BLOCK))), vocab]
    pairs, counts = [], []
    for first, last in zip(edges, edges[1:], strict=False):  # of the lower words, so that each pair is in one block
        keys = []
        for low, high, distance in _places(words, texts, window):
            is_here = (low >= first) & (low < last)
            keys.append(((low[is_here] * vocab + high[is_here]) * window) + (distance - 1))
        key = np.sort(np.concatenate(keys))  # of whole numbers only, which is many times as fast as argsort
        pair = key // window
        is_new = np.r_[True, pair[1:] != pair[:-1]] if len(pair) else np.zeros(0, bool)
        shares = (1 / np.arange(1, window + 1))[key - pair * window]
        begins = np.flatnonzero(is_new)
        pairs.append(pair[begins])
        counts.append(np.add.reduceat(shares, begins) if len(begins) else shares)
    pair, count = np.concatenate(pairs), np.concatenate(counts)
    count[pair // vocab == pair % vocab] *= 2
    return pair, count.astype(np.float32)


def _places(words: np.ndarray, texts: np.ndarray, window: int) -> Iterator[tuple[np.ndarray, np.ndarray, int]]:
    """Yield for each distance the lower and the higher word of all pairs of places in the same text."""
    for distance in range(1, window + 1):
        left, right = words[:-distance], words[distance:]
        is_same = texts[:-distance] == texts[distance:]
        left, right = left[is_same], right[is_same]
        yield np.minimum(left, right), np.maximum(left, right), distance


def by_rows(pairs: np.ndarray, counts: np.ndarray, vocab: int) -> Counts:
    """The matrix of these unordered pairs, with each count in both of its places."""
    low, high = pairs // vocab, pairs % vocab
    is_other = low != high
    keys = np.concatenate([pairs, high[is_other] * vocab + low[is_other]])
    order = np.argsort(keys)
    keys, values = keys[order], np.concatenate([counts, counts[is_other]])[order]
    starts = np.searchsorted(keys, np.arange(vocab + 1, dtype=np.int64) * vocab)
    return Counts(starts, (keys % vocab).astype(np.int32), values)


def drawn(pairs: np.ndarray, count: int) -> np.ndarray:
    """Positions of `count` of the pairs, drawn by a hash: the same in every run, in no relation to the words."""
    mixed = pairs.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    return np.argpartition(mixed * np.uint64(0xBF58476D1CE4E5B9), count)[:count]
