"""What a reader returns."""

from typing import NamedTuple

import numpy as np


class Arrays(NamedTuple):
    """Pictures are uint8 (N, C, H, W), rows float32 (N, features); labels int64 (N,), targets float32 (N, targets)."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
