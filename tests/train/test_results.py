"""The measurements of the test split at the end of a run."""

import math
from types import SimpleNamespace

import pytest

from dlrun.errors import Diverged
from dlrun.train.best import Best
from dlrun.train.results import measure_test


def measured(test: dict) -> dict:
    """Measure the test split with a task whose evaluation gives `test`."""
    training = SimpleNamespace(
        task=SimpleNamespace(evaluate=lambda data, split: test),
        trainer=SimpleNamespace(on_nan="stop"),
        best=Best("auroc", "max", 0.0),
        clock=SimpleNamespace(step=3),
    )
    return measure_test(training, None)


def test_an_undefined_metric_is_no_divergence():
    """A test split of one class has no AUROC."""
    test = {"loss": 0.5, "auroc": math.nan}
    assert measured(test) == test


def test_an_infinite_test_loss_is_a_divergence():
    with pytest.raises(Diverged, match="test/loss is inf, though the weights of 3 steps are finite"):
        measured({"loss": math.inf})
