"""The entries about the data in a checkpoint: fitted values, and fingerprints to detect data that has changed."""

from math import isclose

from dlrun.data.base import Data


def data_state(data: Data) -> dict:
    """The entries about the data in a checkpoint.

    data: what was fitted on the train split, which predictions need. digest, sums: fingerprints of the content.
    """
    state = {"data": data.fitted(), "digest": data.digest()}
    return state | ({"sums": data.sums()} if hasattr(data, "sums") else {})  # environments have no arrays


def is_same_data(state: dict, data_state: dict) -> bool:
    """Whether a checkpoint's data is the present one. Checkpoints of older versions lack some of the entries."""
    return all(_is_close(state[key], data_state[key]) for key in data_state if state.get(key))


def _is_close(a: object, b: object) -> bool:
    """Equality of nested values, with a tolerance for floats: machines round sums differently."""
    if isinstance(a, float) and isinstance(b, float):
        return isclose(a, b, rel_tol=1e-6, abs_tol=1e-9)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_is_close, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_is_close(a[key], b[key]) for key in a)
    return a == b
