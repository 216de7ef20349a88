"""Schedules against their formulas, at their corners and over whole runs."""

from collections import namedtuple
from functools import partial
from math import cos, pi, sqrt
from types import SimpleNamespace

import pytest
import torch
from runs import rows, train
from torch import nn
from toys import CPU, make_task, options, section

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.optim import schedules
from dlrun.optim.schedules import cosine, inverse_square_root, linear, one_cycle, polynomial, stable, step, triangle
from dlrun.spec import Table

At = namedtuple("At", "fraction")


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        (schedules.constant, {0: 1, 0.5: 1, 1: 1}),
        (partial(schedules.linear, warmup_fraction=0.0, final=0.1), {0: 1, 0.5: 0.55, 1: 0.1}),
        (partial(schedules.linear, warmup_fraction=0.2, final=0.0), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.5, 1: 0}),
        (partial(schedules.cosine, warmup_fraction=0.0, final=0), {0: 1, 0.25: (1 + cos(pi / 4)) / 2, 0.5: 0.5, 1: 0}),
        (partial(schedules.cosine, warmup_fraction=0.2, final=0.2), {0: 0, 0.1: 0.5, 0.2: 1, 0.6: 0.6, 1: 0.2}),
        (partial(schedules.step, drops=2, factor=0.1), {0: 1, 0.33: 1, 0.34: 0.1, 0.66: 0.1, 0.67: 0.01, 1: 0.01}),
        (partial(schedules.one_cycle, peak_at=0.5, start=0.04, final=0.0), {0: 0.04, 0.25: 0.52, 0.5: 1, 0.75: 0.5}),
        (partial(schedules.one_cycle, peak_at=0.0, start=0.04, final=0.01), {0: 1, 1: 0.01}),
    ],
)  # fmt: skip
def test_schedules_equal_their_closed_forms(schedule, values):
    for fraction, expected in values.items():
        assert schedule(At(fraction)) == pytest.approx(expected, abs=1e-12)


def test_the_learning_rate_follows_the_clock(config, tmp_path):
    train(tmp_path, config("schedule=linear", "optimizer.lr=0.008"))
    assert [row["lr"] for row in rows(tmp_path) if "lr" in row] == pytest.approx(
        [0.005, 0.001]
    )  # of steps 3 and 7 of 8


def at(schedule, fraction: float, **keys) -> float:
    return schedule(SimpleNamespace(fraction=fraction), **keys)


def test_schedules_at_their_corners():
    for schedule in (linear, cosine):
        values = [at(schedule, f, warmup_fraction=0.2, final=0.1) for f in (0.0, 0.1, 0.2, 0.6, 1.0)]
        assert values == pytest.approx([0, 0.5, 1, 0.55, 0.1])  # half-way between 1 and the end, both
        assert at(schedule, 0.0, warmup_fraction=0.0, final=0.0) == 1
    assert at(cosine, 0.25, warmup_fraction=0.0, final=0.0) == pytest.approx((1 + cos(pi / 4)) / 2)
    assert at(linear, 0.25, warmup_fraction=0.0, final=0.0) == pytest.approx(0.75)
    values = [at(one_cycle, f, peak_at=0.4, start=0.04, final=0.0) for f in (0.0, 0.2, 0.4, 0.7, 1.0)]
    assert values == pytest.approx([0.04, 0.52, 1, 0.5, 0])
    assert at(one_cycle, 0.0, peak_at=0.0, start=0.04, final=0.0) == 1


def test_step_divides_the_run_evenly():
    values = [at(step, f, drops=2, factor=0.1) for f in (0.0, 0.33, 1 / 3, 0.66, 2 / 3, 1.0)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    for drops in range(1, 60):
        factors = [at(step, k / (drops + 1), drops=drops, factor=2.0) for k in range(drops + 1)]
        assert factors == [2.0**k for k in range(drops + 1)]  # also where k / n * n is not k


def test_triangle_stable_polynomial_and_inverse_square_root():
    moments = (0.0, 0.1, 0.2, 0.6, 1.0)
    assert [at(triangle, f, peak_at=0.2, start=0.4, final=0.1) for f in moments] == pytest.approx(
        [0.4, 0.7, 1, 0.55, 0.1]
    )
    assert at(triangle, 0.0, peak_at=0.0, start=0.4, final=0.0) == 1
    values = [at(stable, f, warmup_fraction=0.2, decay_fraction=0.5, final=0.1) for f in (*moments[:3], 0.5, 0.75, 1.0)]
    assert values == pytest.approx([0, 0.5, 1, 1, 0.55, 0.1])
    assert at(stable, 1.0, warmup_fraction=0.2, decay_fraction=0.0, final=0.0) == 1
    assert at(stable, 0.2, warmup_fraction=0.2, decay_fraction=1.0, final=0.0) == 1
    values = [at(polynomial, f, warmup_fraction=0.2, power=2.0, final=0.1) for f in moments]
    assert values == pytest.approx([0, 0.5, 1, 0.1 + 0.9 * 0.25, 0.1])
    values = [at(inverse_square_root, f, warmup_fraction=0.2) for f in (*moments[:3], 0.8, 1.0)]
    assert values == pytest.approx([0, 0.5, 1, 0.5, sqrt(0.2)])


@pytest.mark.parametrize("option", [name for name in options("schedule") if name != "inverse_square_root"])
def test_schedules_over_a_run(option):
    """Each is a function of the clock between 0 and the optimizer's learning rate; all but `step` are continuous."""
    schedule, clock = build(section("schedule", option)), Clock(0, 10, 100)
    values = []
    for clock.step in range(1001):
        values.append(schedule(clock))
    assert all(0 <= v <= 1 for v in values) and max(values) == pytest.approx(1, abs=1e-3)
    if option != "step":
        assert max(abs(a - b) for a, b in zip(values, values[1:], strict=False)) < 0.06
    assert values[-1] == pytest.approx({"constant": 1, "step": 0.01}.get(option, 0))


def test_the_rate_follows_the_schedule():
    net = nn.Linear(1, 1)
    task = make_task(net, Table(features=1, targets=1), "sgd", schedule="linear", lr=0.5)
    clock, rates = Clock(0, 1, 4), []
    for _ in range(4):
        task.step((torch.ones(2, 1, device=CPU), torch.ones(2, 1)), clock)
        rates.append(task.update.lr)
        clock.tick(2)
    assert rates == pytest.approx([0.5, 0.375, 0.25, 0.125])
