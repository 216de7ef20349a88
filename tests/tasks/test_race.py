"""The race of processors: which product is timed, over which sizes, and what is reported."""

import json

import pytest
import torch
from runs import compose, train

from dlrun.tasks import race


def test_two_random_matrices_are_multiplied_and_the_median_is_reported(monkeypatch, tmp_path):
    seen = []
    clock = iter(range(10**6))
    passed = [0.0]

    def perf_counter() -> float:
        """Every second reading ends a call: the ten that count take 1 to 10 s."""
        k = next(clock)
        passed[0] += k // 2 % race.CALLS + 1 if k % 2 else 0
        return passed[0]

    def forward(self, row, column=None):
        seen.append((row, column))
        return row @ column

    monkeypatch.setattr(race.Product, "forward", forward)
    monkeypatch.setattr(race.time, "perf_counter", perf_counter)
    low, high = torch.ones(1, 3), torch.ones(3, 1)
    assert race.milliseconds(race.Product(), low, high) == pytest.approx(5500)
    assert len(seen) == 20 and seen[0] == (low, high)
    monkeypatch.undo()
    monkeypatch.setattr(race.Product, "forward", forward)
    seen.clear()
    config = compose(
        "model=product", "trainer.device=cpu", "data.spec.low=[1.0]", "data.spec.high=[1000]", "data.steps=4"
    )
    train(tmp_path, config, finish=True)
    shapes = list(dict.fromkeys((tuple(row.shape), tuple(column.shape)) for row, column in seen))
    assert shapes == [((1, n), (n, 1)) for n in (1, 10, 100, 1000)]
    row, column = seen[-1]
    assert not torch.equal(row, column.T) and 0.8 < column.std() < 1.2
    test = json.loads((tmp_path / "summary.json").read_text())["test"]
    assert [each["n"] for each in test["times"]] == [1, 10, 100, 1000] and test["test/cpu_ms"] > 0
