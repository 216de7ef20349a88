"""Weights of classes, and the sampler that draws all classes alike."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toys import make_task

from dlrun.errors import UserError
from dlrun.spec import Table
from dlrun.tasks.losses.balance import check_sampler, skew, weights_of_classes

THREE = Table(features=3, classes=3)


def test_class_weights_are_repeated_samples():
    """A weight of 2 is a sample that is there twice, up to the number by which the loss is divided."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 3), torch.tensor([0, 0, 0, 1, 1, 2])
    grads = []
    for weights, rows_ in ((torch.tensor([1.0, 2.0, 1.0]), slice(None)), (None, [0, 1, 2, 3, 3, 4, 4, 5])):
        torch.manual_seed(1)
        task = make_task(nn.Linear(3, 3), THREE)
        task.class_weights = weights
        loss, _ = task._learn(x[rows_], y[rows_])
        (loss * len(x[rows_])).backward()
        grads.append(task.net.weight.grad)
    torch.testing.assert_close(*grads)


def test_balanced_weights():
    weights = weights_of_classes("balanced", [90, 9, 0, 1], "abcd")
    assert weights.tolist() == pytest.approx([100 / 3 / 90, 100 / 3 / 9, 0, 100 / 3])
    assert (weights @ torch.tensor([90.0, 9, 0, 1])).item() == pytest.approx(100), "their mean over the samples is 1"
    assert weights_of_classes({"b": 3}, None, "ab").tolist() == [1, 3] and weights_of_classes(None, None, "ab") is None
    for labels in ("true", "false"), ("True", "False"):
        assert weights_of_classes({True: 3}, None, labels).tolist() == [3, 1]
    with pytest.raises(UserError, match="there is no class 'cta'; did you mean 'cat'"):
        weights_of_classes({"cta": 2}, None, ("cat", "dog"))
    assert skew([100, 10], "ab") == "" and skew([101, 10], "ab") == "10 to 1 (a: 101, b: 10)"


def test_the_balanced_sampler_needs_classes():
    with pytest.raises(UserError, match="data.sampler=balanced draws every class alike, and this data has no classes"):
        check_sampler(SimpleNamespace(sampler="balanced", spec=Table(features=3, targets=1)))
