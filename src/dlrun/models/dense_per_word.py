"""Dense layers over the words of a text, each word by itself: before recurrent networks (the book, section 11.2)."""

import torch
from torch import Tensor, nn

from dlrun.models.embedding import Embedding as EmbeddingLayer
from dlrun.models.embedding import make_embedding
from dlrun.models.layers import initialise
from dlrun.output.report import Report
from dlrun.spec import Tokens
from dlrun.types import Embedding, Init, Size


class DensePerPlace(nn.Module):
    """A dense layer for each place, with weights of its own: (B, T, C) -> (B, T, H)."""

    def __init__(self, layers: list[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.stack([layer.weight.detach() for layer in layers]))  # (T, H, C)
        self.bias = nn.Parameter(torch.stack([layer.bias.detach() for layer in layers]))  # (T, H)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("btc,thc->bth", x, self.weight) + self.bias


class DensePerWord(nn.Module):
    """A dense layer with ReLU at every place, their mean, and a dense layer: (B, T) integers -> (B, outputs).

    layer: of all places alike, which then cannot know the order of the words, or of each place.
    """

    def __init__(self, embedding: EmbeddingLayer, layer: nn.Linear | DensePerPlace, output: nn.Linear) -> None:
        super().__init__()
        self.embedding, self.layer, self.output = embedding, layer, output
        self.description = embedding.description

    def report(self) -> Report:
        """The embedding's files for the run's folder, at the end of a run."""
        return self.embedding.report()

    def forward(self, tokens: Tensor) -> Tensor:
        return self.output(self.layer(self.embedding(tokens)).relu().mean(1))


def dense_per_word(spec: Tokens, *, embedding: Embedding, units: Size, shared: bool, init: Init) -> DensePerWord:
    """Dense layers per word. units: width. shared: the same weights at every place."""
    table = make_embedding(spec, embedding, init)
    layers = [initialise(nn.Linear(embedding.size, units), init) for _ in range(1 if shared else spec.length)]
    output = initialise(nn.Linear(units, spec.outputs), init)
    return DensePerWord(table, layers[0] if shared else DensePerPlace(layers), output)
