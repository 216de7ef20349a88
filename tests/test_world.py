"""Several processes train one run: each sample once, the same losses as one process, signals and deaths survived."""

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import assert_same, rows, state
from toys import CPU, PLACE, composed, make_update

from dlrun.assemble import check_together
from dlrun.build import build
from dlrun.errors import UserError
from dlrun.world import World

TWO = ["data=digits", "trainer.processes=2", "data.batch_size=16", "trainer.checkpoint_gap=0", "trainer.epochs=8"]
LONG, SHORT = ["data.epoch_frames=8192"], ["data.epoch_frames=1024", "task.updates=4"]
slow = pytest.mark.slow
HARD = ["model.dropout=0.2", "model.norm=batch", "trainer.ema=0.9", "trainer.max_restarts=1"]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "dlrun", *overrides, f"output_dir={folder.parent / 'outputs'}"]
    with open(folder.with_suffix(".log"), "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def wait_for(process: subprocess.Popen, log: Path, text: str) -> None:
    end = time.monotonic() + 120
    while text not in (log.read_text() if log.exists() else "") and process.poll() is None:
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.02)
    assert process.poll() is None, log.read_text()


@pytest.mark.parametrize("size", [2, 3])
def test_every_sample_goes_to_one_process(size):
    batches = [(torch.arange(8), torch.arange(8)), (torch.arange(2), torch.arange(2))]
    worlds = [World(rank, size) for rank in range(size)]
    (first, last), *others = ([b[0].tolist() for b in world.parts(iter(batches))] for world in worlds)
    assert sorted(sum((each[0] for each in others), first)) == list(range(8))
    assert max(len(each[0]) for each in [(first,), *others]) - min(len(each[0]) for each in [(first,), *others]) <= 1
    if size == 3:  # fewer samples than processes: all have the whole, and weigh the same
        assert last == others[0][1] == others[1][1] == [0, 1]
        assert [world.share for world in worlds] == [1 / 3] * 3
    assert sum(world.share for world in worlds) == pytest.approx(1)
    assert worlds[0].smallest_part(8) == 8 // size and worlds[0].smallest_part(1) == 1


def test_two_processes_learn_as_one_with_twice_the_batch(tmp_path):
    late = ["task.freeze=['1']", "task.unfreeze=[['1',3]]", "optimizer.weight_decay=0.01"]  # no gradient is none, not 0
    late.append("trainer.epochs=4")
    two, one = start(tmp_path / "two", *TWO, *late, f"run_dir={tmp_path / 'two'}"), tmp_path / "one"
    assert start(one, "data=digits", "data.batch_size=32", *late, f"run_dir={one}").wait() == 0
    assert two.wait() == 0, (tmp_path / "two.log").read_text()
    found, wanted = rows(tmp_path / "two"), rows(one)
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine["step"] == theirs["step"]
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, abs=1e-5 if "loss" in name else 1e-3), name


def test_the_death_of_one_loses_nothing(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    straight = start(a, *TWO, *HARD, f"run_dir={a}")
    process = start(b, *TWO, *HARD, f"run_dir={b}")
    wait_for(process, tmp_path / "b.log", "epoch 2/8")
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(children.split()[-1]), signal.SIGKILL)
    assert process.wait() == 0, (tmp_path / "b.log").read_text()
    assert (tmp_path / "b.log").read_text().count("resuming ") == 1
    assert straight.wait() == 0
    assert_same(a, b)


@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("double_dqn", ["model.normalise=true", "task.warmup=100", "data.num_envs=4", *SHORT]),
        pytest.param("ppo", ["model.normalise=true", "task.normalise_rewards=true", *LONG], marks=slow),
        pytest.param("reinforce_baseline", LONG, marks=slow),
    ],
)
def test_environments_of_two_processes(model, more, tmp_path):
    """Each plays its own; stopped in mid-epoch and gone on with, all of them are where they were."""
    choice = [f"model={model}", "trainer.epochs=2", "trainer.processes=2"]
    choice += ["trainer.checkpoint_gap=0", "task.eval_episodes=4", "data.film_steps=0", "trainer.log_every=0", *more]
    a, b = tmp_path / "a", tmp_path / "b"
    straight = start(a, *choice, f"run_dir={a}")
    stopped = start(b, *choice, f"run_dir={b}")
    wait_for(stopped, tmp_path / "b.log", "epoch 1/2")
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 143, (tmp_path / "b.log").read_text()
    assert "saved; go on with: dl-run resume=" in (tmp_path / "b.log").read_text()
    found = state(b)
    assert found["clock"]["batch"] > 0, "in mid-epoch"
    mine, other = found["parts"]["player"], found["others"][0]["player"]
    assert mine["returns"].shape == other["returns"].shape and not torch.equal(mine["obs"], other["obs"])
    assert start(b, f"resume={b}").wait() == 0, (tmp_path / "b.log").read_text()
    assert straight.wait() == 0, (tmp_path / "a.log").read_text()
    assert_same(a, b)


@pytest.mark.parametrize("model", ["a3c", "q_learning"])
def test_what_is_no_mean_over_processes_is_refused(model):
    config = composed(f"model={model}", "data=maze" if model == "q_learning" else "data=cartpole")
    spec, place = build(config["data"]).spec, replace(PLACE, world=World(0, 2))
    with pytest.raises(UserError, match="2.*\n  expected trainer.processes=1"):
        build(config["task"])(build(config["model"])(spec), spec, place, make_update)


def test_what_cannot_be_trained_together():
    trainer = Namespace(sync_norm=True)
    with pytest.raises(UserError, match="torch synchronises batch normalisation on CUDA only\n  expected"):
        check_together(trainer, CPU)


def test_an_error_is_told(tmp_path):
    process = start(tmp_path / "run", *TWO, "data=mnist", "data_dir=/nowhere", "data.source.download=false")
    assert process.wait() == 2
    said = (tmp_path / "run.log").read_text()
    assert "is not there and was not downloaded" in said and "Traceback" not in said
    assert not (tmp_path / "outputs").exists()
