"""Resuming a sweep, refusals, the number of jobs at once, and the table in the terminal."""

import errno
import json
import os
import re
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace

import pytest
import sweeps
from test_sweep import sweep

from dlrun.errors import UserError
from dlrun.output.folders import find_run
from dlrun.output.written import write_whole
from dlrun.sweep import process
from dlrun.sweep.axes import Axis, outside
from dlrun.sweep.cluster import stop_file
from dlrun.sweep.goals import Setting
from dlrun.sweep.job import Job
from dlrun.sweep.opening import new_sweep
from dlrun.sweep.plan import Plan
from dlrun.sweep.report import Report
from dlrun.sweep.runner import Runner
from dlrun.sweep.running import Running
from dlrun.sweep.screen import Screen, cut, table_lines
from dlrun.sweep.slots import Slots
from dlrun.sweep.state import State, load_state
from dlrun.sweep.workers import at_work, is_at_work


@pytest.fixture(scope="module")
def refused_sweep(tmp_path_factory):
    """A finished sweep whose two jobs were refused, in a folder with the user's own experiment."""
    base = tmp_path_factory.mktemp("over")
    (base / "mine" / "experiment").mkdir(parents=True)
    (base / "mine" / "experiment" / "own.yaml").write_text("# @package _global_\ntrainer: {epochs: 3}\n")
    given = ["--config-dir=mine", "-m", "experiment=own", "data=moons", "seed=-1,-2", "sweep.jobs=2"]
    assert sweep(base, *given)[0] == 2
    (folder,) = base.glob("outputs/*/*_sweep")
    return base, folder


