"""Check that an optimizer's state from a checkpoint fits the weights."""

from torch import Tensor
from torch.optim import Optimizer


def check_shapes(optimizer: Optimizer) -> None:
    """Raise ValueError unless the state fits the weights: torch's kernels would write beyond smaller tensors."""
    for param, values in optimizer.state.items():
        for name, value in values.items():
            shapes = ((), param.shape, *_partial_shapes(name, param))
            fits = isinstance(value, Tensor) and value.is_floating_point() and value.shape in shapes
            if value is not None and not fits:
                raise ValueError(f"the optimizer's {name} does not fit a weight of shape {tuple(param.shape)}")


def _partial_shapes(name: str, param: Tensor) -> list[tuple[int, ...]]:
    """The shapes of Adafactor's moments of rows and columns."""
    whole = tuple(param.shape)
    return {"row_var": [(*whole[:-1], 1)], "col_var": [(*whole[:-2], 1, *whole[-1:])]}.get(name, [])
