"""A stack that is killed, stopped or out of disk ends with the same bits when it is resumed."""

import contextlib
import errno
import itertools
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import runs
from runs import assert_same, compose, same, state
from stacks import COMMON, JOBS, OTHERS, together

from dlrun.errors import UserError
from dlrun.output.folders import read_summary


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["wgan_gp", "dqn", pytest.param("ppo", marks=pytest.mark.slow)])
def test_other_tasks_that_were_killed_end_with_the_same_bits(name, tmp_path, monkeypatch):
    """Two updates, environments in mid-episode, replay buffers; and a job that leaves."""
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    common = [*OTHERS[name], f"task={name}", "trainer.checkpoint_every_steps=1", f"trainer.device={runs.DEVICE}"]
    early = [[], ["trainer.patience=1", "trainer.min_delta=1e6"], []]
    configs = [compose(*common, f"seed={k}", *more) for k, more in enumerate(early)]
    assert together(tmp_path / "whole", configs)
    for kill_at in (2, 7):
        assert not together(tmp_path / "cut", configs, kill_at=kill_at)
    assert together(tmp_path / "cut", configs)
    assert read_summary(tmp_path / "cut" / "1")["stopped_by"] == "patience"
    for number in range(3):
        assert_same(tmp_path / "whole" / str(number), tmp_path / "cut" / str(number))


def test_a_stack_that_was_killed_ends_with_the_same_bits(config, tmp_path):
    """Jobs leave early; kills before, after, and in mid-epoch; at last the newest checkpoint is damaged."""
    early = [["trainer.patience=1", "trainer.min_delta=0.5"], [], [], ["trainer.stop_at=0.1"]]
    common = [*COMMON, "trainer.checkpoint_every_steps=1"]
    configs = [config(*common, *job, *more) for job, more in zip(JOBS, early, strict=True)]
    assert together(tmp_path / "whole", configs)
    assert len({read_summary(tmp_path / "whole" / str(n))["epochs"] for n in range(4)}) > 1  # some left before others
    for kill_at in (2, 5, 9, 14):
        assert not together(tmp_path / "cut", configs, kill_at=kill_at)
    damaged = tmp_path / "cut" / "stack" / "last.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-100])  # the one before it takes its place
    assert together(tmp_path / "cut", configs)
    for number in range(4):
        assert_same(tmp_path / "whole" / str(number), tmp_path / "cut" / str(number))
        tests = [read_summary(tmp_path / kind / str(number))["test"] for kind in ("whole", "cut")]
        assert same(*tests)


def go_on(folder: Path, configs: list[tuple[dict, dict]]) -> None:
    """Call `together` in a separate, silent process."""
    runs.begin()
    sys.stdout = open(os.devnull, "w")
    together(folder, configs)


@pytest.mark.slow
def test_a_stack_killed_at_twenty_random_moments(config, tmp_path):
    """After each SIGKILL nothing is lost, and the result is that of an uninterrupted stack."""
    common = [*COMMON, "trainer.epochs=10", "trainer.checkpoint_every_steps=1", "trainer.patience=5"]
    configs = [config(*common, *job) for job in JOBS]

    def started(folder: Path) -> multiprocessing.Process:
        process = runs.FORKS.Process(target=go_on, args=(folder, configs), daemon=True)
        process.start()
        return process

    draw, kills, turn = random.Random(0), 0, 0
    whole = started(tmp_path / "whole")
    whole.join()
    while kills < 20:
        process = started(tmp_path / str(turn))
        steps, seen = draw.randrange(8), set[int]()
        while process.is_alive() and len(seen) <= steps:  # however fast the machine is
            seen.add(written(tmp_path / str(turn) / "stack" / "last.ckpt"))
            time.sleep(0.002)
        process.join(draw.uniform(0, 0.1))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        turn += process.exitcode == 0  # it came to its end
    last = started(tmp_path / str(turn))
    last.join()
    assert whole.exitcode == last.exitcode == 0
    for folder, number in itertools.product(range(turn + 1), range(len(JOBS))):
        assert read_summary(tmp_path / str(folder) / str(number))["status"] == "finished"
        assert_same(tmp_path / "whole" / str(number), tmp_path / str(folder) / str(number))


def written(path: Path) -> int:
    """When a file was written; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_a_stack_on_a_full_disk_can_be_resumed(config, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    configs = [config(*COMMON, *job, "trainer.checkpoint_every_steps=1") for job in JOBS[:2]]
    assert together(tmp_path / "whole", configs)
    assert not together(tmp_path / "cut", configs, kill_at=6)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left on device"):
        patch.setattr(os, "fsync", full)
        together(tmp_path / "cut", configs)
    assert together(tmp_path / "cut", configs)
    for number in range(2):
        assert_same(tmp_path / "whole" / str(number), tmp_path / "cut" / str(number))


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_signal_saves_all_jobs_and_each_can_be_resumed_alone(config, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    configs = [config(*COMMON, *job) for job in JOBS[:2]]
    assert not together(tmp_path, configs, stop_at=6)
    assert read_summary(tmp_path / "0")["status"] == "stopped"
    assert state(tmp_path / "0")["clock"]["step"] == 7
    assert runs.train(tmp_path / "0", configs[0], resumed=True, finish=True).reason == "finished"
    assert together(tmp_path, configs)  # the other one, without it
    assert {read_summary(tmp_path / n)["status"] for n in "01"} == {"finished"}


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["none", "asha"])
def test_a_stacked_search_that_was_killed_ends_with_the_same_bits(pruner, tmp_path):
    """SIGKILL for the sweep and its stack at random moments; each job once."""
    space = ["sweep=optuna", "sweep.trials=12", "sweep.sampler=random", "sweep.stack=6", f"sweep.pruner={pruner}"]
    space += ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "data=moons", "trainer.epochs=12"]
    space += ["trainer.checkpoint_every_steps=3", "trainer.checkpoint_gap=0", "trainer.log_every=0"]

    def start(kind: str, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dlrun", "-m", *words, f"output_dir={tmp_path / kind}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    begun, draw, kills = time.monotonic(), random.Random(0), 0
    assert start("whole", *space).wait() == 0
    seconds = time.monotonic() - begun
    process = start("cut", *space)
    while kills < 5:
        while not kills and process.poll() is None and not list((tmp_path / "cut").rglob("last.ckpt")):
            time.sleep(0.01)  # the first kill is in training, however fast the machine is
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.2, 0.8) * seconds if kills else 0.01)
        if process.poll() is not None:
            break
        family = [*children(process.pid), process.pid]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        kills += 1
        sweeps = list((tmp_path / "cut").glob("*/*_sweep/sweep.json"))
        process = start("cut", *(["sweep.resume=last"] if sweeps else space))
    assert process.wait() == 0 and kills
    whole, cut = (next((tmp_path / kind).glob("*/*_sweep")) for kind in ("whole", "cut"))
    jobs = [json.loads((folder / "sweep.json").read_text())["jobs"] for folder in (whole, cut)]
    for one, other in zip(*jobs, strict=True):
        assert one["overrides"][:-1] == other["overrides"][:-1]  # the last one is output_dir
        assert all(one[name] == other[name] for name in ("status", "values", "stack"))
        assert_same(whole / str(one["number"]), cut / str(one["number"]))
    assert {job["status"] for job in jobs[0]} == ({"finished", "pruned"} if pruner == "asha" else {"finished"})


def children(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *children(child)]
    return found