@pytest.fixture
def dl_run(monkeypatch, capsys, refused_sweep):
    """Run the command in this process; returns (exit code, stdout, stderr)."""
    from dlrun import cli

    monkeypatch.chdir(refused_sweep[0])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["dl-run", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        return (stopped.value.code, *capsys.readouterr())

    return run


def test_resuming_a_finished_sweep_does_nothing(dl_run, refused_sweep, monkeypatch):
    """Also from another folder, by its name or as the last one, with or without its first overrides."""
    base, folder = refused_sweep
    before = {path: path.stat().st_mtime for path in folder.glob("logs/*")}
    for words in (["data=moons", "sweep.resume=last", "seed=-1,-2", "sweep.jobs=1"],):
        code, out, err = dl_run("-m", *words)
        assert code == 2 and f"resuming a sweep of 2 jobs in {folder.relative_to(base)}" in out, err
        assert "job 1 refused: dl-run: seed=-2: expected an integer >= 0" in out
    monkeypatch.chdir("/")
    assert dl_run("-m", f"sweep.resume='{folder}'")[0] == 2
    assert {path: path.stat().st_mtime for path in folder.glob("logs/*")} == before


REFUSED = {
    "sweep.resume=nowhere": "sweep.resume=nowhere: this folder is not a sweep's: no such folder\n  expected the folder",
    "sweep.resume=mine": "sweep.resume=mine: this folder is not a sweep's: it has no sweep.json",
    "sweep.resume=last output_dir=mine": "sweep.resume=last: there is no sweep under ",
    "sweep.resume=last seed=-1,-3": "the sweep was not started with 'seed=-1,-3'\n  it had 'seed=-1,-2', in ",
    "sweep.resume=last optimizer.lr=1": "the sweep was not started with 'optimizer.lr=1'\n  it had no",
    "seed=0,1 sweep.retry=failed": "sweep.retry=failed needs a sweep that is resumed\n  expected dl-run -m",
    "seed=0,1 sweep.job=2": "sweep.job=2: sweep has no 'job'; did you mean 'sweep.jobs'?\n  sweep has: jobs, threads,",
    "seed=0,1 +sweep.foo=2": "sweep.foo: Grid has no 'foo'",
    "seed=0,1 sweep.jobs=1,2": "sweep.jobs=1,2: a sweep cannot sweep over itself\n  expected one value",
    "seed=0,1 sweep.job_timeout=0": "sweep.job_timeout=0: expected a number > 0 or null",
    "seed=0,1 sweep.gpus=[0,1] sweep.jobs=3": "sweep.jobs=3: there is room for 2 with 2 GPUs (0, 1) and "
    "sweep.jobs_per_gpu=1\n  expected at most sweep.jobs=2, or more on one GPU: sweep.jobs_per_gpu=2",
    "model.hiden=[1],[2]": "model.hiden=[1]: model has no 'hiden'; did you mean 'model.hidden'?",
    "sweep=optuna +foo=interval(0,1)": "there is no key 'foo'",
    "sweep=optuna model.dropout=interval(0,2)": "model.dropout=2.0: expected a number in [0, 1)",
    "sweep=optuna": "sweep=optuna: the space is empty",
    "seed=range(0,1e9)": "seed=range(0,1e9): it has more than 10,000 values\n  expected fewer",
    "seed=shuffle(range(1000000000))": "it has more than 10,000 values",
    "seed=range(0,inf)": "seed=range(0,inf): it has no end",
    "p=zip(seed=range(0,1e12),data.batch_size=[1,2])": "it has more than 10,000 values",
    "seed=range(0,1000) data.batch_size=range(1,1001) model=mlp,linear": "the sweep has 2,000,000 jobs (seed: 1,000 x "
    "data.batch_size: 1,000 x model: 2)\n  expected at most 10,000",
    "sweep=optuna seed=int(interval(0,1e300))": "its bounds are 0 and 1e+300\n  expected numbers between",
    "sweep=optuna seed=0,1 sweep.goal=[val/acc,val/loss] sweep.direction=max": 'sweep.direction="max": there are 2 '
    "goals\n  expected one for each, such as sweep.direction=[max,min], or null to use",
    "sweep=optuna seed=0,1 sweep.goal=[val/acc,val/acc]": "expected one metric, or several different ones",
    "trainer.patience=choice(null,3) sweep.gpus=[0] sweep.jobs=2": "there is room for 1",  # what is swept was read
    "trainer.patience=shuffle(null,3) sweep.gpus=[0] sweep.jobs=2": "there is room for 1",
    "sweep=optuna sweep.sampler=tpa seed=0,1": "sweep.sampler=tpa: expected one of tpe, random, grid, cmaes, qmc",
}


@pytest.mark.thorough(
    but=[
        "sweep=optuna",
        "seed=range(0,1e9)",
        "seed=0,1 +sweep.foo=2",
        "seed=0,1 sweep.retry=failed",
        "sweep=optuna sweep.sampler=tpa seed=0,1",
        "seed=0,1 sweep.job_timeout=0",
        "model.hiden=[1],[2]",
        "seed=0,1 sweep.gpus=[0,1] sweep.jobs=3",
    ]
)
@pytest.mark.parametrize("line", REFUSED)
def test_wrong_requests_for_a_sweep_are_refused(dl_run, refused_sweep, line):
    before = sorted(refused_sweep[0].rglob("*"))
    code, _, err = dl_run("-m", *line.split(" "))
    assert code == 2 and err.startswith("dl-run: ") and REFUSED[line] in err and "Traceback" not in err
    assert sorted(refused_sweep[0].rglob("*")) == before, "a refused sweep leaves nothing behind"


def test_a_single_run_is_not_a_sweep(dl_run):
    assert dl_run("sweep.jobs=2")[2].startswith("dl-run: sweep.jobs=2 needs a sweep, and this is one run\n  expected")
    assert (
        "expected a sweep: dl-run -m 'zip(seed=[1,2],data.batch_size=[3,4])'"
        in dl_run("zip(seed=[1,2],data.batch_size=[3,4])")[2]
    )


def test_a_sweep_whose_configs_changed_is_refused(dl_run, refused_sweep):
    path = refused_sweep[0] / "mine" / "experiment" / "own.yaml"
    before = path.read_text()
    path.write_text(before.replace("3", "4"))
    try:
        code, _, err = dl_run("-m", "sweep.resume=last")
    finally:
        path.write_text(before)
    assert code == 2 and "the sweep has changed since it was started\n" in err
    assert "  trainer.epochs: 3 at its start, now 4\n  expected the same space and configs" in err


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "jobs": [{"number": 1}]}', '{"format": 1, "jobs": 3}']
)
def test_a_damaged_state_is_refused(tmp_path, text):
    damaged(tmp_path, text)


@pytest.mark.parametrize(
    "change",
    [
        {"command": [3]}, {"goals": ["x"]}, {"goals": [["val/acc", "up"]]}, {"total": -1}, {"elsewhere": -1},
        {"values": None}, {"values": {"val/acc": "x"}}, {"seconds": "x"}, {"overrides": "abc"}, {"trial": []},
        {"pid": "1"}, {"worker": "/any/path"}, {"worker": "../../x"}, {"worker": ".."}, {"worker": ""},
        {"attempt": "a/b"}, {"attempt": "a\0b"}, {"attempt": "x" * 300}, {"seconds": 10**400}, {"code": -(10**400)},
        {"values": {"val/acc": 10**400}}, {"total": 10**30}, {"flags": [None]}, {"overrides": ["seed=\0"]},
        {"\x1b[31m": 1},
    ],
)  # fmt: skip
def test_a_state_with_invalid_content_is_refused(tmp_path, change):
    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    State.new(tmp_path, command, [Job(0, ["seed=0"])], 1, []).save()
    state = json.loads((tmp_path / "sweep.json").read_text())
    target = state if change.keys() & state.keys() else state["jobs"][0]
    target |= change
    damaged(tmp_path, json.dumps(state))


