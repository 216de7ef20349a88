"""`dl-run -m`: the grid and its table; a job does not affect other jobs."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.types import HydraContext
from omegaconf import OmegaConf

from dlrun.errors import UserError
from dlrun.sweep import forks
from dlrun.sweep.folds import with_folds
from dlrun.sweep.goals import value_names
from dlrun.sweep.job import Job
from dlrun.sweep.outcomes import record
from dlrun.sweep.report import as_csv, report
from dlrun.sweep.state import State
from dlrun.system.python import COMMAND
from hydra_plugins.dlrun_sweeper.sweeper import JobSweeper

REPORT = {"results.csv", "results.json", "report.html", "best"}
DL_RUN = [sys.executable, *COMMAND]


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*DL_RUN, *arguments], cwd=folder, env=env, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def sweep(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = start(folder, *arguments)
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def table_of(out: str) -> str:
    return re.search(r"^job  .*", out, re.S | re.M)[0]


@pytest.fixture
def own(tmp_path):
    """A folder of the user's own configs, with an experiment that sweeps by itself."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "grid.yaml").write_text(
        "# @package _global_\n"
        "defaults:\n  - override /data: moons\n  - override /model: linear\n"
        "trainer: {epochs: 1}\n"
        "hydra:\n  mode: MULTIRUN\n  sweeper:\n    params:\n      optimizer.lr: 0.1,0.01\n      seed: 0,1,2\n"
    )
    return tmp_path


@pytest.mark.thorough
def test_jobs_finish_fail_or_are_refused_independently(own):
    """A grid with all three, -m among the overrides, odd values, odd folders, the user's own experiment."""
    code, out, err = sweep(
        own,
        "experiment=grid",
        "optimizer=sgd",
        "trainer.epochs=2",
        "-m",
        "optimizer.lr=0.01",
        "task.l2=0,1e38",
        "--config-dir=mine",
        "seed=0,1,-1",
        'data.spec.labels=["a b","c, \\"d\\" = (1)"]',
        '++data.spec.names=["it\'s", y]',
        "trainer.monitor=null",
        "output_dir='my sweeps, (1)'",
    )
    assert code == 1, err
    (folder,) = (own / "my sweeps, (1)").glob("*/*_sweep")
    kept = {"multirun.yaml", "base.json", "sweep.json", "logs", ".lock", ".changing", ".workers"}
    assert {path.name for path in folder.iterdir()} == {"0", "1", "3", "4", *kept, *REPORT}
    rows = list(csv.DictReader((folder / "results.csv").read_text().splitlines()))
    assert [row["status"] for row in rows] == ["finished", "finished", "refused", "diverged", "diverged", "refused"]
    assert all(float(row["test/acc"]) > 0.5 for row in rows[:2]) and rows[3]["test/acc"] == ""
    assert "task.l2=0 " in rows[0]["overrides"] and "seed=1" in rows[1]["overrides"]

    best = next(line for line in out.splitlines() if line.startswith("  dl-run "))
    assert best.endswith(" --config-dir=mine"), "what it says starts that job"
    assert "sweep of 6 jobs in " in out and err.count("dl-run: seed=-1: expected an integer >= 0") == 1
    assert "job 5 refused (exit code 2), as job 2" in out
    assert "job 2 refused (exit code 2)" in out and "job 3 diverged (exit code 1)" in out
    grid, means = table_of(out).split("\n\n")[:2]
    assert grid.splitlines()[0].split()[0] == "job" and len(grid.splitlines()) == 8
    assert means.startswith("mean +/- std over seeds") and "seeds" in means.splitlines()[0]
    row = next(line for line in means.splitlines() if "l2=0 " in line)
    values = [float(r["test/acc"]) for r in rows[:2]]
    expected = f"{sum(values) / 2:.4f} +/- {abs(values[0] - values[1]) / 2**0.5:.4f}"
    assert expected in row and row.endswith(" 2")
    assert next(line for line in means.splitlines() if "l2=1e+38" in line).split()[-2:] == ["-", "0"]

    config = OmegaConf.load(folder / "1" / ".hydra" / "config.yaml")
    assert list(config.data.spec.labels) == ["a b", 'c, "d" = (1)'] and config.data.spec.names[0] == "it's"
    assert config.seed == 1 and config.trainer.monitor is None and config.run_dir.endswith("/1")


