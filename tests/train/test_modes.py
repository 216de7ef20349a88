"""The modes that measure without a run, against closed forms and torch."""

import csv
import random
import sys
from pathlib import Path

import pytest
import torch
from runs import compose

from dlrun import cli
from dlrun.errors import UserError
from dlrun.optim.schedules import range_test
from dlrun.output.json_line import ENDING
from dlrun.train import find_batch, find_lr, step_time
from dlrun.train.find_batch import Size, described, expected, settled
from dlrun.train.find_lr import HIGH, LOW, RangeTest, suggestion
from dlrun.train.session import Session
from dlrun.train.trial import batches

SMALL = ("data=digits", "model.hidden=[16]", "trainer.device=cpu")


@pytest.fixture
def mode(monkeypatch, capsys, tmp_path):
    """Run dl-run mode=...; returns (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dl-run", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code
        return code, *capsys.readouterr()

    return run


def test_the_range_test_rises_exponentially_and_suggests_the_steepest_fall(mode, tmp_path):
    class At:
        fraction = 0.0

    for fraction, factor in ((0, 1e-4), (0.5, 1e-2), (1, 1)):
        At.fraction = fraction
        assert range_test(At, low=1e-4) == pytest.approx(factor)
    assert suggestion(RangeTest([1, 2, 4, 8, 16], [], [5, 4, 1, 0.5, 3])) == 2
    noisy = [
        5,
        2,
        *[4.9 - 0.01 * i for i in range(20)],
        *[4.7 - 0.4 * i for i in range(10)],
        9,
    ]  # the fall of the second step
    assert 20 <= suggestion(RangeTest(list(range(len(noisy))), [], noisy)) <= 30
    code, out, err = mode("mode=find_lr", *SMALL, "trainer.max_steps=100")
    assert code == 0 and "suggestion     optimizer.lr=" in out, err
    folder = next(Path("outputs").glob("*/*_find_lr_mlp_digits"))
    rows = [list(map(float, row)) for row in list(csv.reader((folder / "lr.csv").read_text().splitlines()))[1:]]
    assert rows[0][0] == pytest.approx(LOW) and rows[-1][0] <= HIGH
    ratio = (HIGH / LOW) ** (1 / 100)
    assert all(b[0] / a[0] == pytest.approx(ratio) for a, b in zip(rows, rows[1:], strict=False))
    assert rows[0][2] == pytest.approx(rows[0][1]) and (folder / "lr.png").stat().st_size > 5000
    assert 1e-4 < float(out.partition("optimizer.lr=")[2].split()[0]) < 1


def test_modes_refuse_what_they_cannot_measure(mode, tmp_path):
    for arguments, text in {
        ("mode=find_lr", "model=ppo"): "is an environment",
        ("mode=find_batch", "model=q_learning"): "is an environment",
        ("mode=find_lr", "model=gan", "data=gaussians"): "has several losses",
        ("mode=find_lr", "trainer.max_steps=5"): "expected 20 or more",
        ("mode=find_lr", "run_dir=x"): "makes no run",
        ("mode=time", "trainer.processes=2"): "expected trainer.processes=1",
        ("mode=tme",): "did you mean 'time'?",
    }.items():
        code, out, err = mode(*arguments)
        assert code == 2 and text in err and not out, err
    assert not Path("outputs").exists()


def test_the_time_of_a_step_is_split_among_phases_and_layers(monkeypatch, mode):
    monkeypatch.setattr(step_time, "STEPS", 3)
    session = Session(*compose(*SMALL))
    net, update = session.task.net, session.task.update
    before = update.take_step
    split = step_time.profiled(session)
    assert update.take_step is before and "backward" not in vars(update) or update.backward.__name__ == "backward"
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())
    leaves = {f"{n} ({type(m).__name__})" for n, m in net.named_modules() if not list(m.children())}
    assert split.forward.keys() == leaves
    linear = [name for name in split.forward if "Linear" in name]
    assert all(split.backward.get(name, 0) > 0 for name in linear)
    assert sum(split.forward.values()) <= split.phases["forward"] and all(ms >= 0 for ms in split.phases.values())
    code, out, err = mode("mode=time", *SMALL)
    assert code == 0 and "backward ms" in out and "samples/s" in out, err


def test_the_largest_batch_size_is_measured_or_extrapolated(mode, monkeypatch):
    assert expected([Size(16, 1, 100), Size(32, 1, 132)], 64) == 196
    text = described(
        [Size(16, 10, 100), Size(32, 15, 132), Size(64, 16, 196)], {"model": "m", "data": "d"}, 500, 1000.0
    )
    # 196 MB and 2 MB for each of 352 more are 900 MB: 416, and the free memory is another in each run
    assert "largest by memory  data.batch_size=256, the power of two that fits with 90% of 1,000 MB" in text
    assert "large enough       data.batch_size=32" in text
    monkeypatch.setattr(find_batch, "SHARE", 0.02)
    code, out, err = mode("mode=find_batch", *SMALL)
    assert code == 0 and "data.batch_size=1294, all train samples in one" in out, err
    monkeypatch.setattr(find_batch, "free_memory", lambda device: 0)
    code, out, err = mode("mode=find_batch", *SMALL)  # no memory is free: no size after the first two is tried
    assert code == 0 and "\n   64 " not in out, out


def test_the_batch_size_found_is_the_same_however_busy_the_machine_is(monkeypatch):
    """Most steps take longer than they need, by other factors in each run; the free memory changes by some percent."""

    monkeypatch.setattr(ENDING, "measured", None)

    def found(seed):
        draw, now = random.Random(seed), [0.0]

        def measured(session, data, batch, where):
            speeds = [batch / max(0.001, batch * 1e-6) / draw.choice([1, 1, 1.2, 1.5, 3, 10]) for _ in range(3)]
            now[0] += 4 * batch / min(speeds)
            return Size(batch, max(speeds), 100 + batch * 0.1)

        monkeypatch.setattr(find_batch, "measure", measured)
        monkeypatch.setattr(find_batch.time, "monotonic", lambda: now[0])
        sizes = [measured(None, None, 2**power, "host") for power in range(4, 14)]
        assert [size.memory for size in settled(sizes, None, None, "host")] == [size.memory for size in sizes]
        described(settled(sizes, None, None, "host"), {"model": "m", "data": "d"}, 10**6, draw.uniform(3000, 3300))
        return ENDING.measured["data.batch_size"], ENDING.measured["largest_by_memory"]

    assert {found(seed) for seed in range(20)} == {(1024, 16384)}


def test_steps_continue_over_epochs():
    session = Session(*compose(*SMALL))
    seen = [(clock.step, clock.epoch, clock.batch) for _, clock in batches(session, 25)]
    assert seen[0] == (0, 0, 0) and seen[21] == (21, 1, 0) and len(seen) == 25


def test_a_loss_that_cannot_be_computed_is_reported(monkeypatch):
    session = Session(*compose(*SMALL))
    monkeypatch.setattr(session.task, "step", lambda batch, clock: {"loss": torch.tensor(float("nan"))})
    with pytest.raises(UserError, match="the loss was not finite after 0 steps"):
        find_lr.range_test(session, 50)
