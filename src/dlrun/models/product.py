"""The product of a row with a column, without weights, which the race of processors runs (the book, section 1.5.3)."""

from torch import Tensor, nn

from dlrun.spec import Function


class Product(nn.Module):
    """Multiplies matrices: [1, n] with [n, 1] -> [1, 1]. Without a column, each of several rows is its own."""

    def forward(self, row: Tensor, column: Tensor | None = None) -> Tensor:
        return row @ column if column is not None else (row[:, None] @ row[:, :, None]).squeeze(2)


def product(spec: Function) -> Product:
    """A product of any size n; the data states the sizes."""
    return Product()
