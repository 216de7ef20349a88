"""GloVe: vectors of words whose products are the logarithms of how often the words occur together.

Source: Pennington et al. 2014, equations 7 and 8, and section 4.2 (the sum of both sets of vectors is the result).
"""

import torch
from torch import Tensor, nn

from dlrun.models.vectors import similarities, write_neighbours, write_similarity, write_vectors
from dlrun.output.report import Report
from dlrun.spec import Unlabelled, Words
from dlrun.types import Size


class GloVe(nn.Module):
    """A text's mean vector: (B, T) integers -> (B, size). Trained by `logs`.

    words, contexts: the vectors of a word, and as the neighbour of another one; ids below 4 are no words.
    """

    def __init__(self, spec: Words, size: int, neighbours: list[str], pairs: list[tuple[str, str]]) -> None:
        super().__init__()
        self.words, self.contexts = nn.Embedding(spec.vocab, size), nn.Embedding(spec.vocab, size)
        self.bias, self.context_bias = (nn.Parameter(torch.zeros(spec.vocab)) for _ in range(2))
        for table in (self.words, self.contexts):
            nn.init.uniform_(table.weight, -0.5 / size, 0.5 / size)  # as in the authors' program
        self.get_words, self.neighbours, self.pairs = spec.words, neighbours, pairs

    def logs(self, words: Tensor) -> Tensor:
        """The logarithms of the counts of words beside all others: (B,) -> (B, vocab)."""
        return self.words(words) @ self.contexts.weight.T + self.bias[words][:, None] + self.context_bias

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens.long()
        is_word = (tokens >= 4)[..., None]
        vectors = self.words(tokens) + self.contexts(tokens)
        return (vectors * is_word).sum(1) / is_word.sum(1).clamp(min=1)

    @torch.no_grad()
    def report(self) -> Report:
        """The vectors in GloVe's format, the nearest words and the similarity of pairs, for the run's folder."""
        words = self.get_words()
        vectors = (self.words.weight + self.contexts.weight)[4 : 4 + len(words)].float().cpu()
        files = {"vectors.txt": write_vectors(words, vectors)}
        if self.neighbours:
            files["neighbours.csv"] = write_neighbours(self.neighbours, words, vectors)
        if self.pairs:
            files["similarity.csv"] = write_similarity(self.pairs, words, vectors)
        found = similarities(self.pairs, words, vectors)
        table = [[pair, "-" if cosine is None else f"{cosine:.4f}"] for pair, cosine in found.items()]
        return Report(files=files, numbers={"similarity": found}, table=[["pair", "cosine"], *table] if table else [])


def glove(spec: Words | Unlabelled, *, size: Size, neighbours: list[str], pairs: list[tuple[str, str]]) -> GloVe:
    """Vectors of `size` numbers. neighbours, pairs: words for neighbours.csv and similarity.csv, as in Embed."""
    return GloVe(spec, size, neighbours, pairs)
