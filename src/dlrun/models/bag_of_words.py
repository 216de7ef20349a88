"""Which words a text has, whatever their order, then dense layers: the plain baseline beside the recurrent models.

Source: notes E20 (multi-hot, 16-16-1 ReLU, L2 0.001 on the first two layers).
"""

import torch
from torch import Tensor, nn

from dlrun.models.layers import initialise
from dlrun.spec import Tokens
from dlrun.types import Init, Probability, Size


class MultiHot(nn.Module):
    """(B, T) whole numbers -> (B, vocab): 1 for every id that comes at least once; padding does not count."""

    def __init__(self, vocab: int) -> None:
        super().__init__()
        self.vocab = vocab

    def forward(self, tokens: Tensor) -> Tensor:
        hot = torch.zeros(tokens.shape[0], self.vocab, device=tokens.device)  # len() would fix an exported batch
        hot.scatter_(1, tokens.long(), 1.0)
        hot[:, 0] = 0
        return hot


def bag_of_words(spec: Tokens, *, hidden: list[Size], dropout: Probability, init: Init) -> nn.Module:
    """Dense layers with ReLU over the words that a text has: (B, length) -> (B, outputs). hidden: their widths."""
    layers: list[nn.Module] = [MultiHot(spec.vocab)]
    width = spec.vocab
    for units in hidden:
        layers += [nn.Linear(width, units), nn.ReLU()]  # (B, units)
        if dropout:
            layers.append(nn.Dropout(dropout))
        width = units
    layers.append(nn.Linear(width, spec.outputs))
    return initialise(nn.Sequential(*layers), init)