def damaged(tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(UserError) as error:
        load_state(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'sweep.json'} is damaged: ")
    assert "restore it (the jobs' folders and results.csv are untouched)" in str(error.value)
    assert "\x1b" not in str(error.value)


def test_no_path_in_a_file_leads_out_of_the_sweep(tmp_path):
    """Neither by a name nor by a link in the folder: nothing outside is opened, locked or deleted."""
    victim, folder = tmp_path / "victim", tmp_path / "sweep"
    (victim / "0").mkdir(parents=True)
    (victim / "thesis").write_text("years")
    for name in ("0", ".workers", "logs"):
        folder.mkdir(exist_ok=True)
        (folder / name).symlink_to(victim, target_is_directory=True)
    state, job = State(folder, {}, []), Job(0, [])
    for path in (
        lambda: is_at_work(folder, "thesis"), lambda: is_at_work(tmp_path, "../victim/thesis"),
        lambda: state.run_folder(job), lambda: state.log(job), lambda: stop_file(tmp_path / "0.log", "../victim/x"),
        lambda: at_work(folder).__enter__(),
    ):  # fmt: skip
        with pytest.raises(UserError, match="leads out of the folder .*\n  expected a file or folder inside it"):
            path()
    (folder / "sweep.json.tmp").symlink_to(victim / "thesis")
    write_whole(folder / "sweep.json", "{}")
    assert (victim / "thesis").read_text() == "years" and (folder / "sweep.json").read_text() == "{}"


def test_a_job_that_is_no_point_of_the_space():
    axes = [
        Axis(["a"], [["a=1"], ["a=2"]], None, "a=1,2"),
        Axis(["b", "c"], [["b=1", "c=1"], ["b=2", "c=2"]], None, "p=zip(...)"),
        Axis(["d"], [], (0.0, 1.0, False, False), "d=interval(0,1)"),
    ]
    fits = ["a=1", "b=2", "c=2", "d=1.5e-05"]
    assert outside(axes, [fits, fits]) is None
    others = [fits[:3], [*fits, "x=1"], ["a=3", *fits[1:]], ["a=1", "b=2", "c=1", "d=0"], [*fits[:3], "d=/x"], []]
    assert [outside(axes, [fits, other]) for other in others] == [1] * len(others)


def test_resume_last_is_never_a_job_of_a_sweep(tmp_path):
    """Its row in results.csv would not change. By its folder it can be resumed, and dl-runs may read it."""
    for name in ("1_sweep/0", "2_run"):
        (tmp_path / "d" / name / ".hydra").mkdir(parents=True)
        for file in ("config", "overrides"):
            (tmp_path / "d" / name / ".hydra" / f"{file}.yaml").touch()
    (tmp_path / "d" / "1_sweep" / "sweep.json").touch()
    job, alone = tmp_path / "d" / "1_sweep" / "0", tmp_path / "d" / "2_run"
    os.utime(job / ".hydra" / "overrides.yaml", (2, 2))
    assert find_run("last", str(tmp_path)) == alone
    os.utime(alone / ".hydra" / "overrides.yaml", (1, 1))
    with pytest.raises(UserError) as error:
        find_run("last", str(tmp_path))
    assert f"the last run is {job}, job 0 of a sweep" in str(error.value)
    assert f"dl-run -m sweep.resume={job.parent}\n" in str(error.value) and f"dl-run resume={job}" in str(error.value)
    assert find_run("last", str(tmp_path), "") == find_run(str(job), str(tmp_path)) == job


def test_a_full_disk_is_reported_and_a_report_ends_nothing(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    state = State.new(tmp_path, command, [Job(0, ["seed=0"])], 1, [])
    state.save()
    monkeypatch.setattr("dlrun.sweep.state.write_whole", full)
    with pytest.raises(
        UserError, match="cannot write to the sweep's folder .*: No space left on device\n  expected a writable disk"
    ) as error:
        with state.alone():
            state.jobs[0].status = "running"
    assert error.value.exit_code == 1
    (tmp_path / "logs").write_text("no folder")
    runner = Runner(state, Plan(), Slots(1, None, []), 1.0, lambda *_: ["true"], Screen(), launch=process.start)
    with pytest.raises(UserError, match="cannot write to the sweep's folder .*: File exists") as error:
        runner.start(state.jobs[0], 0)
    assert error.value.exit_code == 2
    settings = Namespace(join=None)
    monkeypatch.setattr("dlrun.sweep.opening.write_whole", full)
    with pytest.raises(
        UserError, match="cannot start a sweep in .*: No space left on device\n  expected a writable disk"
    ):
        with new_sweep(tmp_path / "new", settings, command, [], {"base": {}, "multirun.yaml": ""}):
            pass
    monkeypatch.setattr("dlrun.sweep.report.write_whole", full)
    report = Report(state)
    report.write()
    assert report.problem.startswith("the report could not be written: No space left on device")
    (tmp_path / ".workers").touch()
    with pytest.raises(UserError, match="cannot write to the sweep's folder"), at_work(tmp_path):
        pass


def test_the_live_table_fits(tmp_path):
    """In a low and narrow terminal shared settings are left out, and lines that are cut end with a mark."""
    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    jobs = [Job(i, ["model=linear", f"seed={i}"], "running" if i < 7 else "waiting") for i in range(12)]
    state = State.new(tmp_path, command, jobs, 12, [])
    running = [Running([job], 0, None, 0, started=0.0) for job in jobs[:5]]
    lines = table_lines(state, running, None, [], 3.0, width=80, room=3)
    assert lines[0] == "sweep  0 of 12 done, 7 running (2 elsewhere), 5 waiting; 0:03" and len(lines) == 5
    assert lines[1].endswith("  seed=0") and "linear" not in lines[1] and lines[4] == "  and 2 more"
    assert cut("trainer.epochs=3000", 15) == "trainer.epoc..." and cut("seed=1", 15) == "seed=1"


def test_the_live_table_shows_a_stack_as_one(tmp_path):
    """With the newest row of its jobs: the first may have been pruned. No job of it is elsewhere."""
    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    jobs = [Job(i, ["model=linear", f"seed={i}"], "running") for i in range(4)]
    state = State.new(tmp_path, command, jobs, 4, [])
    for job, epoch in zip(jobs, (1, 3, 1, 1), strict=True):
        state.run_folder(job).mkdir()
        (state.run_folder(job) / "metrics.jsonl").write_text(f'{{"step": 1, "epoch": {epoch}, "val/acc": 0.5}}\n')
    lines = table_lines(state, [Running(jobs, 0, None, 0)], None, [("val/acc", "max")], 3.0, width=80, room=3)
    assert lines[0] == "sweep  0 of 4 done, 4 running, 0 waiting; 0:03" and len(lines) == 2
    assert lines[1].split()[:3] == ["0", "epoch", "3"] and lines[1].endswith("  4 jobs (0 to 3) as one network")


def test_the_live_table_shows_what_differs_in_a_narrow_terminal(tmp_path):
    """Differences stand below the rest if there is no room beside it; all lines are counted, so none scrolls away."""
    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    points = [[f"model.hidden=[{64 * i},32]", f"optimizer.lr=0.0018789{i}", "data=moons"] for i in range(8)]
    jobs = [Job(i, point, "running" if i < 4 else "waiting", values={"val/acc": 0.5}) for i, point in enumerate(points)]
    state = State.new(tmp_path, command, jobs, 8, [])
    for job in jobs[:4]:
        state.run_folder(job).mkdir()
        (state.run_folder(job) / "metrics.jsonl").write_text('{"step": 1, "epoch": 1, "val/acc": 0.5}\n')
    running = [Running([job], 0, None, 0, started=0.0) for job in jobs[:4]]
    for width in (59, 40):
        best = Setting(points[3], [replace(jobs[3], status="finished")])
        lines = table_lines(state, running, best, [("val/acc", "max")], 3.0, width, room=8)
        text = " ".join(" ".join(lines).split())
        assert max(map(len, lines)) <= width and len(lines) <= 4 + 8
        assert all(word in text for word in (*points[0][:2], *points[1][:2], "val/acc 0.5000")) and "moons" not in text
        assert lines[-1].split()[-1] == "optimizer.lr=0.00187893" and "best job 3: val/acc 0.5000 model" in text
    assert lines[-4] == "  and 2 more"


def test_notes_are_wrapped_to_the_terminal(monkeypatch, capsys):
    """And not in a file."""
    Screen().tell(text := "\n" + "a step takes 1.4 times that of one" + " job of them" * 9)
    assert capsys.readouterr().out == text + "\n"
    monkeypatch.setattr("dlrun.sweep.screen.columns", lambda stream, most: 60)
    Screen().tell(text)
    lines = capsys.readouterr().out.splitlines()
    assert " ".join(lines).split() == text.split() and max(map(len, lines)) < 60 and lines[2].startswith("  ")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 9), (5, 3), (20, 5), (60, 10)])