@pytest.mark.thorough
def test_an_experiment_can_sweep_by_itself_and_two_at_once(own):
    """Its params are the grid, and the command line wins; jobs do not sweep again; each sweep has its folder."""
    both = [start(own, "--config-dir=mine", "experiment=grid", "seed=7", "trainer.monitor=val/no") for _ in range(2)]
    for process in both:
        out, err = process.communicate(timeout=400)
        assert process.returncode == 2, "every job was refused"
        assert "sweep of 2 jobs in " in out and err.count("trainer.monitor=val/no is not measured here") == 1
        assert "\nall jobs with experiment=grid seed=7 trainer.monitor=val/no\n\njob   " in out
        assert "\n0  optimizer.lr=0.1   " in table_of(out) and table_of(out).count("  refused\n") == 2
        assert "Traceback" not in err
    assert len(list((own / "outputs").glob("*/*_sweep*"))) == 2


def test_a_config_that_all_jobs_refuse_is_refused_once(own, dl_run):
    """Before a folder is made. A value that only some of the jobs refuse is theirs alone."""
    small = ["-m", "data=moons", "model=linear", "trainer.epochs=1"]
    assert dl_run(*small, "seed=0,1", "data.batch_size=0") == (
        2,
        "",
        "dl-run: data.batch_size=0: expected an integer >= 1\n",
    )
    code, _, err = dl_run(*small, "seed=0,1", "model=mynets.none", "optimizer.lr=0.1,0.2")
    assert code == 2 and err.count("dl-run: ") == 1
    assert not list(own.glob("outputs/*/*_sweep"))
    code, out, err = dl_run(*small, "optimizer.lr=-1,0.1")
    assert code == 1 and err.count("optimizer.lr=-1: expected a number > 0") == 1 and "job 1 finished" in out


JOB = """
import json, os, sys, time, torch
facts = {"arguments": sys.argv[1:], "env": dict(os.environ), "folder": os.getcwd(), "input": sys.stdin.read()}
print(json.dumps(facts | {"leads": os.getsid(0) == os.getpid(), "threads": torch.get_num_threads()}), flush=True)
if sys.argv[1] == "exit":
    sys.exit(3)
if sys.argv[1] == "raise":
    raise RuntimeError("a bug")
time.sleep(100)
"""


