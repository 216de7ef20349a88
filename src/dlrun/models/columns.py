"""The first layer of a network for tables: numbers as they are, categories embedded or one-hot."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.spec import Columns, Image, Table


def entry(spec: Image | Table | Columns, one_hot: bool = False) -> tuple[nn.Module, int]:
    """Return the layer that makes vectors (B, features) of the data's samples, and the number of features.

    one_hot: whether categories are one-hot whatever the spec says.
    """
    if not isinstance(spec, Columns) or not spec.levels:
        return nn.Flatten(), spec.features
    encode = OneHot(spec.levels) if one_hot or spec.categories == "one_hot" else Embeddings(spec.levels)
    return Mixed(spec.numbers, encode), spec.numbers + encode.size


class Mixed(nn.Module):
    """(B, numbers + categories) -> (B, numbers + encode.size): numbers stay, codes of categories are encoded."""

    def __init__(self, numbers: int, encode: nn.Module) -> None:
        super().__init__()
        self.numbers, self.encode = numbers, encode

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat((x[:, : self.numbers], self.encode(x[:, self.numbers :].long())), 1)


class OneHot(nn.Module):
    """Codes (B, categories) -> (B, sum of levels); code 0, a level that training has not seen, gives zeros."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels, self.size = levels, sum(levels)

    def forward(self, codes: Tensor) -> Tensor:
        columns = zip(codes.unbind(1), self.levels, strict=True)
        return torch.cat([F.one_hot(code, count + 1)[:, 1:] for code, count in columns], 1).float()


class Embeddings(nn.Module):
    """Codes (B, categories) -> (B, size): a learned vector per level; zeros for code 0.

    The vector of a category with n levels has min(600, round(1.6 n^0.56)) numbers, as in fastai.
    """

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        sizes = [min(600, round(1.6 * count**0.56)) for count in levels]
        tables = [nn.Embedding(count + 1, size, padding_idx=0) for count, size in zip(levels, sizes, strict=True)]
        self.tables, self.size = nn.ModuleList(tables), sum(sizes)

    def forward(self, codes: Tensor) -> Tensor:
        return torch.cat([table(code) for table, code in zip(self.tables, codes.unbind(1), strict=True)], 1)
