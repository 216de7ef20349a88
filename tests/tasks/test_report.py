"""The report of a supervised task: what it computes for its figures."""

from types import SimpleNamespace

import numpy as np
import torch

from dlrun.tasks.report import AT_ONCE, _predict_at


def test_points_of_a_plane_are_predicted_in_parts_and_stay_in_order():
    sizes = []

    def predict(points):
        sizes.append(len(points))
        return points * 2

    data = SimpleNamespace(batches=lambda split: iter([(torch.zeros(1, 2), torch.zeros(1))]))
    points = np.arange(2 * (2 * AT_ONCE + 3), dtype=np.float32).reshape(-1, 2)
    assert np.array_equal(_predict_at(data, predict, points), points * 2)
    assert sizes == [AT_ONCE, AT_ONCE, 3]
