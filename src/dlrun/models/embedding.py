"""Vectors of words: random, or pretrained ones from a text file in GloVe's format (a word and its numbers per line).

Source: book sections 11.1 and 11.8, notes E37; Pennington et al. 2014. Words without a vector, and the four special
ids, start at zero as in the book.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from dlrun.errors import DataError, UserError
from dlrun.spec import Tokens
from dlrun.types import Count


@dataclass(frozen=True, kw_only=True)
class Embed:
    """size: numbers per word. file: a text file of vectors, or null for random ones. train: whether they learn."""

    size: Count
    file: str | None
    train: bool


class Embedding(nn.Embedding):
    """(B, T) whole numbers -> (B, T, size). covered: the share of the vocabulary that the file had."""

    covered: float | None = None

    def forward(self, tokens: Tensor) -> Tensor:
        # the runner's probes of shapes are of floats
        return super().forward(tokens.long() if tokens.is_floating_point() else tokens)

    def extra_repr(self) -> str:
        known = "" if self.covered is None else f", {self.covered:.1%} of the words from the file"
        return super().extra_repr() + known


def make_embedding(spec: Tokens, embed: Embed, init: str) -> Embedding:
    """The table of a vocabulary. init: keras is uniform in [-0.05, 0.05), torch is standard normal."""
    table = Embedding(spec.vocab, embed.size)
    if init == "keras":
        nn.init.uniform_(table.weight, -0.05, 0.05)
    if embed.file is not None:
        vectors, found = read_vectors(Path(embed.file).expanduser(), spec.words(), embed.size)
        with torch.no_grad():
            table.weight.zero_()
            table.weight[4 : 4 + len(vectors)] = vectors
        table.covered = found / max(1, len(vectors))
    elif not embed.train:
        raise UserError(
            "model.embedding.train=false without model.embedding.file leaves random vectors as they are: "
            "expected a file of vectors, or model.embedding.train=true"
        )
    table.weight.requires_grad_(embed.train)
    return table


def read_vectors(path: Path, words: Iterable[str], size: int) -> tuple[Tensor, int]:
    """The vectors of these words (zero where the file has none), and how many it has. The file is streamed.

    Raises DataError for a line that is not a word and `size` numbers, whether its word is wanted or not.
    """
    places = {word: i for i, word in enumerate(words)}
    vectors, seen = torch.zeros(len(places), size), set()
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, 1):
                columns = line.rstrip(b"\r\n").rstrip(b" ").split(b" ")
                if number == 1 and len(columns) == 2 and size != 1:
                    continue  # word2vec's heading: how many words, how many numbers
                if len(columns) <= size or len(columns) > size + 8:  # some words of GloVe's 840B hold blanks
                    raise _bad_line(path, number, f"{len(columns) - 1} numbers", size)
                word = b" ".join(columns[:-size]).decode("utf-8", errors="replace")
                if word in places and word not in seen:
                    seen.add(word)
                    vectors[places[word]] = _numbers(path, number, columns[-size:])
    except OSError as error:
        raise DataError(
            f"model.embedding.file={path}: {error.strerror}\n"
            "  expected a text file with a word and its numbers per line"
        ) from None
    if places and not seen:
        raise DataError(
            f"model.embedding.file={path} has none of the {len(places):,} words: expected the same language"
        )
    return vectors, len(seen)


def _numbers(path: Path, number: int, columns: list[bytes]) -> Tensor:
    try:
        values = [float(column) for column in columns]
    except ValueError:
        values = [float("nan")]
    if not all(map(isfinite, values)):
        raise _bad_line(path, number, "something that is not a number", len(columns))
    return torch.tensor(values)


def _bad_line(path: Path, number: int, found: str, size: int) -> DataError:
    return DataError(
        f"model.embedding.file={path}, line {number}: {found} behind the word\n"
        f"  expected {size}, as model.embedding.size says"
    )
