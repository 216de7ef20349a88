"""The checkpoints of a run: kills while they are written, and the replacement of a damaged one."""

import os
import shutil
import signal

import pytest
from runs import STRAIGHT, Killed, assert_same, die, state, train

from dlrun.errors import CheckpointError
from dlrun.output.checkpoint import load
from dlrun.output.checkpoints import Checkpoints

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.mark.parametrize("call", range(4))
def test_a_kill_while_a_checkpoint_is_written_is_exact(call, config, straight, tmp_path, monkeypatch):
    """The renames of the second epoch's checkpoint: best, incoming, last to previous, incoming to last."""
    composed, replace, calls = config(*STRAIGHT), os.replace, []

    def dying(source, target):
        if str(target).endswith(".ckpt"):
            calls.append(target)
            if len(calls) > 3 + call:
                raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            train(tmp_path, composed)
    train(tmp_path, composed, resumed=True)
    assert_same(straight, tmp_path)


def test_a_kill_before_the_first_checkpoint_is_reported(config, tmp_path):
    with pytest.raises(Killed):
        die(tmp_path, config(), step=2)
    with pytest.raises(CheckpointError, match="holds no checkpoint.*start it again"):
        train(tmp_path, config(), resumed=True)


def flip(path, at=1000):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_a_damaged_last_checkpoint_is_replaced_by_the_previous_one(stopped, config, straight, capsys):
    flip(stopped / "checkpoints" / "last.ckpt")
    train(stopped, config(*STRAIGHT), resumed=True)
    message = capsys.readouterr().out
    assert "last.ckpt is damaged" in message and "resuming from the previous checkpoint" in message
    assert_same(straight, stopped)
    load(stopped / "checkpoints" / "previous.ckpt")  # the damaged checkpoint has not replaced it


def test_a_missing_last_checkpoint_is_replaced_by_the_previous_one(stopped, config, straight, capsys):
    (stopped / "checkpoints" / "last.ckpt").unlink()
    train(stopped, config(*STRAIGHT), resumed=True)
    assert "last.ckpt is missing" in capsys.readouterr().out
    assert_same(straight, stopped)


def test_a_damaged_last_checkpoint_never_overwrites_a_good_previous_one(stopped, config):
    for _ in range(3):  # the second resume has a single good checkpoint left
        flip(stopped / "checkpoints" / "last.ckpt")
        train(stopped, config(*STRAIGHT), resumed=True, signals={4: signal.SIGTERM})
        assert state(stopped)["clock"]["step"] == 5
        assert state(stopped, "previous")["clock"]["step"] == 4


def test_the_best_checkpoint_of_another_run_is_not_used(stopped, config, tmp_path_factory, capsys):
    other = tmp_path_factory.mktemp("other")
    train(other, config(*STRAIGHT, "seed=5"))
    shutil.copy(other / "checkpoints" / "best.ckpt", stopped / "checkpoints" / "best.ckpt")
    train(stopped, config(*STRAIGHT), resumed=True)
    assert "best.ckpt belongs to another run" in capsys.readouterr().out
    shutil.copy(other / "checkpoints" / "last.ckpt", stopped / "checkpoints" / "last.ckpt")
    (stopped / "checkpoints" / "previous.ckpt").unlink()
    with pytest.raises(CheckpointError, match="last.ckpt belongs to another run"):
        train(stopped, config(*STRAIGHT), resumed=True)


def test_a_damaged_best_checkpoint_is_reported_and_not_used(stopped, config, capsys):
    flip(stopped / "checkpoints" / "best.ckpt")
    train(stopped, config(*STRAIGHT), resumed=True, finish=True)
    assert "the best epoch's weights are lost" in capsys.readouterr().out
    assert state(stopped, "best")["best"]["epoch"] == 2


def test_last_weights_are_labelled_as_such_where_the_best_are_lost(config, tmp_path, capsys):
    train(tmp_path, config(*STRAIGHT))
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    train(tmp_path, config(*STRAIGHT), resumed=True, finish=True)  # only the test is left to do
    assert "\ntest (epoch 2) " in capsys.readouterr().out


def test_a_run_without_a_good_checkpoint_is_not_resumed(stopped, config):
    before = (stopped / "metrics.jsonl").read_bytes()
    for name in ("last", "previous"):
        flip(stopped / "checkpoints" / f"{name}.ckpt")
    with pytest.raises(CheckpointError) as error:
        train(stopped, config(*STRAIGHT), resumed=True)
    for part in (
        "no checkpoint of this run can be read",
        "last.ckpt is damaged",
        "previous.ckpt is damaged",
        "expected",
    ):
        assert part in str(error.value)
    assert (stopped / "metrics.jsonl").read_bytes() == before


def test_the_previous_checkpoint_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in range(3):
        checkpoints.write({"step": step}, {"step": -step} if step < 2 else None)
    checkpoints.wait()
    found = {p.stem: load(p)["step"] for p in (tmp_path / "checkpoints").iterdir()}
    assert found == {"last": 2, "previous": 1, "best": -1}