def test_the_live_table_never_scrolls(tmp_path, monkeypatch, capsys, width, height):
    """In a terminal of any size, everything that was drawn can be removed again."""
    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    jobs = [Job(i, [f"optimizer.lr=0.0{i}"], "running", values={"val/acc": 0.5}) for i in range(9)]
    state = State.new(tmp_path, command, jobs, 9, [])
    monkeypatch.setattr(os, "get_terminal_size", lambda fd: os.terminal_size((width, height)))
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1)
    screen = Screen()
    best = Setting(jobs[0].overrides, [replace(jobs[0], status="finished")])
    screen.draw(state, [Running([job], 0, None, 0, started=0.0) for job in jobs], best, [("val/acc", "max")])
    lines = capsys.readouterr().out.splitlines()
    assert screen.lines == len(lines) <= max(1, height - 1) and max(map(len, lines)) <= max(1, width - 1)


def test_two_processes_cannot_resume_a_sweep_at_once(dl_run, refused_sweep):
    """The second is refused, and the message names the first."""
    from filelock import FileLock

    path = refused_sweep[1] / "sweep.json"
    before = path.read_text()
    path.write_text(re.sub(r'"pid": \d+', '"pid": 4321', re.sub(r'"host": "[^"]*"', '"host": "far"', before)))
    try:
        with FileLock(refused_sweep[1] / ".lock"):
            code, _, err = dl_run("-m", "sweep.resume=last")
    finally:
        path.write_text(before)
    assert code == 2 and "is in use: process 4321 on host far runs it\n  wait for it, or stop it" in err


