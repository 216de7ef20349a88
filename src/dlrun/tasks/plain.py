"""The settings of `Supervised` for subclasses that use none of its options."""

from typing import Any

PLAIN: dict[str, Any] = {
    "label_smoothing": 0.0,
    "class_weights": None,
    "metrics": [],
    "threshold": 0.5,
    "l1": 0.0,
    "l2": 0.0,
    "penalise": ["*"],
    "freeze": [],
    "unfreeze": [],
    "freeze_from": [],
    "lr_multipliers": [],
    "resize": [],
    "mixup": 0.0,
    "cutmix": 0.0,
    "test_flip": False,
    "test_shift": 0,
}
