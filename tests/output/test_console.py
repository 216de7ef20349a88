"""What a run prints: the progress bar, the time left, the line of an epoch, numbers."""

import io
import math
import re
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from runs import compose, train

from dlrun.clock import Clock
from dlrun.errors import counted
from dlrun.output import console
from dlrun.output.console import Bar, column, duration, epoch_line, number
from dlrun.train.meters import Means


@pytest.fixture
def now(monkeypatch):
    """A wall clock that stands still until it is set."""
    hand = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: hand[0])
    return hand


def test_time_left_is_proportional_to_the_remaining_work(now):
    """Two epochs of 10 steps took 30 seconds, of which 10 validated: the other 8 take 120."""
    clock = Clock(seed=0, epochs=10, steps_per_epoch=10)
    bar = Bar(clock)
    assert bar.seconds_left() is None
    now[0] += 30
    clock.step, clock.epoch = 20, 2
    assert bar.seconds_left() == pytest.approx(120)
    clock.step, clock.batch = 25, 5
    assert bar.seconds_left() == pytest.approx(30 / 2.5 * 7.5)
    clock.step, clock.epoch, clock.batch = 100, 10, 0
    assert bar.seconds_left() == 0


def test_time_left_after_a_resume_and_with_limits(now):
    """Only this session counts: one of 3 epochs in 7 seconds; max_steps ends the run after half an epoch more."""
    clock = Clock(seed=0, epochs=3, steps_per_epoch=10, max_steps=25, step=10, epoch=1)
    bar = Bar(clock)
    now[0] += 7
    clock.step, clock.epoch = 20, 2
    assert bar.seconds_left() == pytest.approx(3.5)
    frames = Clock(seed=0, epochs=4, steps_per_epoch=99, epoch_samples=100)
    bar = Bar(frames)
    now[0] += 6
    frames.samples, frames.step, frames.epoch = 200, 4, 2
    assert bar.seconds_left() == pytest.approx(6)


def test_running_loss_leaves_the_means_alone():
    """It is the mean over the last steps; the epoch's mean has the same bits as without it."""
    torch.manual_seed(0)
    steps = [({"acc": torch.rand(()), "loss": torch.rand(3)}, 3) for _ in range(70)]
    read, plain = Means(), Means()
    assert read.running() is None
    for metrics, samples in steps:
        read.add(metrics, samples)
        plain.add(metrics, samples)
        read.running()
    name, value = read.running()
    assert name == "loss" and value == pytest.approx(torch.stack([m["loss"] for m, _ in steps[-50:]]).mean().item())
    assert read.result() == plain.result() and read.running() is None


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00")])
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_the_line_of_an_epoch_ends_with_the_time_left():
    row = {"epoch": 1, "train/loss": 0.5, "time/seconds": 2.0}
    assert epoch_line(row, 3, True, left=70.0) == "epoch 1/3   train loss 0.5000 * 2.00 s, 1:10 left"
    assert epoch_line(row, 3, True, left=0.9).endswith("2.00 s") and epoch_line(row, 3, True).endswith("2.00 s")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_run_shows_the_time_left_in_its_bar_and_lines(tmp_path, monkeypatch, capsys):
    """The bar shows loss and time left; every line but the last shows the remaining time."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(console, "REFRESH", 0.0)
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: 10_000 * time.monotonic()))  # hours pass
    advance = Bar._advance
    monkeypatch.setattr(Bar, "_advance", lambda self, bar, samples: (advance(self, bar, samples), bar.refresh()))
    config = compose("data=digits", "model.hidden=[4]", "trainer.epochs=3", "trainer.device=cpu", "trainer.log_every=0")
    monkeypatch.setattr(Bar, "start_epoch", lambda bar: vars(bar).update(started=-1e9, tick=bar._appear))
    train(tmp_path, config)
    assert re.search(r"epoch 1/3: .*loss \d\.\d{4}, >[\d:]+ left", terminal.getvalue())
    assert re.search(r"epoch 2/3: .*loss \d\.\d{4}, [\d:]+ left", terminal.getvalue())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [bool(re.search(r"\d s, [\d:]+ left$", line)) for line in lines] == [True, True, False]
    rows = [line for line in (tmp_path / "metrics.jsonl").read_text().splitlines() if '"epoch"' in line]
    assert len(rows) == 3 and all("time/val_seconds" in row for row in rows)


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


def test_numbers_of_a_column_have_one_format():
    assert column([1.76e5, 98038.4]) == ["176000", "98038"] and column([29.0, 37.28, 9]) == ["29.00", "37.28", "9.00"]
    assert column([1.0, -4.1928e-09]) == ["1", "0"] and column([0.25, -4.1928e-09]) == ["0.2500", "0.0000"]
    assert column([85.0000002, 90.0]) == ["85", "90"] and column([]) == [] and column([0.5, math.nan])[1] == "nan"
    assert column([1e-5, 2e-6]) == ["1.000e-05", "2.000e-06"] and column([math.inf, 2.0]) == ["inf", "2"]
    assert [number(v) for v in (1.76e5, 98038.0, 1e8)] == ["176000", "98038", "1.00e+08"]
    assert [counted(n, "epoch") for n in (0, 1, 2000)] == ["0 epochs", "1 epoch", "2,000 epochs"]


def test_numbers_that_are_not_finite_are_shown():
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


def test_a_best_epoch_that_is_not_finite_is_shown(dl_run, tmp_path):
    code, out, err = dl_run("optimizer.lr=1e30", "trainer.on_nan=skip", "trainer.epochs=2", "run_dir=run")
    assert code == 0, err
    assert all("nan" in line for line in out.splitlines() if line.startswith(("val (epoch", "test ")))
