"""Several processes train one run: each sample once, the losses of one process; it survives signals and deaths."""

import errno
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import assert_same, dl_run, ended, rows, state, wait_for
from toys import CPU, DEVICE, composed, make_update

from dlrun.config.build import build
from dlrun.errors import PeerLost, UserError
from dlrun.output import folders, restarts, written
from dlrun.output.checkpoint import save
from dlrun.system import launch
from dlrun.system.cpus import cpus
from dlrun.system.distributed import Distributed
from dlrun.train.assemble import check_distributed

TWO = ["data=digits", "trainer.processes=2", "data.batch_size=16", "trainer.checkpoint_gap=0", "trainer.epochs=6"]
LONG, SHORT = ["data.epoch_frames=8192"], ["data.epoch_frames=1024", "task.gradient_steps=4"]
slow = pytest.mark.slow
HARD = ["model.dropout=0.2", "model.norm=batch", "trainer.ema=0.9", "trainer.max_restarts=1"]


def start(folder: Path, *overrides: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "dlrun", *overrides, f"output_dir={folder.parent / 'outputs'}"]
    with open(folder.with_suffix(".log"), "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})


def together(folder: Path, *overrides: str) -> list[multiprocessing.Process]:
    """The two processes of a run, as a launcher starts them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = {"WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    where = [] if "resume" in overrides[0] else [f"run_dir={folder}", f"output_dir={folder.parent / 'outputs'}"]
    logs = folder.with_suffix(".log"), folder.with_suffix(".other")
    return [dl_run(log, *overrides, *where, RANK=rank, LOCAL_RANK=rank, **env) for rank, log in enumerate(logs)]


@pytest.mark.parametrize("size", [2, 3])
def test_every_sample_goes_to_one_process(size):
    batches = [(torch.arange(8), torch.arange(8)), (torch.arange(2), torch.arange(2))]
    ranks = [Distributed(rank, size) for rank in range(size)]
    (first, last), *others = ([b[0].tolist() for b in rank.shards(iter(batches))] for rank in ranks)
    assert sorted(sum((each[0] for each in others), first)) == list(range(8))
    assert max(len(each[0]) for each in [(first,), *others]) - min(len(each[0]) for each in [(first,), *others]) <= 1
    if size == 3:  # fewer samples than processes: each has all of them, with equal weight
        assert last == others[0][1] == others[1][1] == [0, 1]
        assert [rank.share for rank in ranks] == [1 / 3] * 3
    assert sum(rank.share for rank in ranks) == pytest.approx(1)
    assert ranks[0].smallest_shard(8) == 8 // size and ranks[0].smallest_shard(1) == 1


def test_a_dead_peer_is_reported(monkeypatch):
    def broadcast(error):
        def failing(values, source):
            raise RuntimeError(error)

        monkeypatch.setattr(torch.distributed, "broadcast_object_list", failing)
        return Distributed(0, 2).broadcast_object("x")

    with pytest.raises(PeerLost, match="another of the 2 processes that train together ended\n  expected"):
        broadcast("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1234")
    with pytest.raises(RuntimeError, match="any other"):
        broadcast("any other")
    assert Distributed().broadcast_object("x") == "x"


def test_two_processes_learn_as_one_with_twice_the_batch(tmp_path):
    late = [
        "task.freeze=['1']",
        "task.unfreeze=[['1',3]]",
        "optimizer.weight_decay=0.01",
    ]  # a missing gradient stays None
    late += ["trainer.epochs=4", "task.metrics=[f1,auroc,ece]", "data.sampler=balanced"]
    pair, one = together(tmp_path / "two", *TWO, *late), tmp_path / "one"
    alone = dl_run(tmp_path / "one.log", "data=digits", "data.batch_size=32", *late, f"run_dir={one}")
    assert ended(alone) == 0, (tmp_path / "one.log").read_text()
    assert [ended(process) for process in pair] == [0, 0], (tmp_path / "two.log").read_text()
    found, wanted = rows(tmp_path / "two"), rows(one)
    wanted = [
        {k: v for k, v in row.items() if k not in ("train/f1", "step/f1")} for row in wanted
    ]  # of one process only
    assert [row.keys() for row in found] == [row.keys() for row in wanted]
    for mine, theirs in zip(found, wanted, strict=True):
        assert mine["step"] == theirs["step"]
        for name, value in theirs.items():
            assert mine[name] == pytest.approx(value, abs=1e-5 if "loss" in name else 1e-3), name


@pytest.mark.thorough
def test_the_death_of_one_process_loses_nothing(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    straight = together(a, *TWO, *HARD)
    process = start(b, *TWO, *HARD, f"run_dir={b}")
    deadline = time.monotonic() + 120
    while "epoch 2/6" not in (tmp_path / "b.log").read_text():
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "b.log").read_text()
        time.sleep(0.02)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout
    os.kill(int(children.split()[-1]), signal.SIGKILL)
    assert process.wait() == 0, (tmp_path / "b.log").read_text()
    assert (tmp_path / "b.log").read_text().count("resuming ") == 1
    assert [ended(process) for process in straight] == [0, 0], (tmp_path / "a.log").read_text()
    assert_same(a, b)


@pytest.mark.parametrize(
    "ends, tries",
    [([(2, True, "why")], 1), ([(137, False, "why"), (0, True, None)], 2), ([(1, False, "why")] * 3, 3)],
)
def test_failures_that_would_repeat_are_not_retried(ends, tries, monkeypatch):
    """When all attempts are used up, the last one counts."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    for name in (launch.LAUNCHER, launch.RESTART):
        monkeypatch.setenv(name, "")
    started, left = [], iter(ends)
    monkeypatch.setattr(logging, "disable", lambda level: None)
    monkeypatch.setattr(launch, "_start_all", lambda *given: started.append(os.environ[launch.RESTART]) or next(left))
    assert launch.launch(["model=mlp"], 2, 2) == ends[-1][::2]
    assert started == [str(i) for i in range(tries)]


FAILING = """import os, signal, torch
from pathlib import Path
from dlrun.errors import EnvError

(Path(__file__).parent / f"start {{os.environ['DL_RUN_RESTART']}}").touch()

def loss(out, y):
    if len(y) > 2 and (os.environ["DL_RUN_RESTART"] == "0" or {always}):  # it is tried with 2 samples first
        {act}
    return torch.nn.functional.cross_entropy(out, y)
"""


@pytest.mark.thorough
@pytest.mark.parametrize(
    "act, always, code, tries",
    [
        ("raise ValueError('my mistake')", True, 1, 1),
        pytest.param("raise EnvError('the game server is gone')", False, 0, 2, marks=slow),
        pytest.param("raise EnvError('the game server is gone')", True, 1, 3, marks=slow),
        pytest.param("raise torch.AcceleratorError('unspecified launch failure')", False, 0, 2, marks=slow),
        pytest.param("os.environ['RANK'] == '1' and os.kill(os.getpid(), signal.SIGKILL)", False, 0, 2, marks=slow),
    ],
)
def test_only_failures_that_may_succeed_later_are_retried(act, always, code, tries, tmp_path, monkeypatch):
    """A mistake in the user's code is printed once; a run that lost an environment, device or process restarts."""
    (tmp_path / "mynets.py").write_text(FAILING.format(act=act, always=always))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DL_RUN_ALLOW", "mynets")
    more = ["task.loss=mynets.loss", "trainer.max_restarts=2", "trainer.epochs=1"]
    process = start(tmp_path / "run", *TWO, *more, f"run_dir={tmp_path / 'run'}")
    assert process.wait() == code, (tmp_path / "run.log").read_text()
    assert len(list(tmp_path.glob("start *"))) == tries, (tmp_path / "run.log").read_text()


def test_a_full_disk_at_the_launch_is_reported(monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(logging, "disable", lambda level: None)
    for name in (launch.LAUNCHER, launch.RESTART):
        monkeypatch.setenv(name, "")
    monkeypatch.setattr(launch, "_start_all", full)
    with pytest.raises(UserError, match="processes=2: .*No space left on device\n  expected free space .*TMPDIR"):
        launch.launch([], 2, 0)


def test_a_restart_after_the_end_exits_with_0(tmp_path, monkeypatch):
    """A run's note belongs to its launcher: one left by a dead launcher is removed by the next."""
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    written.write_whole(restarts._note(tmp_path, 2**22 + 1), "/old")
    restarts.note_start(tmp_path, tmp_path / "run")
    assert [path.name.rpartition("-")[2] for path in tmp_path.glob(".torchrun-*")] == [str(os.getppid())]
    assert restarts.died_before(tmp_path) is None
    save(folders_made(tmp_path / "run" / "checkpoints") / "last.ckpt", {})
    monkeypatch.setenv(launch.RESTART, "1")
    assert restarts.died_before(tmp_path) == (tmp_path / "run").resolve()


@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_restart_before_the_first_checkpoint_reuses_the_folder(elsewhere, tmp_path, monkeypatch):
    """A folder that the run did not create is refused as usual."""
    base, run = tmp_path / "outputs", tmp_path / ("run" if elsewhere else "outputs/run")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    restarts.note_start(folders_made(base), folders.claim_folder(run, base))
    (run / "metrics.jsonl").write_text("{}")
    with pytest.raises(UserError, match="already holds a run: resume it with dl-run resume="):
        folders.claim_folder(run, base)
    monkeypatch.setenv(launch.RESTART, "1")
    assert restarts.died_before(base) is None
    assert [path.name for path in folders.claim_folder(run, base).iterdir()] == [".hydra"]
    (folders_made(tmp_path / "other" / ".hydra").parent / "metrics.jsonl").write_text("{}")
    with pytest.raises(UserError, match="already holds a run: resume it with dl-run resume="):
        folders.claim_folder(tmp_path / "other", base)


def folders_made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("model", "more"),
    [
        ("double_dqn", ["model.normalise=true", "task.learning_starts=100", "data.num_envs=4", *SHORT]),
        pytest.param("ppo", ["model.normalise=true", "task.normalise_rewards=true", *LONG], marks=slow),
        pytest.param("reinforce_baseline", LONG, marks=slow),
    ],
)
def test_environments_are_divided_among_two_processes(model, more, tmp_path):
    """Each process has its own; after a stop in mid-epoch and a resume, all continue where they were."""
    choice = [f"model={model}", "trainer.epochs=2", "trainer.processes=2"]
    choice += ["trainer.checkpoint_gap=0", "task.eval_episodes=4", "data.video_steps=0", "trainer.log_every=0", *more]
    a, b = tmp_path / "a", tmp_path / "b"
    straight, stopped = together(a, *choice), together(b, *choice)
    wait_for("epoch 1/2", tmp_path / "b.log", stopped[0])
    os.kill(stopped[1].pid, signal.SIGTERM)
    assert [ended(process) for process in stopped] == [143, 143], (tmp_path / "b.log").read_text()
    assert "checkpoint saved. Resume with: dl-run resume=" in (tmp_path / "b.log").read_text()
    found = state(b)
    assert found["clock"]["batch"] > 0, "in mid-epoch"
    mine, other = found["components"]["collector"], found["other_ranks"][0]["collector"]
    assert mine["returns"].shape == other["returns"].shape and not torch.equal(mine["obs"], other["obs"])
    for name, pair in (("b", together(b, f"resume={b}")), ("a", straight)):
        assert [ended(process) for process in pair] == [0, 0], (tmp_path / f"{name}.log").read_text()
    assert_same(a, b)


@pytest.mark.parametrize("model", ["a3c", "q_learning"])
def test_tasks_that_cannot_be_distributed_are_refused(model):
    config = composed(f"model={model}", "data=maze" if model == "q_learning" else "data=cartpole")
    spec, device = build(config["data"]).spec, replace(DEVICE, dist=Distributed(0, 2))
    with pytest.raises(UserError, match="2.*\n  expected trainer.processes=1"):
        build(config["task"])(build(config["model"])(spec), spec, device, make_update)


def test_combinations_that_cannot_be_distributed_are_refused():
    trainer = Namespace(sync_norm=True)
    with pytest.raises(UserError, match="torch synchronises batch normalisation on CUDA only\n  expected"):
        check_distributed(trainer, CPU)
    for many in (1000, 10**11):
        with pytest.raises(
            UserError, match=f"trainer.processes={many}: this machine has .* core.*\n  expected at most"
        ):
            launch.launch([], many, 0)


@slow
def test_an_error_in_one_process_is_reported_once(tmp_path):
    process = start(tmp_path / "run", *TWO, "data=mnist", "data_dir=/nowhere", "data.source.download=false")
    assert process.wait() == 2
    log = (tmp_path / "run.log").read_text()
    assert "does not exist and was not downloaded" in log and "Traceback" not in log
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize("cores, expected", [(3, 3), (None, 1)])
def test_cores_are_counted_where_the_system_has_no_affinity(monkeypatch, cores, expected):
    """As on macOS. Python returns None if it does not know the number."""
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert cpus() == expected
    with pytest.raises(UserError, match=f"this machine has {expected} core.*\n  expected at most {8 * expected}"):
        launch.launch([], 1000, 0)
