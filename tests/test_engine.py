"""The engine's parts against closed forms and the book: means, best, clipping, averages, schedules, checkpoints."""

import errno
import json
import math
import os
import pickle
import platform
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from contextlib import suppress
from functools import partial
from math import cos, isnan, pi, sqrt
from types import SimpleNamespace

import pytest
import runs
import torch
from runs import SMALL, compose, rows, same, state, train
from torch import nn
from toys import section

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.errors import CheckpointError, Diverged, UserError, counted
from dlrun.optim import schedules
from dlrun.optim.clipping import clip_gradients
from dlrun.optim.update import Update
from dlrun.output import checkpoint, checkpoints
from dlrun.output.as_json import as_json
from dlrun.output.checkpoint import load, save, snapshot
from dlrun.output.checkpoints import Checkpoints
from dlrun.output.console import column, epoch_line, number
from dlrun.output.run_folder import Run
from dlrun.output.written import write_whole
from dlrun.seeds import Reseeder, generator, mix
from dlrun.system.async_scalar import AsyncScalar
from dlrun.tasks.supervised import Supervised
from dlrun.train.best import Best
from dlrun.train.meters import Means
from dlrun.train.session import Session
from dlrun.train.state import Training, all_finite

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Composes a small run with these overrides."""
    data_dir = runs.write_mnist(tmp_path_factory.mktemp("data"))
    return lambda *overrides: compose(f"data_dir={data_dir}", *SMALL, *overrides)


@pytest.fixture
def session(config):
    return lambda *overrides: Session(*config(*overrides))


def weights(session):
    return snapshot(session.task.net.state_dict())


# Means


@pytest.mark.parametrize("fold_every", [0, 1, 3])
def test_means_are_those_over_all_samples(fold_every):
    loss, right = torch.rand(10, dtype=torch.float64), torch.rand(10) < 0.5
    means = Means()
    for i, (each, hits) in enumerate(zip(loss.split(4), right.split(4), strict=True)):
        means.add({"loss": each.mean(), "acc": hits}, len(each))
        if fold_every and (i + 1) % fold_every == 0:
            means.flush()
    found = means.result()
    assert found["loss"] == pytest.approx(loss.mean().item(), rel=1e-6)
    assert found["acc"] == pytest.approx(right.double().mean().item(), rel=1e-7)


def test_a_window_holds_what_came_since_the_last():
    means = Means()
    for value in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(value)}, 2)
        if value < 6:
            assert means.flush() == {"loss": value}
    assert means.flush() == {"loss": 6.0} and means.flush() == {}
    assert means.result() == {"loss": 3.0}


def test_means_do_not_depend_on_when_they_were_saved():
    torch.manual_seed(0)
    steps = [({"loss": torch.rand(()), "acc": torch.rand(7)}, 7) for _ in range(20)]

    def over(save_at):
        means = Means()
        for i, step in enumerate(steps):
            if i == save_at:
                kept, means = snapshot(means.state_dict()), Means()
                means.load_state_dict(kept)
            means.add(*step)
            if i % 6 == 5:
                means.flush()
        return means.result()

    assert all(over(i) == over(None) for i in range(20))


def test_a_step_that_was_left_out_does_not_count():
    means = Means()
    means.add({"loss": torch.tensor(1.0)}, 3)
    means.add({}, 100)
    assert means.result() == {"loss": 1.0}
    assert Means().result() == {}


def test_a_metric_of_some_steps_is_a_mean_over_those():
    means = Means()
    means.add({"loss": torch.tensor(1.0)}, 3)
    means.add({"loss": torch.tensor(2.0), "return": torch.tensor(7.0)}, 1)
    assert means.flush() == {"loss": 1.25, "return": 7.0}
    means.add({"loss": torch.tensor(5.0)}, 4)
    assert means.flush() == {"loss": 5.0}
    assert means.result() == {"loss": 25 / 8, "return": 7.0}


def test_the_clock_goes_by_samples_where_steps_are_not_known():
    clock = Clock(0, epochs=2, steps_per_epoch=50, epoch_samples=100)
    clock.tick(30)
    assert (clock.fraction, clock.epochs_done) == (0.15, 0.3)
    clock.tick(90)  # an episode that goes beyond the epoch's end
    assert (clock.fraction, clock.epochs_done) == (0.6, 1.0)
    clock.next_epoch()
    assert clock.epochs_done == 1.2
    clock.tick(200)
    assert (clock.fraction, clock.epochs_done) == (1.0, 2.0)
    assert Clock(0, 2, 50, max_steps=10, epoch_samples=100, step=5).fraction == 0.5


def test_an_epochs_means_are_over_its_samples(session, tmp_path):
    """Of a net that does not learn: what `evaluate` says of the train part, its last batch smaller than the others."""
    trained = session("optimizer=sgd", "optimizer.lr=1e-30", "trainer.epochs=1")
    trained.finish = lambda training, outcome: None
    trained.start(tmp_path, resumed=False)
    expected = trained.task.evaluate(trained.data, "train")
    row = rows(tmp_path)[-1]
    assert row["train/acc"] == pytest.approx(expected["acc"], abs=1e-7)
    assert row["train/loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert row["samples"] == trained.data.size("train")


# Best


def scores(best, values, start=1):
    return [best.update(v, SimpleNamespace(epoch=i, step=10 * i)) for i, v in enumerate(values, start)]


def test_best_is_any_better_score():
    best = Best("acc", "max", min_delta=0.5)
    assert scores(best, [0.5, 0.5, 0.6, 0.55]) == [True, False, True, False]
    assert (best.score, best.epoch, best.step) == (0.6, 3, 30)
    best = Best("loss", "min", min_delta=0.0)
    assert scores(best, [2.0, 3.0, 1.0, float("nan"), float("-inf")]) == [True, False, True, False, False]
    assert (best.score, best.epoch) == (1.0, 3)


def test_of_equal_scores_the_one_with_the_lower_loss_is_best():
    """Epochs 2 and 6 with accuracy 1.0: a loss of 0.0243 is better than 0.7255, but nothing that ends the wait."""
    best = Best("acc", "max", min_delta=0.0)
    found = [(0.9, 0.8), (1.0, 0.7255), (0.8, 0.01), (1.0, 0.9), (1.0, float("nan")), (1.0, 0.0243), (1.0, None)]
    kept = [
        best.update(score, SimpleNamespace(epoch=epoch, step=10 * epoch), loss)
        for epoch, (score, loss) in enumerate(found, 1)
    ]
    assert kept == [True, True, False, False, False, True, False]
    assert (best.score, best.loss, best.epoch, best.step) == (1.0, 0.0243, 6, 60)
    assert (best.anchor_epoch, best.waited) == (2, 5)
    again = Best("acc", "max", min_delta=0.0)
    again.load_state_dict(best.state_dict())
    assert vars(again) == vars(best)


def test_patience_waits_for_more_than_min_delta():
    best = Best("acc", "max", min_delta=0.1)
    waits = []
    for epoch, score in enumerate([0.5, 0.55, 0.59, 0.61, 0.70, float("nan")], 1):
        scores(best, [score], epoch)
        waits.append(best.waited)
    assert waits == [0, 1, 2, 0, 1, 2]  # small gains count from the anchor, so together they are a gain
    again = Best("acc", "max", min_delta=0.1)
    again.load_state_dict(best.state_dict())
    assert vars(again) == vars(best)


@pytest.mark.parametrize(("mode", "reached"), [("max", [0.5, 0.4]), ("min", [0.5, 0.6])])
def test_a_score_is_reached_from_its_side(mode, reached):
    best = Best("acc", mode, 0.0)
    assert not best.reaches(0.5) and not best.reaches(None)
    scores(best, [0.5], 1)
    assert all(map(best.reaches, reached)) and not best.reaches(1 - reached[1])


def test_patience_counts_from_validated_epoch_to_validated_epoch(config, tmp_path):
    keys = ["trainer.epochs=30", "trainer.val_every=5", "trainer.patience=3", "trainer.min_delta=9"]
    assert train(tmp_path, config(*keys)).reason == "patience"
    assert [row["epoch"] for row in rows(tmp_path) if "val/acc" in row] == [5, 10]


@pytest.mark.parametrize(("monitor", "score", "choose"), [("val/loss", "val/loss", min), ("top5", "val/top5", max)])
def test_monitor_chooses_the_best_epoch(monitor, score, choose, config, tmp_path):
    train(tmp_path, config(f"trainer.monitor={monitor}", "trainer.epochs=5"))
    best = state(tmp_path, "best")
    found = [row for row in rows(tmp_path) if score in row]
    highest = choose(row[score] for row in found)
    assert best["best"]["score"] == highest == best["metrics"][score]
    of_equals = min((row["val/loss"], row["epoch"]) for row in found if row[score] == highest)
    assert best["clock"]["epoch"] == of_equals[1]


@pytest.mark.parametrize(("monitor", "scores"), [("acc", [0.5, 1.0, 0.9, 1.0]), ("top5", [1.0, 1.0, 1.0, 1.0])])
def test_the_best_checkpoint_is_of_the_tie_with_the_lower_loss(monitor, scores, config, tmp_path, monkeypatch):
    losses = iter([0.5, 0.7255, 0.4, 0.0243])
    given = iter(scores)
    evaluated = lambda *_: {"loss": next(losses), "acc": 0.5, "top5": 0.5} | {monitor: next(given)}  # noqa: E731
    monkeypatch.setattr(Supervised, "evaluate", evaluated)
    train(tmp_path, config(f"trainer.monitor={monitor}", "trainer.epochs=4"))
    best = state(tmp_path, "best")["best"]
    assert (best["epoch"], best["loss"]) == (4, 0.0243)


def test_a_monitor_that_nothing_measures_is_refused_before_training(session):
    with pytest.raises(UserError) as error:
        session("trainer.monitor=val/accc")
    assert str(error.value) == (
        "trainer.monitor=val/accc is not measured here; did you mean 'val/acc'?\n"
        "  expected one of: val/loss, val/acc, val/top5\n  or a metric of docs/metrics.md that task.metrics has, too"
    )


def test_an_empty_monitor_is_refused(session):
    with pytest.raises(UserError, match="trainer.monitor= is not measured here"):
        session("trainer.monitor=''")


def test_what_a_task_says_it_measures_is_what_it_measures(session):
    for keys in ([], ["model=linear"]):
        made = session(*keys) if not keys else Session(*compose("model=linear", "data=moons", "trainer.device=cpu"))
        assert made.task.evaluate(made.data, "val").keys() == made.task.scores.keys()


def test_a_run_that_left_out_every_step_says_so(config, tmp_path):
    train(tmp_path, config("trainer.on_nan=skip", "trainer.epochs=1"), nan_at=(0, 1, 2, 3))
    assert state(tmp_path)["components"]["update"]["skipped"] == 4
    assert rows(tmp_path)[-1]["train/skipped_steps"] == 4 and "train/loss" not in rows(tmp_path)[-1]


# Limits


def test_the_last_epoch_is_validated_and_every_nth(config, tmp_path):
    train(tmp_path, config("trainer.epochs=5", "trainer.val_every=2"))
    assert [row["epoch"] for row in rows(tmp_path) if "val/acc" in row] == [2, 4, 5]


def test_rows_of_steps_and_of_epochs(config, tmp_path):
    train(tmp_path, config())
    steps = [(row["step"], row["epoch"]) for row in rows(tmp_path) if "step/loss" in row]
    assert steps == [(3, 0.75), (6, 1.5)]
    epochs = [(row["step"], row["epoch"], row["samples"]) for row in rows(tmp_path) if "train/loss" in row]
    assert epochs == [(4, 1, 58), (8, 2, 116)]


def test_max_steps_stops_there_with_a_validation(config, tmp_path):
    assert train(tmp_path, config("trainer.max_steps=5", "trainer.val_every=9")).reason == "max_steps"
    row = rows(tmp_path)[-1]
    assert (row["step"], row["epoch"]) == (5, 2) and "val/acc" in row


def test_max_time_stops(config, tmp_path):
    assert train(tmp_path / "a", config("trainer.max_time=1e-9")).reason == "max_time"
    assert state(tmp_path / "a")["clock"]["step"] == 0 and not (tmp_path / "a" / "metrics.jsonl").exists()
    assert train(tmp_path / "b", config("trainer.max_time=0.005", "trainer.epochs=9999")).reason == "max_time"
    assert 0.1 < load(tmp_path / "b" / "checkpoints" / "last.ckpt")["clock"]["seconds"] < 5
    assert "val/acc" in rows(tmp_path / "b")[-1]


def test_tiny_epochs_are_not_spent_on_the_disk(config, tmp_path, monkeypatch):
    written = []
    write = Checkpoints.write
    monkeypatch.setattr(
        Checkpoints, "write", lambda self, last, best: (written.append(last["clock"]["step"]), write(self, last, best))
    )
    train(tmp_path / "a", config("trainer.epochs=5", "trainer.checkpoint_gap=60"))
    assert written == [20]
    written.clear()
    train(tmp_path / "b", config("trainer.epochs=5"))
    assert written == [4, 8, 12, 16, 20]


# A step


def test_a_step_is_a_pure_function_of_parts_seed_and_clock(session):
    made = session("model.dropout=0.5", "optimizer=sgd", "data.augment.noise=0.1")
    task, clock = made.task, Clock(3, 2, 4, step=5, epoch=1, batch=1)
    reseed, parts = Reseeder(CPU), snapshot({k: p.state_dict() for k, p in made.task.components.items()})
    found = []
    for noise in (1, 999):
        for name, part in task.components.items():
            part.load_state_dict(snapshot(parts[name]))
        torch.rand(noise), torch.manual_seed(noise)
        batch = next(iter(task.batches(made.data, clock)))
        torch.randn(noise)
        reseed(clock.seed, clock.step)
        metrics = task.step(batch, clock)
        found.append(snapshot({"metrics": metrics, **{k: p.state_dict() for k, p in task.components.items()}}))
    assert same(*found)


def test_the_batches_from_a_position_on_are_those_of_the_whole_epoch(session):
    data = session("data.augment={flip:true,crop:2,erase:0.5,noise:0.1}").data
    whole = list(data.batches("train", 1, 2))
    for first in range(5):
        assert same(list(data.batches("train", 1, 2, first)), whole[first:])
    assert not same(list(data.batches("train", 1, 3)), whole)


def test_reseeding_is_by_seed_and_step():
    reseed, drawn = Reseeder(CPU), {}
    for seed in (0, 1):
        for step in (0, 1, 2):
            reseed(seed, step)
            drawn[seed, step] = torch.randn(5)
    reseed(0, 1)
    assert torch.equal(torch.randn(5), drawn[0, 1])
    assert len({tuple(d.tolist()) for d in drawn.values()}) == 6


def test_seeds_of_all_places_differ():
    places = [(), *((a,) for a in range(50)), *((a, b) for a in range(50) for b in range(50))]
    found = {mix(seed, *place) for seed in range(4) for place in places}
    assert len(found) == 4 * len(places) and all(0 <= s < 2**63 for s in found)
    assert generator("cpu", 0, 3).initial_seed() == mix(0, 3)


@pytest.mark.parametrize("pieces", [2, 3, 16])
def test_pieces_give_the_gradient_of_the_whole(pieces, session):
    gradients, metrics = [], []
    for count in (1, pieces):
        task = session(f"task.grad_accum_steps={count}", "task.l2=0.01", "task.l1=0.001", "optimizer=sgd").task
        x, y = torch.rand(16, 1, 28, 28), torch.arange(16) % 10
        x = torch.linspace(0, 1, x.numel()).reshape(x.shape).sin()
        task.update.take_step = lambda net=task.net: gradients.append([p.grad for p in net.parameters()])
        metrics.append(task.step((x, y), Clock(0, 1, 1)))
    for whole, pieced in zip(*gradients, strict=True):
        torch.testing.assert_close(pieced, whole, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(metrics[1]["loss"], metrics[0]["loss"])
    assert torch.equal(metrics[1]["acc"], metrics[0]["acc"])


def test_the_line_of_an_epoch_fits_into_a_terminal():
    row = {"epoch": 3, "time/seconds": 0.5} | {f"train/{n}": 0.1 for n in ("loss", "acc", "grad_norm")}
    row |= {f"val/{n}": 0.2 for n in ("loss", "acc", "top5")}
    first = ("acc", "loss", "top5")
    whole = epoch_line(row, 20, True, first=first)
    assert whole == ("epoch  3/20   train loss 0.1000 acc 0.1000   val loss 0.2000 acc 0.2000 top5 0.2000 * 0.50 s"), (
        "the goal and four more"
    )
    assert epoch_line(row, 20, True, 88, first) == (
        "epoch  3/20   train loss 0.1000 acc 0.1000   val loss 0.2000 acc 0.2000 * 0.50 s"
    )
    for width in range(40, 130):
        found = epoch_line(row, 20, True, width, first)
        assert len(found) < width or found == "epoch  3/20   val acc 0.2000 * 0.50 s"
        assert (found == whole) == (len(whole) < width)


def test_the_line_of_an_epoch_has_no_more_than_five_figures():
    row = {"epoch": 1, "time/seconds": 1.2, "train/return": 39.0, "train/length": 39.0}
    row |= {f"train/{n}": 0.1 for n in ("passes", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction")}
    row |= {"val/return": 158.6, "val/length": 158.6, "val/return_std": 24.1}
    assert epoch_line(row, 4, True, first=["return", "loss", "length", "return_std"]) == (
        "epoch 1/4   train return 39.00 length 39.00   val return 158.60 length 158.60 return_std 24.10 * 1.20 s"
    )


def test_numbers_below_each_other_have_one_format():
    assert column([1.76e5, 98038.4]) == ["176000", "98038"] and column([29.0, 37.28, 9]) == ["29.00", "37.28", "9.00"]
    assert column([1.0, -4.1928e-09]) == ["1", "0"] and column([0.25, -4.1928e-09]) == ["0.2500", "0.0000"]
    assert column([85.0000002, 90.0]) == ["85", "90"] and column([]) == [] and column([0.5, math.nan])[1] == "nan"
    assert column([1e-5, 2e-6]) == ["1.000e-05", "2.000e-06"] and column([math.inf, 2.0]) == ["inf", "2"]
    assert [number(v) for v in (1.76e5, 98038.0, 1e8)] == ["176000", "98038", "1.00e+08"]
    assert [counted(n, "epoch") for n in (0, 1, 2000)] == ["0 epochs", "1 epoch", "2,000 epochs"]


def test_json_has_letters_as_they_are():
    assert as_json({"label": "Élektro 猫"}) == '{"label": "Élektro 猫"}'
    assert json.loads(as_json(["é\udcff"])) == ["é\udcff"] and as_json(["é\udcff"]).isascii(), "no UTF-8 has that one"


# Update


def update_of(net, **keys):
    made = dict(
        optimizer=partial(torch.optim.SGD, lr=1.0), schedule=schedules.constant, clip=(None, None, None), ema=0.0,
        on_nan="stop", precision="fp32",
    )  # fmt: skip
    return Update(net, **made | keys)


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
    """Section 11.4: a norm of 5.38 becomes 5, the direction stays; one below 5 stays as it is."""
    a = torch.arange(1.0, 5.0).reshape(2, 2)
    a *= 5.38 / a.norm()
    small, none = torch.tensor([3.0, 3.9]), torch.zeros(3)
    params = with_gradients(a, small, none)
    clip_gradients(params, None, 5.0, None)
    assert params[0].grad.norm().item() == pytest.approx(5.0)
    torch.testing.assert_close(params[0].grad / params[0].grad.norm(), a / a.norm())
    assert torch.equal(params[1].grad, small) and torch.equal(params[2].grad, none)


def test_clip_by_global_norm():
    """Section 11.4: a global norm of 4.1547 becomes 2; W * 2 / max(4.1547, 2)."""
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


def test_clipping_in_order_and_without_gradients():
    params = [*with_gradients(torch.tensor([3.0, 4.0])), nn.Parameter(torch.zeros(2))]
    clip_gradients(params, 3.0, 3.0, 1.0)
    torch.testing.assert_close(params[0].grad, torch.tensor([1.0, 1.0]) / sqrt(2))
    assert params[1].grad is None


@pytest.mark.parametrize(("ema", "decays"), [(0.9999, [2 / 11, 3 / 12, 4 / 13]), (0.2, [2 / 11, 0.2, 0.2])])
def test_the_average_is_the_closed_form(ema, decays):
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    update, clock = update_of(net, ema=ema), Clock(0, 1, 9)
    expected = 1.0
    for weight, decay in zip([0.0, -1.0, -2.0], decays, strict=True):
        update.step(net.weight.sum(), clock)  # gradient 1, lr 1: the weight goes 1, 0, -1, -2
        expected = decay * expected + (1 - decay) * weight
        assert net.weight.item() == weight and update.ema.weight.item() == pytest.approx(expected)
    assert not update.ema.weight.requires_grad and not update.ema.training
    again = update_of(nn.Linear(1, 1, bias=False), ema=ema)
    again.load_state_dict(update.state_dict())
    assert again.averaged == 3


@pytest.mark.parametrize("ema", [0.9999, 0.99999])
def test_a_short_run_with_a_long_average_forgets_its_first_weights(ema, tmp_path):
    """Without a warm-up the accuracy was that of the first weights, 0.1."""
    train(tmp_path, compose("data=digits", f"trainer.ema={ema}", "trainer.epochs=3", "trainer.device=cpu"))
    assert rows(tmp_path)[-1]["val/acc"] > 0.9


def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched():
    net = nn.Linear(2, 1)
    update = update_of(net, optimizer=partial(torch.optim.SGD, lr=0.25, momentum=0.9))
    clock = Clock(0, 3, 5, step=6, epoch=1, batch=1)
    update.step(net(torch.ones(1, 2)).sum() * 0 + 0.5, clock)
    before = snapshot({"net": net.state_dict(), "update": update.state_dict()})
    with pytest.raises(Diverged) as error:
        update.step(net(torch.ones(1, 2)).sum() * float("inf"), clock)
    said = str(error.value)
    for part in ("in epoch 2, step 7 (batch 2 of the epoch)", "last finite loss was 0.5", "learning rate 0.25",
                 "did not change the weights", "trainer.on_nan=skip", "optimizer.lr"):  # fmt: skip
        assert part in said
    assert same(snapshot({"net": net.state_dict(), "update": update.state_dict()}), before)
    assert error.value.exit_code == 1


@pytest.mark.parametrize("loss", [lambda w: w.abs().sqrt().sum(), lambda w: w.pow(0.1).sum()])
def test_a_gradient_that_is_not_finite_is_distinguished_from_a_loss(loss):
    """The loss is 0, the weight is not a number after its step: the next loss is none, and touches nothing."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    update = update_of(net)
    assert update.step(loss(net.weight), Clock(0, 1, 9))
    with pytest.raises(Diverged, match="expected finite gradients; those of an earlier step were not") as error:
        update.step(loss(net.weight), Clock(0, 1, 9, step=1, batch=1))
    assert "touched" not in str(error.value) and "trainer.on_nan=skip" in str(error.value)


