"""Parents, jobs and forking processes of sweeps killed at random moments: then every job is there once, with its bits.

DL_RUN_KILLS: how many of each, DL_RUN_SEED: of the moments. The same of a parent alone, in more detail, is in
test_sweep_killed.py.
"""

import csv
import json
import os
import random
import time
from contextlib import suppress
from pathlib import Path

import pytest
from test_sweep_killed import dl_run, of, rows, state

KILLS, SEED = int(os.environ.get("DL_RUN_KILLS", 8)), int(os.environ.get("DL_RUN_SEED", 0))
JOB = ["data=moons", "model=linear", "trainer.epochs=100", "trainer.checkpoint_gap=0.05"]
SEARCH = ["sweep=optuna", "sweep.trials=6", "optimizer.lr=tag(log,interval(1e-4,1e-1))"]
KINDS = {
    "grid": ["optimizer.lr=0.0001,0.01,0.1", "seed=0,1"],
    "tpe": [*SEARCH, "sweep.sampler=tpe"],
    "asha": [*SEARCH, "sweep.pruner=asha", "sweep.pruner_warmup_epochs=20"],
}


def children(pid: int) -> dict[int, bytes]:
    """The processes that a process has started, each with its command line."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid:
                found[int(path.name)] = (path / "cmdline").read_bytes()
        except OSError:
            continue
    return found


def victims(parent: int) -> dict[str, list[int]]:
    """The processes of a sweep by kind: its own, the one that forks, and its jobs."""
    forks = [pid for pid, command in children(parent).items() if b"multiprocessing.forkserver" in command]
    return {"parent": [parent], "forks": forks, "job": [job for fork in forks for job in children(fork)]}


def chaos(folder: Path, draw: random.Random, kills: int, arguments: list[str]) -> dict[str, int]:
    """Kill a sweep `kills` times in each way, then let it run to its end. Returns the number of kills by kind."""
    left = dict.fromkeys(("parent", "forks", "job"), kills)
    process, resumes = dl_run(folder, "-m", *arguments), 0
    while resumes < 20 + 6 * kills:
        while not list(folder.glob("outputs/*/*_sweep/multirun.yaml")) and process.poll() is None:
            time.sleep(0.01)
        while process.poll() is None and any(left.values()):
            time.sleep(draw.uniform(0, 1.5))
            found = {kind: pids for kind, pids in victims(process.pid).items() if pids and left[kind]}
            if process.poll() is None and found:
                kind = draw.choice(list(found))
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(found[kind]), 9)
                    left[kind] -= 1
        code = process.wait(timeout=600)
        if code in (0, 1) and all(job["status"] in ("finished", "pruned") for job in state(folder / "outputs")["jobs"]):
            break
        resumes += 1
        process = dl_run(folder, "-m", "sweep.resume=last", "sweep.retry=failed")
    return {kind: kills - number for kind, number in left.items()}


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_kills_at_random_moments_lose_no_job(tmp_path, kind, jobs):
    from runs import assert_same, compose, train

    killed = chaos(tmp_path / "a", random.Random(SEED), KILLS, [*KINDS[kind], f"sweep.jobs={jobs}", *JOB])
    assert sum(killed.values()) >= KILLS, killed
    folder, log = of(tmp_path / "a" / "outputs"), (tmp_path / "a" / "log").read_text()
    assert "Traceback" not in log and "dl-run: " not in log, log
    found = state(tmp_path / "a" / "outputs")["jobs"]
    assert [job["number"] for job in found] == list(range(6))
    assert {job["status"] for job in found} <= {"finished", "pruned"} if kind == "asha" else {"finished"}
    table = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [row["job"] for row in table] == [str(number) for number in range(6)]
    for job in found:
        train(tmp_path / "alone" / str(job["number"]), compose(*job["overrides"]))
        mine, alone = folder / str(job["number"]), tmp_path / "alone" / str(job["number"])
        if job["status"] == "finished":
            assert_same(mine, alone)
        else:
            assert rows(mine) == rows(alone)[: len(rows(mine))]
    if kind != "grid":
        assert_trials(folder, found)


def assert_trials(folder: Path, jobs: list[dict]) -> None:
    """Each job's trial has its outcome, and no trial is left open."""
    import optuna

    journal = optuna.storages.journal
    storage = journal.JournalStorage(journal.JournalFileBackend(str(folder / "optuna.journal")))
    study = optuna.load_study(study_name=json.loads((folder / "sweep.json").read_text())["study"], storage=storage)
    assert not [trial.number for trial in study.trials if not trial.state.is_finished()]
    assert len({job["trial"] for job in jobs}) == len(jobs)
    for job in jobs:
        trial = study.trials[job["trial"]]
        assert trial.state.name == {"finished": "COMPLETE", "pruned": "PRUNED"}[job["status"]]
        if job["status"] == "finished":
            assert trial.value == job["values"]["val/acc"]
