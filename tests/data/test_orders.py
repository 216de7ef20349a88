"""The order of an epoch, at random or with all classes alike."""

from itertools import pairwise

import torch

from dlrun.data.orders import balanced, epoch_order
from dlrun.seeds import generator


def test_every_class_is_drawn_equally_often():
    labels = torch.tensor([0] * 70 + [1] * 20 + [2] * 3)
    orders = [balanced(labels, generator("cpu", 0, epoch)) for epoch in range(30)]
    for order in orders:
        assert len(order) == 93 and torch.bincount(labels[order]).tolist() == [31, 31, 31]
        assert torch.bincount(order[labels[order] == 2]).max() <= 11 and order[:31].unique().numel() > 3
        assert torch.bincount(order[labels[order] == 0]).max() == 1, "a large class repeats nothing"
    assert torch.cat(orders).unique().numel() == 93, "over epochs all are seen"
    assert all(not torch.equal(a, b) for a, b in pairwise(orders))
    again = epoch_order(93, lambda: labels, "balanced", 0, 3)
    assert torch.equal(again, orders[3]) and torch.equal(
        epoch_order(9, None, "none", 0, 3), torch.randperm(9, generator=generator("cpu", 0, 3))
    )
