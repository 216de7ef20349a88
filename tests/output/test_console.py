"""The progress bar and the time left: measured, for the whole run, with validation; the loss leaves the means alone."""

import io
import re
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from runs import compose, train

from dlrun.clock import Clock
from dlrun.output import console
from dlrun.output.console import Bar, duration, epoch_line
from dlrun.train.meters import Means


@pytest.fixture
def now(monkeypatch):
    """A clock on the wall that stands still until it is set."""
    hand = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: hand[0])
    return hand


def test_time_left_is_in_proportion(now):
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
    """Only this session counts: it did one of 3 epochs in 7 seconds. max_steps ends the run after one more half."""
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
    """The mean over the last steps; afterwards the epoch's mean has the same bits as without it."""
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


def test_bar_and_lines_of_a_run(tmp_path, monkeypatch, capsys):
    """The bar shows loss and time left; every line but the last says how long the run still takes."""
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