def test_skipping_leaves_out_the_step_and_counts_it():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    update, clock = update_of(net, on_nan="skip", ema=0.5), Clock(0, 1, 9)
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert update.step(net(x).sum(), clock)
    before = snapshot({"net": net.state_dict(), "update": update.state_dict()})
    for _ in range(2):
        assert not update.step(net(x * float("nan")).sum(), clock)  # the norm's running statistics saw it
    assert update.skipped == 2
    update.skipped = 0
    assert same(snapshot({"net": net.state_dict(), "update": update.state_dict()}), before)
    assert update.step(net(x).sum(), clock) and all_finite(net.state_dict())


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("loss", [lambda w: w.abs().sqrt().sum(), lambda w: w.pow(0.1).sum()])
def test_skipping_leaves_out_a_step_whose_gradient_is_not_finite(loss, clip):
    """The loss is 0, its gradient is not finite: the weight was not a number from then on, and all steps left out."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    update = update_of(net, on_nan="skip", ema=0.5, clip=(None, None, clip))
    assert not update.step(loss(net.weight), Clock(0, 1, 9))
    assert (net.weight.item(), update.skipped, update.averaged) == (0.0, 1, 0)
    assert update.step(net.weight.sum(), Clock(0, 1, 9)) and net.weight.item() == -1.0


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_in_half_precision_a_step_whose_gradients_overflow_is_as_if_it_had_not_been(name):
    """The very first one too, as it mostly is: torch's fused SGD then goes on from memory that nobody has written."""
    ends = []
    for losses in ([1e36, 1.0, 1e36, 2.0], [1.0, 2.0]):  # times 65,536 the first is more than a float holds
        net = nn.Linear(2, 1, bias=False)
        nn.init.ones_(net.weight)
        update = update_of(net, optimizer=build(section("optimizer", name)), precision="fp16", clip=(None, None, 9.0))
        norms = []
        try:
            torch.use_deterministic_algorithms(True)  # unwritten memory is not a number then
            for factor in losses:
                update.step(factor * net(torch.tensor([[1.0, 3.0]])).sum(), Clock(0, 1, 9))
                norms += [update.grad_norm.item()] if update.grad_norm is not None else []
        finally:
            torch.use_deterministic_algorithms(False)
        ends.append(net.weight)
        assert norms == pytest.approx([sqrt(10), 2 * sqrt(10)])
    assert torch.equal(*ends) and torch.isfinite(ends[0]).all() and not torch.equal(ends[0], torch.ones(1, 2))


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(config, tmp_path):
    with pytest.raises(Diverged, match="in epoch 2, step 6 "):
        train(tmp_path, config(), nan_at=(5,))
    assert state(tmp_path)["clock"]["step"] == 4 and all_finite(state(tmp_path)["components"])
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "diverged"
    with pytest.raises(Diverged):
        train(tmp_path, config(), resumed=True, nan_at=(5,))
    train(tmp_path, config(), resumed=True)
    assert state(tmp_path)["clock"]["step"] == 8


