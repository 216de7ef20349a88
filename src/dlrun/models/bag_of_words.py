"""A bag of words: which words occur in a text, in any order, then dense layers. The baseline for recurrent models.

The default, two layers of 16 ReLU units over a multi-hot vector, is that of Chollet 2017, "Deep learning with Python",
sections 3.4 and 4.4.
"""

import torch
from torch import Tensor, nn

from dlrun.models.layers import initialise
from dlrun.spec import Tokens
from dlrun.types import Init, Probability, Size


class MultiHot(nn.Module):
    """(B, T) integers -> (B, vocab): 1 for every id that occurs at least once; padding does not count."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab = vocab

    def forward(self, tokens: Tensor) -> Tensor:
        hot = torch.zeros(
            tokens.shape[0], self.vocab, device=tokens.device
        )  # len() would fix the batch size in an export
        hot.scatter_(1, tokens.long(), 1.0)
        hot[:, 0] = 0
        return hot


def bag_of_words(spec: Tokens, *, hidden: list[Size], dropout: Probability, init: Init) -> nn.Module:
    """Dense layers with ReLU over the words of a text: (B, length) -> (B, outputs). hidden: their widths."""
    layers: list[nn.Module] = [MultiHot(spec.vocab)]
    width = spec.vocab
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]  # (B, units)
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = units
    layers.append(nn.Linear(width, spec.outputs))
    return initialise(nn.Sequential(*layers), init)
