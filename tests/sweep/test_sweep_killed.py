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

from dlrun.errors import UserError

TESTS = Path(__file__).parents[1]
SCRIPT = TESTS / "shared" / "sweeps.py"  # jobs that only pretend to learn


def start(folder: Path, num: int, jobs: int, **keys: object) -> subprocess.Popen:
    """Start a sweep of `num` jobs, `jobs` at a time."""
    command = [
        sys.executable,
        str(SCRIPT),
        json.dumps({"args": [str(folder), num, jobs], **keys}),
    ]
    path = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
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
    """Start, kill -9 at a random moment, resume, ..., run to the end. Returns the number of kills before the end."""
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
    assert process.wait(timeout=300) == 0, (folder.parent / f"{folder.name}.log").read_text()
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


slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("jobs", "search"), [(1, {}), pytest.param(3, {}, marks=slow), pytest.param(1, {"sampler": "tpe"}, marks=slow)]
)
def test_a_sweep_killed_at_random_moments_ends_the_same(tmp_path, jobs, search):
    """All jobs finish, each once, with the numbers of a sweep that was never killed."""
    num = 6
    assert kill_often(tmp_path / "killed", 4, jobs, num, jobs, **search) >= 2
    assert start(tmp_path / "whole", num, 4 if not search else jobs, **search).wait(timeout=300) == 0
    mine, whole = results(tmp_path / "killed"), results(tmp_path / "whole")
    assert [job[2] for job in mine] == ["finished"] * num and [job[0] for job in mine] == list(range(num))
    if jobs == 1 or not search:  # in parallel what a search knows when it asks depends on who was first
        assert mine == whole
    if search:
        assert len({str(job[1]) for job in mine}) == num, "a point was asked for twice"
        assert trials(tmp_path / "killed") == {(i, 1, -job[3]["val/loss"]) for i, job in enumerate(mine)}


@pytest.mark.thorough
def test_every_way_in_which_a_job_ends_is_reported(tmp_path):
    """Refused, an exit(), a bug, a crash, a hang: shown at once with the log's last lines, and again at the end."""
    do = {"1": "refuse", "2": "exit", "3": "raise", "4": "abort", "5": "hang", "6": "stubborn"}
    assert start(tmp_path / "a", 8, 3, do=do, timeout=3.0).wait(timeout=300) == 0
    words = ["finished", "refused", "failed", "failed", "exit -6", "timeout", "timeout", "finished"]
    assert [job["status"] for job in state(tmp_path / "a")["jobs"]] == words
    assert not left_running(tmp_path / "a"), "what a job has started is ended with it"
    log, folder = (tmp_path / "a.log").read_text(), of(tmp_path / "a")
    assert "job 1 refused (exit code 2)\n  something before\n  dl-run: x=0: expected another\n    expected this" in log
    assert "job 5 timeout (exit code 143)\n  hanging\n" in log and "job 6 timeout (exit code -9)\n  hanging\n" in log
    again = log[log.index("\njob 1 refused: dl-run: x=0: expected another\njob 2 failed: ") :]
    assert "\njob 3 failed: RuntimeError: a bug\njob 4 exit -6: (its log is empty)\n" in again
    assert "\njobs 5 and 6 timeout: it took longer than sweep.job_timeout; last line: hanging\n" in again
    assert f"repeat the failed jobs with: dl-run -m sweep.resume={folder} sweep.retry=failed" in again
    found = json.loads((folder / "results.json").read_text())
    assert [job["status"] for job in found["jobs"]] == words and found["jobs"][3]["error"] == "RuntimeError: a bug"
    assert found["best"] == [{"job": 0, "jobs": [0], "command": "dl-run x=0.0", "values": found["jobs"][0]["values"]}]
    assert found["jobs"][0]["values"] == {"val/loss": pytest.approx(0.34)}
    assert os.readlink(folder / "best") == "0"

    assert start(tmp_path / "a", 8, 3).wait(timeout=300) == 0  # without a word they stay as they are
    assert [job["status"] for job in state(tmp_path / "a")["jobs"]] == words
    assert start(tmp_path / "a", 8, 3, retry="failed").wait(timeout=300) == 0
    assert [job[2] for job in results(tmp_path / "a")] == ["finished"] * 8
    assert os.readlink(folder / "best") == "2" and len((folder / "finished").read_text().splitlines()) == 8