@pytest.mark.parametrize("histograms", ["false", "true"])
def test_weights_that_are_not_finite_are_never_saved(histograms, session, tmp_path):
    made = session(f"trainer.histograms={histograms}")
    learn = made.task.step

    def step(batch, clock):
        metrics = learn(batch, clock)
        if clock.step == 5:
            with torch.no_grad():
                next(made.task.net.parameters())[:] = float("inf")
            made.task.step = lambda batch, clock: {"loss": torch.zeros(())}
        return metrics

    made.task.step = step
    with pytest.raises(Diverged, match="the weights are no longer finite in epoch 3, step 8"):
        made.start(tmp_path, resumed=False)
    assert state(tmp_path)["clock"]["step"] == 4


@pytest.mark.parametrize(("value", "finite"), [(0.5, True), (float("inf"), False), (float("nan"), False)])
def test_all_finite_looks_everywhere(value, finite):
    assert (
        all_finite({"a": [torch.ones(2), (torch.tensor([1, 2]), {"b": torch.tensor([1.0, value])})], "c": None})
        == finite
    )


def test_the_loss_is_watched_as_it_is():
    assert AsyncScalar(CPU).start(torch.tensor(1.5))() == 1.5
    assert isnan(AsyncScalar(CPU).start(torch.tensor(float("nan")))())


