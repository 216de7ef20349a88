"""The first layer of a network for tables: numbers as they are or as waves, categories embedded or one-hot."""

from math import pi

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.spec import Columns, Image, Series, Table


def entry(spec: Image | Table | Columns | Series, one_hot: bool = False) -> tuple[nn.Module, int]:
    """Return the layer that makes vectors (B, features) of the data's samples, and the number of features.

    one_hot: whether categories are one-hot whatever the spec says.
    """
    if isinstance(spec, Series):
        first, width = step_entry(spec, one_hot)
        return nn.Sequential(first, nn.Flatten()), spec.length * width
    if not isinstance(spec, Columns) or not spec.levels:
        return nn.Flatten(), spec.features
    return step_entry(spec, one_hot)


def step_entry(spec: Columns | Series, one_hot: bool = False) -> tuple[nn.Module, int]:
    """Return the layer that makes vectors of rows or of the steps of a series: (..., columns) -> (..., features).

    The vector of a category with n levels has min(600, round(1.6 n^0.56)) numbers, as in fastai.
    """
    if not spec.levels:
        return nn.Identity(), spec.numbers
    is_one_hot = one_hot or spec.categories == "one_hot"
    sizes = [0 if is_one_hot else min(600, round(1.6 * count**0.56)) for count in spec.levels]
    categories = Categories(spec.levels, sizes)
    return Mixed(spec.numbers, nn.Identity(), categories), spec.numbers + categories.size


class Mixed(nn.Module):
    """(..., columns) -> (..., features): the first `count` columns are numbers, the others codes of categories."""

    def __init__(self, count: int, numbers: nn.Module, categories: nn.Module) -> None:
        super().__init__()
        self.count, self.numbers, self.categories = count, numbers, categories

    def forward(self, x: Tensor) -> Tensor:
        numbers, codes = x[..., : self.count], x[..., self.count :].long()
        return torch.cat((self.numbers(numbers), self.categories(codes)), -1)


class Categories(nn.Module):
    """Codes (..., categories) -> (..., size). Code 0, a level that training has not seen, gives zeros.

    sizes: numbers in the learned vector of each category; 0: one-hot.
    """

    def __init__(self, levels: tuple[int, ...], sizes: list[int]) -> None:
        super().__init__()
        tables = [
            nn.Embedding(count + 1, size, padding_idx=0) if size else OneHot(count)
            for count, size in zip(levels, sizes, strict=True)
        ]
        self.tables = nn.ModuleList(tables)
        self.size = sum(size or count for count, size in zip(levels, sizes, strict=True))

    def forward(self, codes: Tensor) -> Tensor:
        return torch.cat([table(code) for table, code in zip(self.tables, codes.unbind(-1), strict=True)], -1)


class OneHot(nn.Module):
    """Codes (...) in 0 .. count -> (..., count)."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, codes: Tensor) -> Tensor:
        return F.one_hot(codes, self.count + 1)[..., 1:].float()


class Waves(nn.Module):
    """Numbers (B, n) -> (B, n * size): each number x beside a linear map of cos(2 pi f x + shift), learned per column.

    sigma: standard deviation of the frequencies f at the start. Source: Gorishniy et al. 2022; x itself, the shift and
    one cosine: Holzmueller et al. 2024 ("PBLD").
    """

    def __init__(self, n: int, frequencies: int, sigma: float, size: int) -> None:
        super().__init__()
        self.frequency = nn.Parameter(sigma * torch.randn(n, frequencies))
        self.shift = nn.Parameter(pi * (2 * torch.rand(n, frequencies) - 1))
        bound = frequencies**-0.5
        self.weight = nn.Parameter(bound * (2 * torch.rand(n, frequencies, size - 1) - 1))
        self.bias = nn.Parameter(bound * (2 * torch.rand(n, size - 1) - 1))

    def forward(self, x: Tensor) -> Tensor:
        waves = torch.cos(2 * pi * x[:, :, None] * self.frequency + self.shift)  # (B, n, frequencies)
        mapped = torch.einsum("bnf,nfs->bns", waves, self.weight) + self.bias
        return torch.cat((x[:, :, None], mapped), 2).flatten(1)