@pytest.mark.thorough
def test_a_search_with_a_pruner_is_retried(tmp_path):
    """A failed job gets a new trial, also one whose outcome reached the study but, because of a kill, not the state."""
    keys = {"sampler": "tpe", "pruner": "median", "pruner_startup": 1}
    assert start(tmp_path / "a", 5, 1, do={"1": "raise", "3": "abort"}, **keys).wait(timeout=300) == 0
    before = state(tmp_path / "a")
    assert [job["status"] for job in before["jobs"]][1:4:2] == ["failed", "exit -6"]
    for job in before["jobs"]:  # as if the sweep had been killed before it saved what came of them
        if job["status"] in ("failed", "pruned"):
            job |= {"status": "running", "code": None, "values": {}, "seconds": None}
    (of(tmp_path / "a") / "sweep.json").write_text(json.dumps(before))
    assert start(tmp_path / "a", 5, 1, retry="failed", **keys).wait(timeout=300) == 0, (tmp_path / "a.log").read_text()
    found = state(tmp_path / "a")["jobs"]
    assert len(found) == 5 and {job["status"] for job in found} <= {"finished", "pruned"}
    states = {number: kind for number, kind, _ in trials(tmp_path / "a")}
    assert [states[job["trial"]] for job in found] == [1 if job["status"] == "finished" else 2 for job in found]
    assert sorted(states) == list(range(7)) and list(states.values()).count(3) == 2, "one more for each that failed"


@pytest.mark.parametrize(
    ("text", "new"),
    [
        ('"op_code": 4', '"op_code": 77'), ('"op_code": 4', '"op_code": "x"'), ('"study_id": 0', '"study_id": []'),
        ('"datetime_start": "', '"datetime_start": "x'), ('"values": [', '"values": ["x", '),
        ('"state": 1', '"state": 9'), ('"step": 1', '"step": "x"'), ('{"op_code"', "{{"),
        ('"intermediate_value": ', '"intermediate_value": "x", "x": '), ('"user_attrs": {', '"user_attrs": [], "x": {'),
        ('"distribution": "', '"distribution": "x'), ('"directions": [', '"directions": [7, '),
        ('"param_value_internal": ', '"param_value_internal": "x", "x": '),
    ],
)  # fmt: skip
def test_an_edited_history_is_reported(tmp_path, text, new):
    import optuna

    from dlrun.sweep.state import State
    from dlrun.sweep.study import journal

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sweep = State(tmp_path, {}, [])
    sweep.worker = "me"
    study = optuna.create_study(storage=journal(optuna, sweep))
    study.add_trial(optuna.trial.create_trial(value=1.0, user_attrs={"a": 1}))
    for _ in range(2):
        trial = study.ask()
        trial.report(trial.suggest_float("x", 0, 1), 1)
        study.tell(trial, 0.5)
    path = tmp_path / "optuna.journal"
    assert len(journal(optuna, sweep).get_all_trials(0)) == 3
    before = path.read_text().replace('":', '": ').replace('":  ', '": ')
    assert text in before, before
    path.write_text(before.replace(text, new, 1))
    with pytest.raises(UserError, match="optuna.journal is damaged: .*\n  expected the file as Optuna wrote it"):
        journal(optuna, sweep)