@pytest.mark.thorough(but=["exit-3", "raise-1", "terminate--15", "kill--9"])
@pytest.mark.parametrize(("what", "code"), [("exit", 3), ("raise", 1), ("terminate", -15), ("kill", -9)])
def test_a_fork_behaves_like_a_process_of_its_own(what, code, tmp_path, monkeypatch):
    """It has its own arguments, environment, threads, folder, log, session and end, as with `python -m`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    log, env = tmp_path / "logs" / "0.log", {"ONLY": "this", "OMP_NUM_THREADS": "2"}
    child, deadline = forks.prepare()(["python", *COMMAND[:-1], "job", what, "a b"], log, env), time.monotonic() + 60
    assert isinstance(child, forks.Forked)
    while not (log.exists() and "\n" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.01)
    if what in ("terminate", "kill"):
        assert child.poll() is None
        getattr(child, what)()
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert child.poll() == code
    line, *more = log.read_text().splitlines()
    facts = {"arguments": [what, "a b"], "env": env, "folder": str(tmp_path), "input": "", "leads": True, "threads": 2}
    assert json.loads(line) == facts and more[-1:] == ["RuntimeError: a bug"] * (what == "raise")


@pytest.mark.thorough
def test_the_process_that_forks_is_killed(tmp_path, monkeypatch):
    """Its jobs continue, and their own summaries give their status; later jobs are forks of a new process."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.py").write_text(JOB)
    monkeypatch.syspath_prepend(tmp_path)
    start, deadline = forks.prepare(), time.monotonic() + 60
    first = start(["python", *COMMAND[:-1], "job", "run"], tmp_path / "logs" / "0.log", {})
    while not (tmp_path / "logs" / "0.log").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(forks.multiprocessing.forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    time.sleep(0.2)
    assert first.poll() is None, "it runs on"
    second = start(["python", *COMMAND[:-1], "job", "exit"], tmp_path / "logs" / "1.log", {})
    first.kill()
    while None in (first.poll(), second.poll()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert (first.poll(), second.poll()) == (forks.process.LOST, 3)


@pytest.mark.parametrize(
    ("written", "asked", "status"),
    [
        ("finished", None, "finished"), ("failed", None, "failed"), ("diverged", None, "diverged"),
        ("running", None, "lost"), ("stopped", "stopped", "stopped"), ("running", "timeout", "timeout"),
        (["x"], None, "lost"),
    ],
)  # fmt: skip
def test_a_job_whose_exit_code_is_lost(tmp_path, written, asked, status):
    (tmp_path / "summary.json").write_text(json.dumps({"status": written}))
    job = Job(0, [])
    record(job, tmp_path, forks.process.LOST, asked=asked)
    assert job.status == status


@pytest.mark.thorough
def test_libraries_print_nothing_in_a_sweep(tmp_path):
    """Started by the script that pip installs, which jobs import again, and without a writable home."""
    script = tmp_path / "dl-run"
    script.write_text("from dlrun.__main__ import main\n\nif __name__ == '__main__':\n    main()\n")
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HOME": "/proc/no home", "TMPDIR": str(tmp_path)}
    for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        env.pop(name, None)
    line = [sys.executable, str(script), "-m", "data=moons", "model=linear", "trainer.epochs=2", "seed=0,1"]
    done = subprocess.run(line, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0 and done.stderr == "" and "atplotlib" not in done.stdout, done.stdout + done.stderr
    logs = [path.read_text() for path in tmp_path.glob("outputs/*/*_sweep/logs/*.log")]
    assert len(logs) == 2 and all(log.startswith("dl-run ") and "arning" not in log for log in logs), logs
    assert len(list(tmp_path.glob("outputs/*/*_sweep/[01]/plots/loss.png"))) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_signal_to_a_job_that_has_just_begun_is_lost(tmp_path, number):
    start, deadline = forks.prepare(), time.monotonic() + 60
    jobs = []
    for i in range(8):
        command = ["python", *COMMAND[:-1], "timeit", "-n1", "-r1", "import time; time.sleep(99)"]
        jobs.append(start(command, tmp_path / "logs" / f"{i}.log", dict(os.environ)))
        jobs[i].send_signal(number)
    while any(job.poll() is None for job in jobs) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [job.poll() for job in jobs] == [-number] * 8


def test_jobs_start_without_forks(tmp_path, monkeypatch):
    """multiprocessing needs disk space and a short path for its socket; a sweep needs neither."""

    def refuse(*args):
        raise OSError("AF_UNIX path too long")

    monkeypatch.setattr(forks.multiprocessing.forkserver, "connect_to_new_process", refuse)
    log = tmp_path / "logs" / "0.log"
    child = forks.prepare()([sys.executable, "-m", "platform"], log, dict(os.environ))
    assert isinstance(child, forks.process.SessionLeader) and child.wait(60) == 0 and log.read_text()
    monkeypatch.setattr(forks.multiprocessing.forkserver, "ensure_running", refuse)
    assert forks.prepare() is forks.process.start


SLOW = [pytest.param(number, marks=pytest.mark.slow) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)]


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGUSR1, *SLOW])
def test_a_signal_stops_the_sweep_with_the_current_job_saved(tmp_path, number):
    """The whole group gets it, as from terminals and schedulers: the process that forks jobs must survive."""
    process = start(tmp_path, "data=moons", "trainer.epochs=100000", "-m", "model=linear", "seed=0,1")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("outputs/*/*_sweep/0/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, err
    (folder,) = tmp_path.glob("outputs/*/*_sweep")
    assert json.loads((folder / "0" / "summary.json").read_text())["status"] == "stopped"
    assert (folder / "0" / "checkpoints" / "last.ckpt").exists() and not (folder / "1").exists()
    lines = table_of(out).splitlines()
    assert lines[2].endswith("stopped") and lines[3].endswith("not run")
    assert [row["status"] for row in csv.DictReader((folder / "results.csv").read_text().splitlines())] == [
        "stopped",
        "not run",
    ]
    assert f"2 jobs are left; resume with: dl-run -m sweep.resume={folder.relative_to(tmp_path)}\n" in out
    assert f"dl-run resume={folder.relative_to(tmp_path)}/0" in (folder / "logs" / "0.log").read_text()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["resume=last"], "resume=... in a sweep: a run is resumed by itself"),
        (
            ["mode=summary"],
            "mode=summary in a sweep: it shows or measures one model\n  expected it",
        ),
        (["run_dir=here"], "run_dir=... in a sweep: each job has its own folder\n  expected output_dir=..."),
        (["output_dir=taken"], "output_dir=taken: "),
        (["trainer.epochs=interval(1,5)"], "cannot sweep over an interval"),
        (
            [
                "sweep=mlp",
                "p=zip(optimizer.lr=[0.1,0.01],model.dropout=[0.1,0.2])",
                "sweep.sampler=cmaes",
                "model.hidden=[8]",
                "seed=1",
            ],
            "p=zip(optimizer.lr=[0.1,0.01],model.dropout=[0.1,0.2]): sweep.sampler=cmaes takes numbers",
        ),
        (["model.hidden=[1"], "cannot read the value in 'model.hidden=[1'"),
    ],
)
def test_a_sweep_that_cannot_start_is_refused(arguments, text, tmp_path, monkeypatch, capsys):
    from dlrun import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    (tmp_path / "taken").touch()
    monkeypatch.setattr(sys, "argv", ["dl-run", "-m", "seed=0,1", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    err = capsys.readouterr().err
    assert stopped.value.code == 2 and err.startswith("dl-run: ") and text in err
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def fake_jobs(folder: Path, *results: dict | int | None) -> list[Job]:
    """Jobs that ended so: with a test accuracy, with an exit code, or not at all."""
    jobs = []
    for i, result in enumerate(results):
        job = Job(i, [f"seed={i}", "model=mlp"])
        (folder / str(i)).mkdir(parents=True)
        if isinstance(result, dict):
            best = {"epoch": 1, "metric": "val/acc", "value": 0.5}
            summary = {
                "status": "finished",
                "best": best,
                "test": {"test/acc": 0.25, "confusion": [[1]]},
                "seconds": 61.25,
            }
            (folder / str(i) / "summary.json").write_text(json.dumps({**summary, **result}))
        if result is not None:
            record(job, folder / str(i), 0 if isinstance(result, dict) else result)
        jobs.append(job)
    return jobs


def test_the_table_fits_into_a_terminal():
    jobs = [Job(i, ["model=mlp", f"seed={i}"], "finished") for i in range(2)]
    for job in jobs:
        job.values = {"val/acc": 0.5, "test/loss": 1.0, "test/acc": 0.25, "test/top5": 0.75}
    heads = lambda width, i: report(jobs, width).split("\n\n")[i].splitlines()[0].split()  # noqa: E731
    whole = ["job", "val/acc", "test/acc", "test/loss", "test/top5", "seconds", "status"]
    assert heads(10_000, 1) == heads(80, 1) == whole
    assert heads(55, 1) == ["job", "val/acc", "test/acc", "seconds", "status"], "of the test part the goal stays"
    assert heads(10, 1) == ["job", "val/acc", "seconds", "status"]
    assert heads(80, 2) == ["mean", "+/-", "std", "over", "seeds", "val/acc", "test/acc", "seeds"]
    assert max(map(len, report(jobs, 80).splitlines())) < 80


def test_the_table(tmp_path):
    jobs = fake_jobs(tmp_path, {}, {"test": {"test/acc": 0.75}}, 1, 2, -9, -15, 139, None)
    text = report(jobs)
    above, _, text = text.partition("\n\n")
    assert above == "all jobs with model=mlp"
    assert text.splitlines()[2].split() == "0 seed=0 0.5000 0.2500 61.2 finished".split()
    words = ["finished", "finished", "failed", "refused", "killed", "stopped", "exit 139", "not run"]
    assert all(line.endswith(word) for line, word in zip(text.splitlines()[2:10], words, strict=True))
    assert text.splitlines()[-1].split() == "(all) 0.5000 +/- 0.0000 0.5000 +/- 0.3536 2".split()
    rows = list(csv.reader(as_csv(jobs, value_names(jobs)).splitlines()))
    assert rows[0] == ["job", "overrides", "status", "val/acc", "test/acc", "seconds"]
    assert rows[1] == ["0", "seed=0 model=mlp", "finished", "0.5", "0.25", "61.25"]
    assert rows[8] == ["7", "seed=7 model=mlp", "not run", "", "", ""]


def test_the_table_shows_shared_settings_once():
    """With one job there are none; with equal jobs all settings are shared."""
    nets = [["model=mlp", "seed=0", "data=moons"], ["model=linear", "seed=0", "data=moons"]]
    text = report([Job(i, overrides) for i, overrides in enumerate(nets)])
    assert text.startswith("all jobs with seed=0 data=moons\n\njob  ")
    assert [line.split() for line in text.splitlines()[4:]] == [
        ["0", "model=mlp", "-", "not", "run"],
        ["1", "model=linear", "-", "not", "run"],
    ]
    assert report([Job(0, nets[0])]).splitlines()[2].startswith("0  model=mlp seed=0 data=moons  ")
    assert report([Job(0, ["seed=0"]), Job(1, ["seed=0"])]).splitlines()[4].split() == ["0", "-", "not", "run"]
    two = [
        Job(2 * i + seed, [f"model={net}", f"seed={seed}", "data=moons"])
        for i, net in enumerate("ab")
        for seed in (0, 1)
    ]
    assert [line.split()[0] for line in report(two).splitlines()[-2:]] == ["model=a", "model=b"]


def test_no_job_finished(tmp_path):
    assert "mean" in report(fake_jobs(tmp_path, 1, 1))


def test_a_job_is_started_with_what_the_sweep_was_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dl-run", "-m", "seed=0,1", "--config-dir", "my configs", "-cn", "other"])
    sweeper = JobSweeper()
    hydras = ["hydra.mode=MULTIRUN", "hydra.searchpath=[file://x]"]
    config = OmegaConf.create({"hydra": {"overrides": {"hydra": hydras}}})
    sweeper.setup(hydra_context=HydraContext(None, None), task_function=None, config=config)
    state = State(Path('a, "b"\\c'), {}, [])
    assert sweeper.command(state, Job(3, []), True)[1 + len(COMMAND) :] == [
        'resume="a, \\"b\\"\\c/3"',
        "hydra.mode=RUN",
    ]
    command = sweeper.command(state, Job(3, ["seed=1"]), False)
    assert command[1:] == [
        *(*COMMAND, "seed=1", "hydra.searchpath=[file://x]", 'run_dir="a, \\"b\\"\\c/3"', "hydra.mode=RUN"),
        *("--config-name=other", "--config-dir=my configs"),
    ]
    with pytest.raises(UserError, match="resume=... in a sweep"):
        sweeper.sweep(["++resume=last"])


@pytest.mark.thorough
def test_all_folds_run_as_a_sweep(tmp_path):
    """Their predictions for the samples that they held out are in one file, each sample once."""
    code, out, err = sweep(
        tmp_path, "-m", "data=iris", "model=linear", "data.folds=3", "trainer.epochs=1", "output_dir=out"
    )
    assert code == 0, err
    (folder,) = (tmp_path / "out").glob("*/*_sweep")
    assert (
        "sweep of 3 jobs" in out and "mean +/- std over folds" in out and str(folder / "out_of_fold.csv")[-30:] in out
    )
    rows = list(csv.DictReader((folder / "out_of_fold.csv").read_text().splitlines()))
    assert len(rows) == len({row["sample"] for row in rows}) == 120
    assert [row["fold"] for row in rows] == [row["job"] for row in rows] and {row["setting"] for row in rows} == {""}
    (best,) = json.loads((folder / "results.json").read_text())["best"]
    assert best["jobs"] == [0, 1, 2] and best["command"].endswith(" data.fold=0,1,2")
    assert f"best: jobs 0, 1, 2, val/acc {best['values']['val/acc']:.4f} +/- " in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["data.folds=3"], ["data.folds=3", "data.fold=0,1,2"]),
        (["data.folds=3", "data.fold=1"], None),
        (["data.folds=3", "zip(data.fold=[0,1],seed=[0,1])"], None),
        (["data.folds=0"], None),
        (["data.folds=x"], None),
        (["seed=0,1"], None),
    ],
)
def test_which_folds_are_run(arguments, expected):
    assert with_folds(arguments, is_search=False) == (expected or arguments)


def test_a_search_runs_one_fold_and_a_sweep_one_number_of_folds():
    for several in ("2,3", "range(2,4)"):
        with pytest.raises(UserError, match="a sweep runs all folds of one number of folds\n  expected one number"):
            with_folds([f"data.folds={several}"], False)
    with pytest.raises(UserError, match="data.folds=3 in a search: each trial trains once"):
        with_folds(["data.folds=3"], is_search=True)
