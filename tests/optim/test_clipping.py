"""Clipping of gradients; the norm before clipping is among the metrics, also of a run that diverged."""

from math import sqrt

import pytest
import runs
import torch
from torch import nn
from toys import make_task, seeded

from dlrun.clock import Clock
from dlrun.models.linear import linear
from dlrun.models.powers import matrix_powers
from dlrun.optim.clipping import clip_gradients
from dlrun.output.folders import read_summary
from dlrun.output.plots import worth_drawing
from dlrun.spec import Table

SPEC = Table(features=3, classes=4)


def test_the_global_norm_is_measured_before_clipping():
    params = [torch.zeros(2, requires_grad=True), torch.zeros(1, requires_grad=True)]
    params[0].grad, params[1].grad = torch.tensor([1.0, 2.0]), torch.tensor([-2.0])
    assert clip_gradients(params, None, None, 1.5).item() == pytest.approx(3)
    assert torch.cat([p.grad for p in params]).tolist() == pytest.approx([0.5, 1.0, -1.0])
    assert clip_gradients(params, 0.1, 0.1, None) is None


@pytest.mark.parametrize("grad_accum_steps", [1, 2])
def test_the_task_reports_the_gradient_norm(grad_accum_steps):
    with seeded():
        net, x, y = linear(SPEC, init="torch", bias=True), torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0, 1])
    torch.nn.functional.cross_entropy(net(x), y).backward()
    expected = torch.cat([p.grad.flatten() for p in net.parameters()]).norm()
    net.zero_grad()
    task = make_task(net, SPEC, "sgd", lr=0.0, task=dict(grad_accum_steps=grad_accum_steps))
    assert "grad_norm" not in task.step((x, y), Clock(0, 1, 1))
    task.update.clip, task.update.clips = (None, None, 0.1), True
    torch.testing.assert_close(task.step((x, y), Clock(0, 1, 1))["grad_norm"], expected)


def test_the_norms_of_all_tensors_are_recorded_before_and_after_clipping():
    with seeded():
        net, x, y = linear(SPEC, init="torch", bias=True), torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 0, 1])
    task = make_task(net, SPEC, "sgd", lr=0.0)
    task.watch_gradients()
    task.step((x, y), Clock(0, 1, 1))
    names = {name for name, _ in net.named_parameters()}
    assert task.gradient_norms().keys() == {f"grad/{name}" for name in names}
    task.update.clip, task.update.clips = (None, None, 0.1), True
    total = task.step((x, y), Clock(0, 1, 1))["grad_norm"]
    norms = task.gradient_norms()
    before = torch.stack([norms[f"grad/{name}"] for name in names])
    torch.testing.assert_close(before.norm(), total)
    torch.testing.assert_close(torch.stack([norms[f"clipped/{name}"] for name in names]), before * 0.1 / total)


def test_recording_the_norms_changes_no_bit(tmp_path):
    runs.write_mnist(tmp_path / "data")
    for name in ("false", "true"):
        keys = [f"trainer.gradient_norms={name}", "trainer.clip_global_norm=1"]
        config = runs.compose(f"data_dir={tmp_path / 'data'}", *runs.SMALL, *keys)
        runs.train(tmp_path / name, config, finish=name == "true")
    both = [runs.state(tmp_path / name)["components"] for name in ("false", "true")]
    assert runs.same(*both)
    tensors = {key for row in runs.rows(tmp_path / "true") for key in row if "/grad/" in key or "/clipped/" in key}
    assert len(tensors) == 8 and all(key.startswith("step/") for key in tensors)  # two layers, weight and bias
    assert (tmp_path / "true" / "plots" / "gradient_norms.png").exists()


def test_a_metric_with_a_slash_in_its_name_is_no_norm():
    rows = [{"epoch": i, "train/own/a": 0.1 * i, "train/grad/fc.weight": 1.0 + i} for i in (1, 2)]
    assert worth_drawing(rows, [], []) == ["own/a"]


def test_a_run_logs_and_draws_the_gradient_norm(tmp_path):
    runs.write_mnist(tmp_path / "data")
    config = runs.compose(f"data_dir={tmp_path / 'data'}", *runs.SMALL, "trainer.clip_global_norm=0.01")
    runs.train(tmp_path / "run", config, finish=True)
    rows = runs.rows(tmp_path / "run")
    assert all(row[key] > 0.01 for row in rows for key in row if key.endswith("grad_norm"))
    assert {"step/grad_norm", "train/grad_norm"} <= {key for row in rows for key in row}
    assert (tmp_path / "run" / "plots" / "grad_norm.png").exists()