def test_a_stopped_sweep_resumes(tmp_path):
    """When it is asked to stop, its jobs save and end, and none starts; after a resume they continue."""
    process = start(tmp_path / "a", 4, 2, epochs=20, seconds=0.2)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("a/*/*_sweep/*/checkpoints/last.ckpt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 0 and not left_running(tmp_path / "a")
    assert [job["status"] for job in state(tmp_path / "a")["jobs"]] == ["stopped", "stopped", "waiting", "waiting"]
    assert "4 jobs are left; resume with: dl-run -m sweep.resume=" in (tmp_path / "a.log").read_text()
    assert start(tmp_path / "a", 4, 2, epochs=20, seconds=0.0).wait(timeout=300) == 0
    assert [(job[2], len(job[4])) for job in results(tmp_path / "a")] == [("finished", 20)] * 4
    assert (tmp_path / "a.log").read_text().count(" resumed\n") == 2


def test_a_job_that_hangs_does_not_hold_up_the_sweep(tmp_path):
    """When it is asked to stop, it waits for its jobs for a limited time."""
    process = start(tmp_path / "a", 2, 1, do={"0": "stubborn"})
    deadline = time.monotonic() + 120
    while "hanging" not in "".join(p.read_text() for p in tmp_path.glob("a/*/*_sweep/logs/0.log")):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 0 and not left_running(tmp_path / "a")
    assert [job["status"] for job in state(tmp_path / "a")["jobs"]] == ["stopped", "waiting"]
    assert "stopping: running jobs save a checkpoint and end within" in (tmp_path / "a.log").read_text()


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("dies", "search"),
    [
        (1, {"sampler": "random"}),
        *[pytest.param(*one, marks=slow) for one in [(0, {}), (1, {}), (0, {"sampler": "random"})]],
    ],
)
def test_several_workers_continue_when_one_dies(tmp_path, dies, search):
    """Every job runs once. If a process is killed, the first or another one, a living process takes its jobs."""
    folder, keys = tmp_path / "a", {"epochs": 5, "seconds": 0.25, **search}  # long enough for three to start
    workers = [start(folder, 12, 1, **keys)]
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/*_sweep/sweep.json")) and time.monotonic() < deadline:
        time.sleep(0.01)
    workers += [start(folder, 12, 1, join="here", **keys) for _ in range(2)]
    while len({job["worker"] for job in state(folder)["jobs"]} - {None}) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert time.monotonic() < deadline, "they do not work together"
    workers[dies].kill()
    assert [worker.wait(timeout=300) for worker in workers] == [-9 if i == dies else 0 for i in range(3)]
    assert [job[2] for job in results(folder)] == ["finished"] * 12
    assert len((of(folder) / "finished").read_text().splitlines()) == 12, "each once"
    assert not list((of(folder) / ".workers").iterdir())
    if search:
        assert len({str(job[1]) for job in results(folder)}) == 12 == len(trials(folder))
    else:
        assert start(tmp_path / "whole", 12, 4, epochs=5).wait(timeout=300) == 0
        assert results(folder) == results(tmp_path / "whole")


def test_a_sweep_continues_without_standard_output(tmp_path):
    """As in dl-run -m ... | head: the jobs continue."""
    command = [sys.executable, str(SCRIPT), json.dumps({"args": [str(tmp_path / "a"), 3, 1]})]
    path = os.pathsep.join([str(TESTS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    env, pipe = {**os.environ, "PYTHONPATH": path}, subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, env=env)
    process.stdout.close()
    assert process.stderr.read() == b"" and process.wait(timeout=300) == 0
    process.stderr.close()
    assert [job["status"] for job in state(tmp_path / "a")["jobs"]] == ["finished"] * 3


def trials(folder: Path) -> set[tuple]:
    import optuna

    journal = optuna.storages.journal
    storage = journal.JournalStorage(journal.JournalFileBackend(str(of(folder) / "optuna.journal")))
    study = optuna.load_study(study_name=state(folder)["study"], storage=storage)
    return {(t.number, t.state.value, t.value) for t in study.trials}


def test_a_kill_ends_the_jobs_too(tmp_path):
    process = start(tmp_path / "a", 4, 2, seconds=0.2, epochs=50)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("a/*/*_sweep/*/metrics.jsonl"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(left_running(tmp_path / "a")) == 2
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 60
    while left_running(tmp_path / "a") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not left_running(tmp_path / "a")
    assert [job["status"] for job in state(tmp_path / "a")["jobs"]] == ["running", "running", "waiting", "waiting"]


def dl_run(folder: Path, *arguments: str) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(folder / "log", "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "dlrun", *arguments], cwd=folder, env=env, stdout=log, stderr=log
        )


def real_results(folder: Path) -> list[tuple]:
    """The same as `results`, with the test metrics and the bits of the last weights."""
    from dlrun.output.checkpoint import load

    return [
        (*job, load(of(folder / "outputs") / str(job[0]) / "checkpoints" / "last.ckpt")["components"]["net"])
        for job in results(folder / "outputs")
    ]


def same_results(a: Path, b: Path) -> None:
    from runs import same

    for mine, whole in zip(real_results(a), real_results(b), strict=True):
        assert mine[2] == "finished" and mine[:-1] == whole[:-1]
        assert same(dict(mine[-1]), dict(whole[-1])), f"the weights of job {mine[0]}"


def real_kills(folder: Path, kills: int, seconds: float, *arguments: str) -> int:
    """Kill dl-run itself, as `kill_often` does, each time within this number of seconds."""
    draw, hits, process = random.Random(0), 0, dl_run(folder, "-m", *arguments)
    for _ in range(kills):
        while not (list(folder.glob("outputs/*/*_sweep/multirun.yaml")) or process.poll() is not None):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, seconds))
        hits += process.poll() is None
        process.kill()
        process.wait()
        process = dl_run(folder, "-m", "sweep.resume=last")
    assert process.wait(timeout=7200) == 0, (folder / "log").read_text()
    return hits


