"""Which jobs of a sweep train as one network."""

import itertools
import json
import subprocess
import sys

import pytest

from dlrun.errors import UserError
from dlrun.output.folders import read_summary
from dlrun.sweep.job import Job
from dlrun.sweep.running import spoken
from dlrun.sweep.stacks import divide, halves, parse, plan, which


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
