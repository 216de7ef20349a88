"""Word vectors as text files in GloVe's format (a word and its numbers per line), and tables of nearest words.

Source: Pennington et al. 2014 (nlp.stanford.edu/projects/glove); the book, section 11.1 (cosine similarity).
"""

import csv
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.errors import DataError, counted
from dlrun.paths import open_plain

NEAREST = 10  # number of neighbours per word in a table
MAKE = "dl-run experiment=imdb_glove_vectors makes one of the IMDB reviews, model=glove data=word_pairs of other texts"


def read_vectors(path: Path, words: Iterable[str], size: int) -> tuple[Tensor, int]:
    """Read the vectors (words, size) of these words, zero for words not in the file, and count those found.

    The file is streamed. Raises DataError for a line that is not a word and `size` columns. Only the numbers of the
    requested words are parsed.
    """
    rows = {word: i for i, word in enumerate(words)}
    vectors, seen = torch.zeros(len(rows), size), set()
    try:
        with open_plain(path) as file:
            for number, line in enumerate(file, 1):
                columns = line.rstrip(b"\r\n").rstrip(b" ").split(b" ")
                if number == 1 and line.startswith(b"\x1f\x8b"):
                    raise DataError(
                        f"model.embedding.file={path}: the file is compressed\n  expected a text file: gunzip it"
                    )
                if number == 1 and len(columns) == 2 and all(column.isdigit() for column in columns):
                    continue  # word2vec's header: the numbers of words and of columns
                if len(columns) != size + 1 and not _has_blanks(columns, size):
                    raise _bad_line(path, number, counted(len(columns) - 1, "number"), size)
                word = b" ".join(columns[:-size]).decode("utf-8", errors="replace")
                if word in rows and word not in seen:
                    seen.add(word)
                    vectors[rows[word]] = _numbers(path, number, columns[-size:])
    except OSError as error:
        raise DataError(
            f"model.embedding.file={path}: {error.strerror}\n"
            f"  expected a text file with a word and its numbers per line\n  {MAKE}"
        ) from None
    if rows and not seen:
        raise DataError(f"model.embedding.file={path} has none of the {len(rows):,} words: expected the same language")
    return vectors, len(seen)


def _has_blanks(columns: list[bytes], size: int) -> bool:
    """Whether the line has more columns because its word contains spaces, as some in GloVe's 840B file do."""
    if not size + 1 < len(columns) <= size + 8:
        return False
    try:
        float(columns[-size - 1])
    except ValueError:
        return True
    return False


def _numbers(path: Path, number: int, columns: list[bytes]) -> Tensor:
    try:
        values = [float(column) for column in columns]
    except ValueError:
        values = [float("nan")]
    vector = torch.tensor(values)
    if not vector.isfinite().all():
        raise _bad_line(path, number, "a value that is not a finite number", len(columns))
    return vector


def _bad_line(path: Path, number: int, problem: str, size: int) -> DataError:
    return DataError(
        f"model.embedding.file={path}, line {number}: {problem} after the word\n"
        f"  expected {counted(size, 'number')} (model.embedding.size)"
    )


def write_vectors(words: Iterable[str], vectors: Tensor) -> str:
    """Format vectors, float32 (words, size), as a text that `read_vectors` reads back to the same bits."""
    rows = zip(words, vectors.tolist(), strict=True)
    return "".join(f"{word} {' '.join([f'{value:.9g}' for value in row])}\n" for word, row in rows)


def write_neighbours(wanted: list[str], words: tuple[str, ...], vectors: Tensor) -> str:
    """Format a CSV of the nearest words to each wanted word, by the cosine similarity of their vectors."""
    rows = {word: i for i, word in enumerate(words)}
    directions = F.normalize(vectors, dim=1)  # vectors of zeros stay zero
    out = StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("word", "neighbour", "cosine"))
    for word in wanted:
        if word not in rows:
            table.writerow((word, "(not in the vocabulary)", ""))
            continue
        cosines = directions @ directions[rows[word]]
        cosines[rows[word]] = -2  # exclude the word itself
        best = cosines.topk(min(NEAREST, len(words) - 1))
        table.writerows((word, words[i], f"{c:.4f}") for c, i in zip(*map(Tensor.tolist, best), strict=True))
    return out.getvalue()


def write_similarity(pairs: list[tuple[str, str]], words: tuple[str, ...], vectors: Tensor) -> str:
    """Format a CSV of the cosine similarity a.b / (|a| |b|) of pairs of words (the book, section 11.1)."""
    out = StringIO()
    table = csv.writer(out, lineterminator="\n")
    table.writerow(("word", "other", "cosine"))
    for (a, b), cosine in zip(pairs, _cosines(pairs, words, vectors), strict=True):
        gone = [word for word in (a, b) if word not in words]
        table.writerow((a, b, f"({', '.join(gone)} not in the vocabulary)" if cosine is None else f"{cosine:.4f}"))
    return out.getvalue()


def similarities(pairs: list[tuple[str, str]], words: tuple[str, ...], vectors: Tensor) -> dict[str, float | None]:
    """The same by "word, other", None for a pair with an unknown word."""
    return {f"{a}, {b}": cosine for (a, b), cosine in zip(pairs, _cosines(pairs, words, vectors), strict=True)}


def _cosines(pairs: list[tuple[str, str]], words: tuple[str, ...], vectors: Tensor) -> list[float | None]:
    rows = {word: i for i, word in enumerate(words)}
    return [
        F.cosine_similarity(vectors[rows[a]], vectors[rows[b]], 0).item() if a in rows and b in rows else None
        for a, b in pairs
    ]
