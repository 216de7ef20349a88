"""Which jobs of a sweep train as one network."""

import contextlib
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import assert_same

from dlrun.errors import UserError
from dlrun.output.folders import read_summary
from dlrun.sweep.job import Job
from dlrun.sweep.outcomes import recover, why
from dlrun.sweep.running import Running, spoken
from dlrun.sweep.stacks import Verdict, divide, halves, parse, plan, read_verdict, which, write_verdict
from dlrun.sweep.state import State
from dlrun.sweep.tried import clear, ended, in_parts, put_back, resumed, telling, together, took

RATE = "optimizer.lr=tag(log,interval(1e-4,1e-1))"


def test_jobs_that_differ_in_rates_only_are_stacked():
    points = itertools.product(["model=mlp", "model=linear"], ["optimizer.lr=0.1", "optimizer.lr=0.2"], range(3))
    jobs = [Job(i, [model, lr, f"seed={seed}"]) for i, (model, lr, seed) in enumerate(points)]
    assert plan(jobs, "auto", 1) == "jobs that differ in model train in stacks of their own"
    assert [job.stack for job in jobs] == [0] * 6 + [6] * 6
    plan(jobs, 4, 1)
    assert [job.stack for job in jobs] == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9]
    divide(jobs[:3], halves([0, 1, 2]))
    assert [job.stack for job in jobs[:3]] == [0, 0, None] and halves([0, 1]) == []
    divide(jobs[:3], [[0, 2]])
    assert [job.stack for job in jobs[:3]] == [0, None, 0]
    plan(two := [Job(i, [f"seed={i}"]) for i in range(8)], "auto", 2)  # two processes at once
    assert [job.stack for job in two] == [0] * 4 + [4] * 4
    plan(rates := [Job(i, [f"model.dropout={rate}"]) for i, rate in enumerate((0, 0.1, 0.2))], "auto", 1)
    assert [job.stack for job in rates] == [None, 1, 1]  # without dropout there is no such layer
    lists = ("0.0", "[0,0.5,0.5]", "[0,0.1,1e-3]", "[0.5,0,0]")
    plan(places := [Job(i, [f"model.dropout={rates}"]) for i, rates in enumerate(lists)], "auto", 1)
    assert [job.stack for job in places] == [None, 1, 1, None]
    plan(off := [Job(i, [f"seed={i}"]) for i in range(2)], "off", 1)
    assert [job.stack for job in off] == [None, None]
    assert parse(which(3, jobs[:2], "auto")) == (True, 3, [0, 1])
    with pytest.raises(UserError, match="is for sweeps"):
        parse("no")


def test_the_jobs_of_a_stack_in_words():
    assert [spoken(numbers) for numbers in ([0], [0, 4], [0, 1], [0, 1, 2], [0, 3, 4, 5, 6])] == [
        "0", "0 and 4", "0 and 1", "0 to 2", "0 and 3 to 6",
    ]  # fmt: skip
    assert spoken([0, 1, 2, 5], first=1, to="-") == "1-3 and 6"


def test_what_runs_instead_of_a_stack_in_words():
    assert in_parts([]) == in_parts([[0], [1]]) == "run one after another"
    assert in_parts([[0, 1], [2, 3]]) == "train in stacks of 2 and 2"
    assert in_parts([[0, 1, 2, 3], [4]]) == "train in a stack of 4, job 4 runs alone"
    assert in_parts([[0, 1, 2], [3, 4], [5], [6]]) == "train in stacks of 3 and 2, jobs 5 and 6 run one after another"


class Child:
    pid = 1


def test_a_kill_leaves_a_stack_as_it_is_unless_memory_ran_out(tmp_path, monkeypatch):
    """The kernel counts the processes that it ended for lack of memory. With a checkpoint the stack is continued."""
    kills: list[int | None] = [7]
    monkeypatch.setattr("dlrun.sweep.process.memory_kills", lambda: kills[0])
    jobs = [Job(i, [f"seed={i}"], "running", stack=0) for i in range(3)]
    state = State.new(tmp_path, {"command": [], "flags": [], "arguments": []}, jobs, 3, [])

    def how(code: int, kills_now: int | None = 7, asked: str | None = None) -> str | None:
        kills[0] = 7
        one = Running(jobs, 0, Child(), 0, asked=asked)
        kills[0] = kills_now
        found = ended(state, one, code)
        if found == "interrupted":
            text = put_back(one, code)
            assert {(job.status, job.code, job.stack) for job in jobs} == {("stopped", code, 0)}
            assert ("choose a smaller sweep.stack" in text) == (kills_now is None)
        return found

    ends = {-9: "interrupted", -15: "interrupted", 255: "interrupted", 1: "declined", 3: "declined", -11: "declined"}
    assert {code: how(code) for code in ends} == ends
    assert how(-9, kills_now=8) == "declined" and how(-9, kills_now=None) == "interrupted"
    assert how(-15, asked="stopped") is None and how(3, asked="stopped") == "declined"
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "summary.json").write_text('{"status": "running"}')
    assert [how(-9), how(-9, kills_now=8), how(3), how(1)] == ["interrupted", "declined", "declined", None]
    clear(state, jobs)
    assert how(1) == "declined"
    (tmp_path / "stacks" / "0").mkdir(parents=True)
    assert how(-9) == "interrupted"
    (tmp_path / "stacks" / "0" / "last.ckpt").touch()
    assert how(-9) is how(-9, kills_now=8) is None