def test_a_network_without_parameters_is_refused():
    with pytest.raises(UserError, match="no parameters to train"):
        update_of(nn.Linear(1, 1).requires_grad_(False))


# Schedules

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
def test_schedules_are_the_closed_forms(schedule, values):
    for fraction, expected in values.items():
        assert schedule(At(fraction)) == pytest.approx(expected, abs=1e-12)


def test_the_learning_rate_follows_the_clock(config, tmp_path):
    train(tmp_path, config("schedule=linear", "optimizer.lr=0.008"))
    assert [row["lr"] for row in rows(tmp_path) if "lr" in row] == pytest.approx(
        [0.005, 0.001]
    )  # of steps 3 and 7 of 8


def test_the_clock():
    clock = Clock(0, epochs=3, steps_per_epoch=4)
    assert (clock.total_steps, clock.fraction, clock.position) == (12, 0.0, (0, 0, 0))
    for _ in range(3):
        clock.tick(10)
    assert (clock.fraction, clock.samples, clock.position) == (0.25, 30, (3, 0, 3))
    clock.next_epoch()
    assert clock.position == (3, 1, 0)
    again = Clock(0, epochs=6, steps_per_epoch=4)
    again.load_state_dict(clock.state_dict())
    assert again.epochs == 6 and again.position == clock.position and again.fraction == 0.125
    assert Clock(0, 3, 4, max_steps=6, step=6).fraction == 1.0 and Clock(0, 3, 4, step=99).fraction == 1.0


