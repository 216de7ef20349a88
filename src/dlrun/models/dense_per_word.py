"""Dense layers over the words of a text, each word by itself: before recurrent networks (the book, section 11.2)."""

import torch
from torch import Tensor, nn

from dlrun.models.embedding import Embedding as EmbeddingLayer
from dlrun.models.embedding import make_embedding
from dlrun.models.layers import initialise
from dlrun.spec import Tokens
from dlrun.types import Embedding, Init, Size


class DensePerWord(nn.Module):
    """A dense layer with ReLU at every place, their mean, and a dense layer: (B, T) integers -> (B, outputs).

    layers: one for each place, or a single one for all places, which then cannot know the order of the words.
    """

    def __init__(self, embedding: EmbeddingLayer, layers: list[nn.Linear], output: nn.Linear) -> None:
        super().__init__()
        self.embedding, self.layers, self.output = embedding, nn.ModuleList(layers), output
        self.description = embedding.description

    def report(self) -> dict:
        """The embedding's files for the run's folder, at the end of a run."""
        return self.embedding.report()

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)  # (B, T, C)
        if len(self.layers) == 1:
            x = self.layers[0](x)  # (B, T, H)
        else:
            weight, bias = (torch.stack([getattr(each, name) for each in self.layers]) for name in ("weight", "bias"))
            x = torch.einsum("btc,thc->bth", x, weight) + bias
        return self.output(x.relu().mean(1))


def dense_per_word(spec: Tokens, *, embedding: Embedding, units: Size, shared: bool, init: Init) -> DensePerWord:
    """Dense layers per word. units: width. shared: the same weights at every place."""
    table = make_embedding(spec, embedding, init)
    layers = [nn.Linear(embedding.size, units) for _ in range(1 if shared else spec.length)]
    return initialise(DensePerWord(table, layers, nn.Linear(units, spec.outputs)), init)