def test_a_run_whose_loss_is_infinite_ends_with_its_plots(tmp_path):
    runs.write_mnist(tmp_path / "data")
    keys = ["optimizer=sgd", "optimizer.lr=1e9", "task.loss=mse_one_hot", "trainer.on_nan=skip", "trainer.test=last"]
    runs.train(tmp_path / "run", runs.compose(f"data_dir={tmp_path / 'data'}", *runs.SMALL, *keys), finish=True)
    found = read_summary(tmp_path / "run")
    assert found["status"] == "finished" and found["skipped_steps"] > 0 and 0 <= found["test"]["test/acc"] <= 1


def test_the_table_of_a_sweep_shows_diverged_runs():
    from dlrun.sweep.report import _cell

    assert _cell([float("inf"), float("inf")]) == _cell([float("inf"), 1.0]) == "inf"
    assert _cell([1.0, None, 1.0]).startswith("1.0")


@pytest.mark.parametrize(("first", "last"), [(2.0, 2048), (0.8, 0.8**11)])
def test_the_norms_of_the_books_matrix_explode_or_vanish(first, last):
    with seeded():
        net, x = matrix_powers(Table(2, classes=2), eigenvalue=first, times=11), torch.randn(1, 2, requires_grad=True)
    for norms in net.report().lines["norms"].values():  # nothing was trained: as reported, and as measured
        assert norms == pytest.approx([first**k for k in range(1, 12)]) and norms[-1] == pytest.approx(last)
    (slope,) = torch.autograd.grad(net(x).sum(), x)
    assert slope.norm() == pytest.approx(last / 2 * net.output.weight.sum().abs().item() * 2**0.5, rel=1e-4)


@pytest.mark.thorough
def test_a_run_draws_the_report_of_its_network_beside_that_of_its_task(tmp_path):
    keys = ["model=matrix_powers", "data=moons", "trainer.epochs=1", "optimizer.lr=0.1"]
    runs.train(tmp_path / "run", runs.compose(*keys), finish=True)
    assert {"norms.png", "confusion_matrix.png"} <= {path.name for path in (tmp_path / "run" / "plots").iterdir()}
    scores = read_summary(tmp_path / "run")["test"]
    before, after = scores["norms"].values()
    assert before[0] == 2 != after[0] and "confusion_matrix" in scores and "lines" not in scores
    log = (tmp_path / "run" / "run.log").read_text()
    assert "7 parameters; the norm of W^1 is 2, that of W^11 2.05e+03" in log


def with_gradients(*values):
    params = [nn.Parameter(torch.zeros_like(v)) for v in values]
    for p, v in zip(params, values, strict=True):
        p.grad = v.clone()
    return params


def test_clip_by_value():
    (p,) = with_gradients(torch.tensor([-3.0, -0.6, 0.2, 0.6, 3.0]))
    clip_gradients([p], 0.6, None, None)
    torch.testing.assert_close(p.grad, torch.tensor([-0.6, -0.6, 0.2, 0.6, 0.6]))


def test_clip_by_norm():
    """The book, section 11.6.1: a norm of 5.38 becomes 5, the direction stays; one below 5 stays as it is."""
    a = torch.arange(1.0, 5.0).reshape(2, 2)
    a *= 5.38 / a.norm()
    small, none = torch.tensor([3.0, 3.9]), torch.zeros(3)
    params = with_gradients(a, small, none)
    clip_gradients(params, None, 5.0, None)
    assert params[0].grad.norm().item() == pytest.approx(5.0)
    torch.testing.assert_close(params[0].grad / params[0].grad.norm(), a / a.norm())
    assert torch.equal(params[1].grad, small) and torch.equal(params[2].grad, none)


def test_clip_by_global_norm():
    """The book, section 11.6.1: a global norm of 4.1547 becomes 2; W * 2 / max(4.1547, 2)."""
    torch.manual_seed(0)
    values = [torch.randn(3, 3), torch.randn(4), torch.randn(())]
    total = sqrt(sum(v.square().sum().item() for v in values))
    values = [v * 4.1547 / total for v in values]
    params = with_gradients(*values)
    clip_gradients(params, None, None, 2.0)
    assert sqrt(sum(p.grad.square().sum().item() for p in params)) == pytest.approx(2.0)
    for p, v in zip(params, values, strict=True):
        torch.testing.assert_close(p.grad, v * 2 / 4.1547)
    clip_gradients(params, None, None, 25.0)
    torch.testing.assert_close(params[0].grad, values[0] * 2 / 4.1547)


def test_the_kinds_of_clipping_apply_in_order_and_skip_missing_gradients():
    params = [*with_gradients(torch.tensor([3.0, 4.0])), nn.Parameter(torch.zeros(2))]
    clip_gradients(params, 3.0, 3.0, 1.0)
    torch.testing.assert_close(params[0].grad, torch.tensor([1.0, 1.0]) / sqrt(2))
    assert params[1].grad is None