# Checkpoints


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "last.ckpt", {"components": {"net": {"w": torch.arange(300.0)}}, "lr": (0.1, 0.9)})
    return tmp_path / "last.ckpt"


def test_a_checkpoint_comes_back_and_torch_reads_it(path):
    found = load(path)
    assert same(found["components"]["net"]["w"], torch.arange(300.0)) and found["lr"] == (0.1, 0.9)
    assert same(torch.load(path, weights_only=True), found)


def test_one_wrong_bit_anywhere_is_found(path):
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match="last.ckpt is damaged"):
            load(path)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1000, -65, -64, -1])
def test_a_truncated_file_is_found(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="is damaged"):
        load(path)


def test_a_file_that_is_longer_is_found(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(path)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the checkpoint .*none.ckpt: No such file"):
        load(tmp_path / "none.ckpt")


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_checkpoint_cannot_run_code(protocol, tmp_path, monkeypatch):
    """Not even one with the right hash."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    if protocol == "torch":
        save(path, {"state_dict": Evil()})
    else:
        body = pickle.dumps(Evil())
        path.write_bytes(body + checkpoint.hashlib.sha256(body).hexdigest().encode())
    with pytest.raises(CheckpointError, match="was not written by dl-run and is not loaded"):
        load(path)
    assert not (tmp_path / "pwned").exists()


def test_another_format_is_refused(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    with pytest.raises(
        CheckpointError, match=r"last.ckpt has format 2, written by dl-run \S+: this is dl-run \S+ and reads format 99"
    ):
        load(path)


def test_a_file_of_another_program_is_refused(path):
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="damaged, or was not written by dl-run"):
        load(path)


def full(*arguments, **keys):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_on_a_full_disk_the_old_checkpoint_stays(call, path, monkeypatch):
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError) as error:
            save(path, {"components": {}})
    said = str(error.value)
    assert "cannot write the checkpoint" in said and "No space left on device" in said and "make room" in said
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_a_run_on_a_full_disk_says_so_and_can_go_on(config, tmp_path, monkeypatch):
    train(tmp_path, config(), signals={4: signal.SIGTERM})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=f"No space left on device[^$]*resume={tmp_path}"):
            train(tmp_path, config(), resumed=True)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    assert not list(tmp_path.rglob("*.tmp"))
    train(tmp_path, config(), resumed=True)
    assert state(tmp_path)["clock"]["step"] == 8


@pytest.mark.parametrize("what", ["log", "write_summary", "print"])
def test_whatever_of_a_run_finds_the_disk_full_is_reported(what, config, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, what, full)
    with pytest.raises(
        UserError, match=f"cannot write to the run's folder {tmp_path}: No space left on device\n  expected"
    ):
        train(tmp_path, config())


def test_a_disk_that_is_full_before_the_first_checkpoint(config, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", lambda path, state: full())
        with pytest.raises(UserError) as error:
            train(tmp_path, config())
    assert "no checkpoint was written yet: make room, then start the run again" in str(error.value)
    assert "resume=" not in str(error.value) and "Errno" not in "".join(capsys.readouterr())


def test_a_folder_that_is_removed_during_the_run(config, tmp_path, monkeypatch):
    def step(batch, clock):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return learn(batch, clock)

    made = Session(*config())
    learn, made.task.step = made.task.step, step
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="run was removed during the run\n  expected"):
        made.start(tmp_path / "run", resumed=False)


@pytest.mark.parametrize("broken", ["full", "closed", None])
def test_a_run_goes_on_when_nobody_listens(broken, config, tmp_path, monkeypatch):
    terminal = open("/dev/full" if broken == "full" and os.path.exists("/dev/full") else os.devnull, "w")
    if broken == "closed":
        terminal.close()
    monkeypatch.setattr("sys.stdout", terminal if broken else None)
    monkeypatch.setattr("dlrun.output.terminal.lost", [])
    train(tmp_path, config(), finish=True)
    assert "all epochs done" in (tmp_path / "run.log").read_text()
    with suppress(OSError):
        terminal.close()


@pytest.mark.parametrize(
    "error, said",
    [
        (MemoryError("Unable to allocate 7.28 TiB for an array"), "cannot allocate 7.28 TiB more"),
        (RuntimeError("can't allocate memory: you tried to allocate 25600000000 bytes."), "cannot allocate 23.8 GiB"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "cannot allocate 2.00 GiB more"),
    ],
)
def test_too_little_memory_is_reported(error, said, config, tmp_path, monkeypatch):
    def fails(*arguments):
        raise error

    made = Session(*config())
    made.task.step = fails
    with pytest.raises(UserError, match=f"out of memory: {said}[^$]*reduce the model"):
        made.start(tmp_path, resumed=False)
    monkeypatch.setattr("dlrun.train.assemble.prepare_net", fails)
    with pytest.raises(UserError, match=f"out of memory: {said}"):
        Session(*config())


@pytest.mark.parametrize(
    "change",
    [
        {"clock": {"step": 1}}, {"clock": 3}, {"clock": {"step": -1}, "add": True},
        {"clock": {"step": "4"}, "add": True}, {"clock": {"epochs": 1}, "add": True},
        {"means": []}, {"means": {"sums": 3}, "add": True}, {"rows": "x"}, {"rows": -1},
        {"threads": 0}, {"threads": "2"},
        {"components": 5}, {"components": {"net": 3}, "add": True}, {"best": 4}, {"best": {"score": "x"}, "add": True},
    ],
)  # fmt: skip
def test_a_checkpoint_of_other_content_is_refused(change, config, tmp_path):
    train(tmp_path, config(), signals={4: signal.SIGTERM})
    path = tmp_path / "checkpoints" / "last.ckpt"
    state, ((key, value), *add) = load(path), change.items()
    save(path, {**state, key: {**state[key], **value} if add else value})
    with pytest.raises(CheckpointError, match="expected"):
        train(tmp_path, config(), resumed=True)


def test_a_disk_that_is_really_full(config, tmp_path):
    """/dev/full takes nothing: the metrics' file is a link to it."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match="cannot write to the run's folder .*No space left on device"):
        train(tmp_path, config())


# Starting from weights


def test_init_starts_from_the_weights_of_a_run(config, tmp_path):
    train(tmp_path / "a", config("seed=3"))
    best, last = (load(tmp_path / "a" / "checkpoints" / f"{name}.ckpt")["state_dict"] for name in ("best", "last"))
    assert same(weights(Session(*config(f"init={tmp_path / 'a'}"))), snapshot(best))
    checkpoint = tmp_path / "a" / "checkpoints" / "last.ckpt"
    assert same(weights(Session(*config(f"init={checkpoint}"))), snapshot(last))
    train(tmp_path / "b", config(f"init={checkpoint}"))
    assert state(tmp_path / "b")["clock"]["step"] == 8


def test_init_from_another_model_lists_what_differs(config, tmp_path):
    train(tmp_path, config("trainer.epochs=1"))
    with pytest.raises(CheckpointError) as error:
        Session(*config(f"init={tmp_path}", "model.hidden=[17]", "model.norm=layer"))
    said = str(error.value)
    assert f"init={tmp_path}: the weights are another model's" in said
    assert "expected (17, 784), found (16, 784)" in said


def test_init_from_nothing_is_reported(config, tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the checkpoint .*best.ckpt: No such file"):
        Session(*config(f"init={tmp_path}"))


# A run's folder


def test_a_finished_run_leaves_all_of_it(config, tmp_path):
    train(tmp_path, config("trainer.histograms=true"), finish=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["stopped_by"] == "finished" and summary["steps"] == 8
    assert summary["best"]["metric"] == "val/acc" and summary["samples_per_second"] > 0
    assert summary["peak_memory_mb"]["host"] > 0 and summary["parameters"] == 784 * 16 + 16 + 16 * 10 + 10
    assert sum(map(sum, summary["test"]["confusion_matrix"])) == 20
    assert {p.name for p in (tmp_path / "plots").iterdir()} >= {"loss.png", "acc.png", "confusion_matrix.png"}
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert list((tmp_path / "tensorboard").iterdir())


def test_results_are_written_before_anything_is_drawn(config, tmp_path, monkeypatch):
    """What drawing raises is told in a line; the run ends as it would have."""
    drawn = []

    def fails(*args: object) -> object:
        drawn.append(json.loads((tmp_path / "summary.json").read_text()))
        raise RuntimeError("no ink")

    monkeypatch.setattr("dlrun.tasks.report.confusion_matrix", fails)
    train(tmp_path, config(), finish=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished" and drawn[0] == summary | {"status": "running"}
    assert "no plots/confusion_matrix.png: no ink" in (tmp_path / "run.log").read_text()
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots - {"top5.png"} == {"loss.png", "acc.png", "calibration.png"}


def test_the_test_part_is_asked_once_with_the_best_weights(session, tmp_path, monkeypatch):
    made, asked = session("trainer.epochs=3"), []
    evaluate = made.task.evaluate

    def asking(data, split):
        asked.append((split, weights(made)))
        return evaluate(data, split)

    monkeypatch.setattr(made.task, "evaluate", asking)
    made.start(tmp_path, resumed=False)
    assert [split for split, _ in asked] == ["val", "val", "val", "test"]
    assert same(asked[-1][1], snapshot(load(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]))


def test_numbers_that_are_not_finite_are_null(tmp_path):
    run = Run(tmp_path, {})
    run.log({"step": 1, "epoch": 1, "train/loss": float("nan"), "val/acc": 0.5}, 1)
    run.close()
    assert rows(tmp_path) == [{"step": 1, "epoch": 1, "train/loss": None, "val/acc": 0.5}]
    assert math.isnan(run.rows[0]["train/loss"])
    again = Run(tmp_path, {})
    again.read_back(1)
    again.rewind(1, is_mid_epoch=False)
    again.close()
    assert math.isnan(again.rows[0]["train/loss"])


def test_numbers_are_shown_as_they_are():
    inf = float("inf")
    assert [number(v) for v in (None, float("nan"), inf, -inf, 0.5, 0.0, 2000)] == [
        "nan",
        "nan",
        "inf",
        "-inf",
        "0.5000",
        "0.0000",
        "2,000",
    ]


def test_small_files_are_replaced_whole(tmp_path, monkeypatch):
    write_whole(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        write_whole(tmp_path / "a.json", "new")
    assert (tmp_path / "a.json").read_text() == "old"


def test_a_checkpoint_of_other_parts_is_refused(session, tmp_path):
    made = session()
    run = Run(tmp_path, {})
    training = Training(made.task, made.trainer, run, Clock(0, 1, 4), {})
    with pytest.raises(CheckpointError, match=r"holds \['critic', 'net'\], expected \['net', 'update'\]"):
        training.restore({"components": {"net": {}, "critic": {}}})
    run.close()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_stays_with_the_process():
    """In a process of its own: what was allocated before decides where a block comes from."""
    code = """
import ctypes, resource
from dlrun.system.machine import keep_memory

keep_memory()
c, size = ctypes.CDLL(None), 2**26
c.malloc.restype, c.memset.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
c.free.argtypes = [ctypes.c_void_p]
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = c.malloc(size)
    c.memset(block, 1, size)
    c.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    env = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1000, "16,384 pages, if the system had to be asked again"
