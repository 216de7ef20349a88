"""A sweep that is killed at any moment and resumed ends as one that was not: every job once, with the same numbers."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def start(folder: Path, num: int, jobs: int, **keys: object) -> subprocess.Popen:
    """tests/sweeps.py: jobs that only pretend to learn."""
    command = [sys.executable, str(HERE / "sweeps.py"), json.dumps({"args": [str(folder), num, jobs], **keys})]
    path = os.pathsep.join([str(HERE.parent / "src"), os.environ.get("PYTHONPATH", "")])
    with open(folder.parent / f"{folder.name}.log", "a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, "PYTHONPATH": path})


def of(folder: Path) -> Path:
    (found,) = folder.glob("*/*_sweep")
    return found


def state(folder: Path) -> dict:
    return json.loads((of(folder) / "sweep.json").read_text())


def left_running(folder: Path) -> list[int]:
    """Processes of its jobs."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(folder).encode() in path.read_bytes() and b"-S" in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def kill_often(folder: Path, kills: int, seed: int, *args: int, **keys: object) -> int:
    """Start, kill -9 at a random moment, resume, ... and then to the end. Gives how many kills came before the end."""
    draw, hits = random.Random(seed), 0
    for _ in range(kills):
        process = start(folder, *args, **keys)
        while not (list(folder.glob("*/*_sweep/sweep.json")) or process.poll() is not None):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 0.5))
        hits += process.poll() is None
        process.kill()
        process.wait()
    process = start(folder, *args, **keys)
    assert process.wait(timeout=100) == 0, (folder.parent / f"{folder.name}.log").read_text()
    return hits


def results(folder: Path) -> list[tuple]:
    """Every job's point, status, values and metrics."""
    return [
        (j["number"], j["overrides"], j["status"], j["values"], rows(of(folder) / str(j["number"])))
        for j in state(folder)["jobs"]
    ]


def rows(run: Path) -> list[dict]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


@pytest.mark.parametrize(("jobs", "search"), [(1, {}), (3, {}), (1, {"sampler": "tpe"})])
def test_killed_at_random_moments(tmp_path, jobs, search):
    """Exactly as many finished jobs as there are to be, each once, with the numbers of a sweep that was never killed."""
    num = 8
    hits = kill_often(tmp_path / "killed", 6, jobs, num, jobs, **search)
    assert hits >= 3
    assert start(tmp_path / "whole", num, 4 if not search else jobs, **search).wait(timeout=100) == 0
    mine, whole = results(tmp_path / "killed"), results(tmp_path / "whole")
    assert [job[2] for job in mine] == ["finished"] * num and [job[0] for job in mine] == list(range(num))
    if jobs == 1 or not search:  # in parallel what a search knows when it asks depends on who was first
        assert mine == whole
    if search:
        assert len({str(job[1]) for job in mine}) == num, "a point was asked for twice"
        assert trials(tmp_path / "killed") == {(i, 1, job[3]["val/loss"]) for i, job in enumerate(mine)}


def trials(folder: Path) -> set[tuple]:
    import optuna

    journal = optuna.storages.journal
    storage = journal.JournalStorage(journal.JournalFileBackend(str(of(folder) / "optuna.journal")))
    study = optuna.load_study(study_name=state(folder)["study"], storage=storage)
    return {(t.number, t.state.value, -t.value) for t in study.trials}


def test_a_kill_takes_the_jobs_with_it(tmp_path):
    process = start(tmp_path / "a", 4, 2, seconds=0.2, epochs=50)
    deadline = time.monotonic() + 30
    while len(list(tmp_path.glob("a/*/*_sweep/*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(left_running(tmp_path / "a")) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while left_running(tmp_path / "a") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left_running(tmp_path / "a")
    assert [job["status"] for job in state(tmp_path / "a")["jobs"]] == ["running", "running", "waiting", "waiting"]