SMALL = ["trainer.epochs=30", "trainer.checkpoint_gap=0.1"]


@pytest.mark.slow
def test_a_sweep_of_real_runs_survives_a_kill(tmp_path):
    """dl-run itself is killed in mid-epoch and ends with the same bits."""
    from runs import assert_same, compose, train

    small = ["data=moons", "model=linear", "trainer.epochs=400", SMALL[1]]
    process = dl_run(tmp_path / "killed", "-m", *small)
    deadline = time.monotonic() + 300
    saved = "killed/outputs/*/*_sweep/*/checkpoints/last.ckpt"
    while not list(tmp_path.glob(saved)) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert [job["status"] for job in state(tmp_path / "killed" / "outputs")["jobs"]] == ["running"]
    assert dl_run(tmp_path / "killed", "-m", "sweep.resume=last").wait(timeout=300) == 0
    assert " resumed" in (tmp_path / "killed" / "log").read_text()
    train(tmp_path / "whole", compose(*small))
    assert_same(of(tmp_path / "killed" / "outputs") / "0", tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "search"), [(1, False), (4, False), (1, True)])
def test_forty_jobs_killed_twenty_times(tmp_path, jobs, search):
    """40 jobs, SIGKILL at 20 random moments."""
    space = ["sweep=optuna", "sweep.trials=40", "optimizer.lr=tag(log,interval(1e-4,1e-1))"]
    space = space if search else ["optimizer.lr=0.0001,0.001,0.01,0.1", f"seed={','.join(map(str, range(10)))}"]
    started = time.monotonic()
    first = dl_run(tmp_path / "first", "-m", *SMALL, "seed=0")  # how long a start and a job take here
    assert first.wait(timeout=7200) == 0
    seconds = 2 * (time.monotonic() - started) / jobs**0.25  # so that each start lives for a job or two
    assert real_kills(tmp_path / "killed", 20, seconds, *space, f"sweep.jobs={jobs}", *SMALL) == 20
    jobs_of = state(tmp_path / "killed" / "outputs")["jobs"]
    assert [job["status"] for job in jobs_of] == ["finished"] * 40
    whole = dl_run(tmp_path / "whole", "-m", *space, f"sweep.jobs={1 if search else 4}", *SMALL)
    assert whole.wait(timeout=7200) == 0, (tmp_path / "whole" / "log").read_text()
    same_results(tmp_path / "killed", tmp_path / "whole")
    if search:
        found = trials(tmp_path / "killed" / "outputs")
        assert len(found) == 40 and {number for number, _, _ in found} == set(range(40))
