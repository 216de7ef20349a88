"""Sweeps beyond one process: jobs on a cluster by submitit, and a search that others join through its database."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dlrun.errors import UserError
from dlrun.sweep.cluster import Cluster

CLUSTER = ["hydra/launcher=submitit_local", "data=moons", "model=linear"]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    env, pipe = {**os.environ, "OMP_NUM_THREADS": "1"}, subprocess.PIPE
    command = [sys.executable, "-m", "dlrun", "-m", *arguments]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True)


def states(folder: Path) -> dict:
    (path,) = folder.glob("outputs/*/*_sweep/sweep.json")
    return json.loads(path.read_text())


def statuses(folder: Path) -> list[str]:
    return [job["status"] for job in states(folder)["jobs"]]


def until(found: object, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while not found():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.05)


@pytest.mark.thorough
def test_a_sweep_on_a_cluster_stops_and_resumes(tmp_path):
    """A signal, also SIGKILL, reaches the jobs on the cluster's machines; each continues from its checkpoint."""
    process = start(tmp_path, *CLUSTER, "trainer.epochs=1000000", "trainer.max_time=0.05,-1", "sweep.jobs=2")
    until(lambda: list(tmp_path.glob("outputs/*/*_sweep/0/metrics.jsonl")), process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 143, out + err
    (folder,) = tmp_path.glob("outputs/*/*_sweep")
    assert statuses(tmp_path)[0] == "stopped" and (folder / "0" / "checkpoints" / "last.ckpt").exists()
    process = start(tmp_path, "sweep.resume=last")
    until(lambda: (folder / "logs" / "0.log").read_text().count("resuming ") == 1, process)
    process.kill()  # the cluster keeps running without it
    process.communicate()
    process = start(tmp_path, "sweep.resume=last")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 1 and statuses(tmp_path) == ["finished", "refused"], out + err
    assert "dl-run: trainer.max_time=-1: expected a number" in (folder / "logs" / "1.log").read_text()
    assert not list((folder / "logs").glob("*.running"))


@pytest.mark.slow
def test_a_search_on_a_cluster(tmp_path):
    keys = ["sweep=optuna", "sweep.trials=1", "optimizer.lr=interval(0.01,0.1)", "trainer.epochs=2"]
    process = start(tmp_path, *CLUSTER, *keys)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0 and statuses(tmp_path) == ["finished"], out + err


def test_other_launchers_are_refused():
    with pytest.raises(
        UserError, match="dl-run does not support this launcher, because its jobs are separate processes\n  expected"
    ):
        Cluster({"_target_": "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher"}, Path())


@pytest.mark.slow
def test_a_search_in_a_database_can_be_joined(tmp_path):
    """By another machine's command, which takes the sweep from there; here there is nothing left to do."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    search = ["sweep=optuna", f"sweep.storage={url}", "sweep.trials=1", "optimizer.lr=interval(0.01,0.1)"]
    first = start(tmp_path / "a", *search, "data=moons", "model=linear", "trainer.epochs=1")
    out, err = first.communicate(timeout=120)
    assert first.returncode == 0, out + err
    second = start(tmp_path / "b", f"sweep.join={url}")
    out, err = second.communicate(timeout=120)
    assert second.returncode == 0 and "joining a sweep of 1 job in outputs/" in out, out + err
    mine, theirs = states(tmp_path / "a"), states(tmp_path / "b")
    assert mine["study"] == theirs["study"] and theirs["elsewhere"] == 1 and not theirs["jobs"]
    process = start(tmp_path / "b", f"sweep.join={url}", "seed=3")
    assert "the sweep was not started with 'seed=3'" in process.communicate(timeout=60)[1]


@pytest.mark.thorough
def test_a_database_without_a_sweep_is_refused(tmp_path):
    process = start(tmp_path, f"sweep.join=sqlite:///{tmp_path / 'x.db'}")
    assert "x.db: there is no such file\n  expected the sweep.storage of an existing sweep" in process.communicate()[1]
    assert process.returncode == 2