def test_the_jobs_of_a_stack_without_a_checkpoint_begin_together(tmp_path):
    """Also one that had diverged. A population that was refused begins again, and other jobs that failed go alone."""
    statuses = ["stopped", "diverged", "stopped", "finished", "diverged", "failed"]
    jobs = [Job(i, [f"seed={i}"], status, stack=3 * (i // 3)) for i, status in enumerate(statuses)]
    state = State.new(tmp_path, {"command": [], "flags": [], "arguments": []}, jobs, 6, [])
    recover(state)
    assert [job.status for job in jobs] == ["stopped", "waiting", "stopped", "finished", "diverged", "failed"]
    recover(state, retry=True)
    assert [job.status for job in jobs[3:]] == ["finished", "waiting", "waiting"]
    assert [job.stack for job in jobs] == [0, 0, 0, 3, None, None]
    members = [Job(i, [f"seed={i}"], "refused", 2, stack=0) for i in range(2)]
    recover(State.new(tmp_path, {}, members, 2, []), retry=True, alone=False)
    assert [(job.status, job.stack) for job in members] == [("waiting", 0)] * 2


def test_a_stack_says_how_long_it_took(tmp_path):
    one = Running([Job(i, [f"seed={i}"], stack=0) for i in range(8)], 0, Child(), 0)
    state = State.new(tmp_path, {"command": [], "flags": [], "arguments": []}, one.jobs, 8, [])
    verdict = Verdict(gain=5.0, step=2.14)
    assert together(one, verdict) == "8 jobs (0 to 7) train as one network: a step takes 2.1 times that of one job"
    write_verdict(tmp_path, 0, verdict)
    assert read_verdict(tmp_path, 0) == verdict and took(state, one) == ""
    write_verdict(tmp_path, 0, Verdict(5.0, 2.14, seconds=10.0, alone=15.0))
    text = "8 jobs (0 to 7) took 10.0 s together, 1.5 times as fast as one after another (about 15.0 s)"
    assert took(state, one) == text


def test_the_error_of_a_job_is_that_of_its_process(tmp_path):
    """Unless its own log has one, such as that it diverged. A stack that is continued may have one job left."""
    one = Running([Job(i, ["model=mlp", f"seed={i}"], "failed", 1, stack=0) for i in range(3)], 0, Child(), 0)
    logs = {0: ["epoch 1", "ValueError: no"], 1: ["epoch 1"], 2: ["epoch 1", "dl-run: the loss is nan", "  try"]}
    found = [why(job, telling(one, job, logs)) for job in one.jobs]
    assert found == ["ValueError: no", "ValueError: no", "dl-run: the loss is nan"]
    one.job.status, one.job.code = "killed", -9
    assert why(one.job, logs[0], no_memory=True) == "out of memory: the system ended it (SIGKILL)"
    assert why(one.job, logs[0], no_memory=False) == "SIGKILL, not out of memory; last line: ValueError: no"
    assert why(one.job, logs[0]) == "SIGKILL, possibly out of memory; last line: ValueError: no"
    assert resumed(one.jobs, 4) == "[1-3/4] as one network, resumed"
    assert resumed(one.jobs[2:], 4) == "[3/4] model=mlp seed=2, resumed"


def test_seeds_are_given_once(dl_run):
    assert dl_run("data=moons", "seeds=3", "seeds=4") == (
        2,
        "",
        "dl-run: seeds=3 seeds=4: expected one number of seeds\n",
    )


def test_the_largest_of_several_seeds_is_checked_before_the_first_trains(dl_run):
    code, _, text = dl_run("data=moons", "seeds=2", f"seed={2**63 - 1}")
    expected = "expected seeds of at most 9,223,372,036,854,775,807"
    assert (code, text) == (2, f"dl-run: seeds=2 with seed={2**63 - 1}: {expected}\n")
    code, _, text = dl_run("-m", "data=moons", "sweep=pbt", "sweep.population=2", RATE, f"seed={2**63 - 1}")
    assert (code, text) == (2, f"dl-run: seed={2**63 - 1} with sweep=pbt: {expected}\n")


@pytest.mark.slow
@pytest.mark.parametrize("words", [["seed=0,1,2", "sweep.stack=3"], ["sweep=pbt", "sweep.population=3", RATE]])
def test_a_stack_killed_early_ends_with_the_same_bits(words, tmp_path):
    """SIGKILL to its process at random moments from its start on: the same members and the same bits."""
    small = ["data=moons", "trainer.epochs=4", "trainer.checkpoint_gap=0", *words]

    def start(kind: str, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dlrun", "-m", *words, f"output_dir={tmp_path / kind}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def jobs(kind: str) -> list[dict]:
        return next(json.loads(path.read_text())["jobs"] for path in tmp_path.glob(f"{kind}/*/*_sweep/sweep.json"))

    process = start("whole", *small)
    text = process.communicate()[0]
    assert process.returncode == 0, text
    draw, kills = random.Random(0), 0
    process = start("cut", *small)
    while kills < 4:
        while process.poll() is None and not (found := [job["pid"] for job in pids(tmp_path / "cut")]):
            time.sleep(0.01)
        if process.poll() is not None:
            break
        time.sleep(draw.uniform(0, 2) * (kills > 0))
        with contextlib.suppress(ProcessLookupError):
            os.kill(found[0], signal.SIGKILL)
            kills += 1
        text = process.communicate()[0]
        if process.returncode == 0:
            break
        assert process.returncode == 1, text
        assert {job["status"] for job in jobs("cut")} <= {"stopped", "killed"}, text
        process = start("cut", "sweep.resume=last", "sweep.retry=failed")
    text = process.communicate()[0]
    assert process.returncode == 0 and kills, text
    for one, other in zip(jobs("whole"), jobs("cut"), strict=True):
        assert all(one[name] == other[name] for name in ("status", "values", "stack")) and one["status"] == "finished"
    (whole,), (cut,) = (list((tmp_path / kind).glob("*/*_sweep")) for kind in ("whole", "cut"))
    for number in range(3):
        assert_same(whole / str(number), cut / str(number))


def pids(folder: Path) -> list[dict]:
    """The running jobs of the sweep in this folder."""
    found = [json.loads(path.read_text())["jobs"] for path in folder.glob("*/*_sweep/sweep.json")]
    return [job for jobs in found for job in jobs if job["pid"]]


@pytest.mark.slow
def test_seeds_in_one_command(tmp_path):
    arguments = ["seeds=4", "seed=5", "data=moons", "trainer.epochs=3", "sweep.stack=4", f"output_dir={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "dlrun", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "4 jobs (0 to 3) train as one network" in done.stdout, done
    (sweep,) = tmp_path.glob("*/*_sweep")
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["finished"] * 4
    assert [read_summary(sweep / str(n))["seed"] for n in range(4)] == [5, 6, 7, 8]
    assert (sweep / "best" / "plots" / "loss.png").exists()


WANDB = """
import json, os

class Settings:
    def __init__(self, **settings): pass

class Image(Settings):
    def __init__(self, path): pass

class Run:
    summary = {}

    def __init__(self, name):
        self.path = os.path.join(os.path.dirname(__file__), f"{name}.jsonl")

    def log(self, metrics, step):
        with open(self.path, "a") as file:
            file.write(json.dumps([step, sorted(metrics)]) + "\\n")

    def finish(self, exit_code):
        self.log({"end": exit_code}, -1)

def init(name, **more):
    return Run(name)
"""


@pytest.mark.slow
def test_a_tracker_receives_each_row_of_each_job_once(tmp_path):
    """From a stand-in for W&B, which writes down what it is sent."""
    (tmp_path / "wandb.py").write_text(WANDB)
    words = ["data=moons", "trainer.epochs=3", "trainer.log_every=5", "seeds=3", "sweep.stack=3", "tracker=wandb"]
    command = [sys.executable, "-m", "dlrun", *words, f"output_dir={tmp_path}"]
    env = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    (sweep,) = tmp_path.glob("*/*_sweep")
    for number in range(3):
        deadline, path = time.monotonic() + 60, tmp_path / f"{number}.jsonl"
        while not path.exists() or "[-1, " not in path.read_text():  # the tracker ends after the run
            assert time.monotonic() < deadline
            time.sleep(0.1)
        sent = [(step, name) for step, names in map(json.loads, path.read_text().splitlines()) for name in names]
        rows = [json.loads(line) for line in (sweep / str(number) / "metrics.jsonl").read_text().splitlines()]
        wanted = [(row["step"], name) for row in rows for name in row if name.startswith(("step/", "val/"))]
        assert sorted(pair for pair in sent if pair[1].startswith(("step/", "val/"))) == sorted(wanted)


@pytest.mark.slow
def test_folds_of_unequal_size_train_in_stacks_of_their_own(tmp_path):
    words = ["-m", "data=moons", "data.source.samples=202", "data.folds=3", "seed=0,1", "sweep.stack=8"]
    command = [sys.executable, "-m", "dlrun", *words, "trainer.epochs=2", f"output_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "train in stacks of " in done.stdout, done
    assert "the jobs differ in the number of train samples" in done.stdout
    (sweep,) = tmp_path.glob("*/*_sweep")
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert {job["status"] for job in jobs} == {"finished"} and len({job["stack"] for job in jobs}) == 2
    assert len((sweep / "out_of_fold.csv").read_text().splitlines()) > 200
