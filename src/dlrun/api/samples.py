"""Arrays and frames of a program: what they are, and their values."""

from typing import TYPE_CHECKING, Any

from dlrun.errors import UserError, counted, first_line

if TYPE_CHECKING:
    import numpy as np


def is_frame(x: object) -> bool:
    """Whether it is a frame of polars or pandas, also a lazy one."""
    return type(x).__module__.split(".")[0] in ("polars", "pandas") and type(x).__name__ in ("DataFrame", "LazyFrame")


def uneven(split: str, samples: int, targets: int) -> UserError:
    return UserError(
        f"{split}: x has {counted(samples, 'sample')}, y has {counted(targets, 'target')}\n"
        "  expected as many targets as samples"
    )


def as_array(name: str, value: Any, expected: str) -> "np.ndarray":
    """Return an array or a tensor, of any device, as a NumPy array. Raises UserError if it holds no values.

    name: of the value, and expected: what else it should be, for the message.
    """
    import numpy as np

    refuse_masked(name, value)
    try:
        if callable(getattr(value, "detach", None)):  # a tensor
            value = value.detach().cpu()
            value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        array = np.asarray(value)
        return _numbers(array) if array.dtype.kind == "O" and array.size else array
    except (ValueError, TypeError, RuntimeError) as error:  # NotImplementedError, too: the meta device holds no values
        raise UserError(f"{name}: {first_line(error)}\n  expected {expected}") from None


def _numbers(array: "np.ndarray") -> "np.ndarray":
    """An array of objects that are all numbers, as an array of numbers; others as they are."""
    import numpy as np

    are_numbers = all(isinstance(each, int | float | np.number | np.bool_) for each in array.flat)
    return np.array(array.tolist()) if are_numbers else array


def refuse_masked(name: str, value: Any) -> None:
    """Raise UserError for a masked array, or a list of them: masked values must not be learned from."""
    import numpy as np

    parts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(part, np.ma.MaskedArray) and np.ma.is_masked(part) for part in parts):
        raise UserError(
            f"{name}: a masked array has no values where it is masked\n"
            "  expected an array with all values: x.filled(0), or the samples that have them"
        )


def array_of(name: str, value: Any) -> "np.ndarray":
    """Return samples or targets (N, ...), at least one. Raises UserError for other values than numbers and texts."""
    import numpy as np

    array = as_array(name, value, "an array (N, ...), each of one shape")
    if array.dtype.kind == "O":
        texts = [each for each in array.flat if not isinstance(each, str)]
        if texts or array.ndim != 1:
            kind = type(texts[0] if texts else array).__name__
            raise UserError(f"{name} holds a {kind}\n  expected numbers, all samples of one shape; or texts as classes")
        array = array.astype(np.str_)
    if array.ndim == 0 or not len(array):
        raise UserError(f"{name}={value!r}: no samples\n  expected an array (N, ...)")
    return array


def short(value: object) -> str:
    text = repr(value)
    return f"a {type(value).__name__}: {text if len(text) <= 60 else text[:57] + '...'}"