def test_jobs_share_the_cores(monkeypatch):
    """Each has its share of the CPU, unless the user set a number of threads, and a GPU of the pool."""
    from dlrun.sweep import slots as module
    from dlrun.sweep.settings import Grid
    from dlrun.sweep.slots import Slots

    def slots(device: str = "auto", **keys: object) -> Slots:
        default = {"jobs": 1, "threads": None, "gpus": "auto", "jobs_per_gpu": 1, "stack": "off"}
        return Slots.of(Grid(**default | keys, job_timeout=None, resume=None, join=None, retry=None), device)

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(module, "cpus", lambda: 8)
    assert slots() == Slots(1, None, []) and "OMP_NUM_THREADS" not in slots().env(0)
    assert slots(jobs=3) == Slots(3, 2, []) and slots(jobs=3).env(0)["OMP_NUM_THREADS"] == "2"
    assert slots(jobs=3, threads=5).threads == 5 and slots(jobs=9).threads == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-7")
    found = slots(jobs=4, jobs_per_gpu=2)
    assert [found.env(i)["CUDA_VISIBLE_DEVICES"] for i in range(4)] == ["2", "GPU-7", "2", "GPU-7"]
    assert slots("cpu", jobs=4).gpus == [] and slots().gpus == [] and slots(gpus=[5]).gpus == ["5"]
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slots(jobs=2).env(0)["OMP_NUM_THREADS"] == "3"


def test_the_live_table_is_drawn_and_removed(tmp_path):
    """On a terminal: running and waiting jobs and the best so far. A line for each ended job stays."""
    import pty

    master, slave = pty.openpty()
    pretended = json.dumps({"args": ["outputs", 2, 1], "seconds": 0.3})
    arguments, env = [sys.executable, sweeps.__file__, pretended], {**os.environ, "TERM": "xterm"}
    process = subprocess.Popen(arguments, cwd=tmp_path, env=env, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    output = b""
    while True:
        try:
            output += os.read(master, 65536)
        except OSError:  # the other end is closed
            break
    os.close(master)
    assert process.wait(timeout=300) == 0
    text = output.decode().replace("\r\n", "\n")
    assert "sweep  0 of 2 done, 1 running, 1 waiting; 0:0" in text and "starting" in text
    assert "\n  best  job 0: val/loss 0." in text and "\x1b[" in text and "[1/2]" not in text
    after = re.sub(r"\x1b\[\d+A\x1b\[J", "\0", text)  # the live table is taken away: what it drew goes with it
    assert re.search(r"\0job 0 finished in [\d.]+ s: val/loss 0\.\d+\n", after) and after.rstrip().endswith(
        "report.html"
    )
