"""Word embeddings: random or from a file of vectors. Learned vectors can be written to a file for other runs.

Source: the book, sections 11.1 and 11.12. As in the book, words without a vector in the file and the four special ids
start at zero.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dlrun.models.vectors import read_vectors, write_neighbours, write_similarity, write_vectors
from dlrun.output.report import Report
from dlrun.spec import Tokens
from dlrun.types import Size


@dataclass(frozen=True, kw_only=True)
class Embed:
    """The config of an embedding.

    size: numbers per word. file: a text file of vectors, or null for random ones. train: whether the vectors learn.
    neighbours: words whose nearest words are written to neighbours.csv in the run's folder at the end. pairs: words
    whose similarity is written to similarity.csv. save: write all
    vectors to vectors.txt in the run's folder, a file that `file` can read.
    """

    size: Size
    file: str | None
    train: bool
    neighbours: list[str]
    pairs: list[tuple[str, str]]
    save: bool


class Embedding(nn.Embedding):
    """(B, T) integers -> (B, T, size). description: the number of words found in the file, for the run's header."""

    description = ""
    embed: Embed
    words: Callable[[], tuple[str, ...]]  # of the ids from 4 on

    def forward(self, tokens: Tensor) -> Tensor:
        # shapes are checked with floats before training
        return super().forward(tokens.long() if tokens.is_floating_point() else tokens)

    @torch.no_grad()
    def report(self) -> Report:
        """The text files for the run's folder, by name."""
        words, files = self.words(), {}
        vectors = self.weight[4 : 4 + len(words)].float().cpu()
        if self.embed.neighbours and words:
            files["neighbours.csv"] = write_neighbours(self.embed.neighbours, words, vectors)
        if self.embed.pairs and words:
            files["similarity.csv"] = write_similarity(self.embed.pairs, words, vectors)
        if self.embed.save:
            files["vectors.txt"] = write_vectors(words, vectors)
        return Report(files=files)


def make_embedding(spec: Tokens, embed: Embed, init: str) -> Embedding:
    """Make the embedding of a vocabulary. init: keras is uniform in [-0.05, 0.05), torch is standard normal."""
    table = Embedding(spec.vocab, embed.size)
    table.embed, table.words = embed, spec.words
    if init == "keras":
        nn.init.uniform_(table.weight, -0.05, 0.05)
    if embed.file is None and not embed.train:
        table.description = "; random word vectors, which stay as they are (model.embedding.train=false)"
    if embed.file is not None and not spec.is_restored and (words := spec.words()):
        path = Path(os.path.expanduser(embed.file))
        vectors, num_vectors = read_vectors(path, words, embed.size)
        with torch.no_grad():
            table.weight.zero_()
            table.weight[4 : 4 + len(vectors)] = vectors
        table.description = f"; {num_vectors:,} of {len(words):,} words have a vector in {path.name}"
    table.weight.requires_grad_(embed.train)
    return table
