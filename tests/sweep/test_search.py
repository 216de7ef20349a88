"""Spaces and their refusals; the search: by every sampler, killed at any point, pruned, in a database."""

import json
import sys
from pathlib import Path

import pytest
from searches import LINE, LOG, settings
from test_sweep_killed import left_running, of, results, start, state, trials

from dlrun.config.zips import is_zip
from dlrun.errors import UserError
from dlrun.sweep.axes import Axis, grid
from dlrun.sweep.opening import existing_sweep, new_sweep, reopen
from dlrun.sweep.report import closing
from dlrun.sweep.search import Optuna
from dlrun.sweep.space import read_axes
from dlrun.sweep.study import published

WIDTH = Axis(["n"], [], (1, 64, True, True), "n=tag(log,int(interval(1,64)))")
CHOICE = Axis(["net"], [["net=a"], ["net=b"], ["net=c"]], None, "net=choice(a,b,c)")
PAIRS = Axis(["k", "m"], [["k=1", "m=[2]"], ["k=3", "m=[4]"]], None, "zip(k=choice(1,3),m=choice([2],[4]))")
FIXED = Axis(["epochs"], [["epochs=3"]], None, "epochs=3")


# --- spaces -----------------------------------------------------------------------------------------------------------


def test_axes_are_read_and_multiplied():
    axes = read_axes(["a=1,2", "+b=choice([1],[2,3])", "c=range(0,3)", "d=x y", "~e", "a=3,4"], None)
    assert [axis.name for axis in axes] == ["a", "b", "c", "d", "~e"]
    points = grid(axes)
    assert len(points) == 12 and points[0] == ["a=3", "+b=[1]", "c=0", "d=x\\ y", "~e"]
    assert points[-1] == ["a=4", "+b=[2,3]", "c=2", "d=x\\ y", "~e"]
    (axis,) = read_axes(["n=tag(log,int(interval(1,64)))"], None)
    assert (axis.keys, axis.interval) == (["n"], (1, 64, True, True))


@pytest.mark.parametrize(
    "text",
    [
        "pair=zip(a.b=choice([1],[2,3]),c=[x,y])",
        "zip( a.b=choice([1],[2,3]) , c=choice(x,y))",
    ],
)
def test_zipped_values_go_together(text):
    assert is_zip(text)
    (pair, seed) = read_axes([text, "seed=0,1"], None)
    assert pair.rows == [["a.b=[1]", "c=x"], ["a.b=[2,3]", "c=y"]] and pair.name == "a.b,c"
    assert grid([pair, seed])[1] == ["a.b=[1]", "c=x", "seed=1"] and len(grid([pair, seed])) == 4


def test_a_comma_in_a_zip_stands_between_two_parameters():
    with pytest.raises(UserError, match="cannot read 'y'\n  expected zip"):
        read_axes(["zip(a.b=[[1],[2,3]],c=x,y)"], None)


BAD = {
    "a=choice()": "a=choice(): it has no values\n  expected at least one",
    "a=range(3,3)": "a=range(3,3): it has no values",
    "a=range(0,3,0)": "a=range(0,3,0): its step is 0",
    "a=interval(2,1)": "its bounds are in the wrong order: expected interval(1,2)",
    "a=interval(1,1)": "its bounds are equal",
    "a=interval(0,inf)": "its bounds are 0.0 and inf\n  expected two finite numbers",
    "a=tag(log,interval(0,1))": "a logarithmic scale does not contain 0\n  expected bounds > 0, such as tag(log,",
    "a=tag(log,interval(-1,1))": "a logarithmic scale does not contain -1",
    "a=tag(lg,interval(1,2))": "there is no tag 'lg'; did you mean 'log'?",
    "a=tag(log,choice(1,2))": "only an interval can have a scale",
    "zip(a=choice(1,2))": "it has only one key",
    "zip(a=choice(1,2),a=choice(3,4))": "it has a key twice",
    "zip(a=choice(1,2),b=choice(3,4,5))": "a has 2, b has 3\n  expected the same number of values",
    "zip(a=interval(1,2),b=choice(3,4))": "interval(1,2) has no fixed order",
    "zip(a=shuffle(1,2),b=choice(3,4))": "shuffle(1,2) has no fixed order",
    "zip(a=1,b=choice(3,4))": "a has only one value",
    "zip(a,b=choice(3,4))": "cannot read 'a'",
}


@pytest.mark.parametrize("text", BAD)
def test_invalid_spaces_are_refused(text):
    with pytest.raises(UserError) as error:
        read_axes([text], None)
    assert str(error.value).startswith(f"{text}: ") and BAD[text] in str(error.value)


def test_a_parameter_in_two_axes_is_refused():
    with pytest.raises(UserError, match="a is also in a=1,2\n  expected each parameter only once"):
        read_axes(["a=1,2", "zip(a=[1,2],b=[3,4])"], None)


# --- the search -------------------------------------------------------------------------------------------------------

REFUSED = [
    ({}, [FIXED], "sweep=optuna: the space is empty\n  expected at least one parameter"),
    ({"sampler": "cmaes"}, [LOG, CHOICE], "net=choice(a,b,c): sweep.sampler=cmaes takes numbers"),
    ({"sampler": "cmaes"}, [LOG], "sweep.sampler=cmaes works with two parameters or more"),
    ({"sampler": "grid"}, [LOG], "sweep.sampler=grid takes values"),
    ({"goal": "test/acc"}, [LOG], "sweep.goal=test/acc: the test split must not be used for selection"),
    (
        {"goal": ["val/acc", "val/loss"], "pruner": "asha"},
        [LOG],
        "sweep.pruner=asha works with one goal, but there are 2",
    ),
    (
        {"goal": ["val/acc", "val/loss"], "direction": ["max"]},
        [LOG],
        'sweep.direction=["max"]: there are 2 goals\n  expected one for each',
    ),
    ({"storage": "nodb://me:secret@here/x"}, [LOG], "sweep.storage=nodb://me:***@here/x: nodb:// could run code"),
    (
        {"storage": "sqlite:////no/such/folder/x.db"},
        [LOG],
        "cannot reach it: (sqlite3.OperationalError) unable to open",
    ),
]


@pytest.mark.parametrize(("keys", "axes", "text"), REFUSED)
def test_a_search_that_cannot_start_is_refused(keys, axes, text):
    with pytest.raises(UserError) as error:
        Optuna(settings(**keys), axes, 3)
    assert text in str(error.value)


def test_a_search_without_optuna_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UserError, match=r"not installed here: .*\n  install it: .* -m pip install .*optuna<6,>=5"):
        Optuna(settings(), [LOG], 3)


def search(folder: Path, axes: list[Axis], num: int, killed: bool, **keys: object) -> list[list[str]]:
    """Ask and tell in this process; returns the points. killed: after each step keep only what is on the disk."""
    chosen, points = settings(trials=num, **keys), []
    goal = {"status": "finished", "goal": "val/loss", "scores": {"val/loss": "min", "val/acc": "max"}}

    def opened() -> object:
        there = list(folder.glob("*/*_sweep"))
        if there:
            return existing_sweep(there[0], chosen, lambda state, how: None)
        return new_sweep(
            folder,
            chosen,
            {"command": [], "flags": [], "arguments": [], "configs": ""},
            [],
            {"multirun.yaml": "", "base": {}},
        )

    while len(points) < num:
        with opened() as now:
            plan = Optuna(chosen, axes, 3)
            plan.open(now)
            while (job := plan.more(now)) is not None:
                if killed and job.number == len(points) and job.number % 3 == 1 and not hasattr(search, "died"):
                    search.died = True  # asked, but not yet in the state
                    break
                vars(search).pop("died", None)
                points.append(job.overrides)
                run = now.run_folder(job)
                run.mkdir(exist_ok=True)
                (run / "summary.json").write_text(json.dumps(goal))
                job.status, job.values = (
                    "finished",
                    {"val/loss": len(str(job.overrides)) + job.number % 5, "val/acc": 0.5},
                )
                if killed and job.number % 2:
                    now.save()
                    break  # the study does not know it yet
                plan.tell(job, run)
                now.save()
                if killed:
                    break
            else:
                break
    with opened() as now:  # of the trial that the study did not know
        plan = Optuna(chosen, axes, 3)
        plan.open(now)
        assert plan.more(now) is None
    return points


@pytest.mark.parametrize(("stack", "sizes"), [(4, [4, 4, 2]), ("auto", [8, 2])])
def test_points_are_chosen_at_a_time_for_stacks(stack, sizes, tmp_path):
    """Points that differ only in rates train together; no point is chosen twice."""
    chosen, rate = settings(trials=10), Axis(["optimizer.lr"], [], (1e-4, 1e-1, True, False), "")
    files = {"multirun.yaml": "", "base": {}}
    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    found = []
    with new_sweep(tmp_path, chosen, command, [], files) as now:
        plan = Optuna(chosen, [rate, CHOICE], 3, stack)
        plan.open(now)
        while (first := plan.more(now)) is not None:
            jobs = now.jobs[first.number :]
            for net in "abc":
                mine = [job for job in jobs if f"net={net}" in job.overrides]
                number = mine[0].number if len(mine) > 1 else None
                assert {job.stack for job in mine} <= {number}
            for job in jobs:
                job.status, job.values = "finished", {"val/loss": job.number % 3, "val/acc": 0.5}
                now.run_folder(job).mkdir()
                goal = {"status": "finished", "goal": "val/loss", "scores": {"val/loss": "min"}}
                (now.run_folder(job) / "summary.json").write_text(json.dumps(goal))
                plan.tell(job, now.run_folder(job))
            found.append(len(jobs))
        assert found == sizes and len({tuple(job.overrides) for job in now.jobs}) == 10
        assert Optuna(settings(pruner="median"), [rate], 3, stack).stack == "off"
        assert Optuna(settings(pruner="asha"), [rate], 3, stack).stack == stack  # stack/selection.py


@pytest.mark.thorough(but=["grid-axes2", "tpe-axes0"])
@pytest.mark.parametrize(
    ("sampler", "axes"),
    [
        ("tpe", [LOG, PAIRS, FIXED, CHOICE, WIDTH]),
        ("random", [LOG, LINE, CHOICE]),
        ("grid", [CHOICE, FIXED, PAIRS]),
        ("cmaes", [LOG, LINE, WIDTH]),
        ("qmc", [LOG, LINE]),
    ],
)
def test_a_search_that_is_killed_asks_for_the_same_points(tmp_path, sampler, axes):
    """Killed between asking and saving, or between the end of a job and telling: no point is lost or repeated."""
    num = 6 if sampler == "grid" else 14
    whole = search(tmp_path / "whole", axes, num, False, sampler=sampler)
    assert search(tmp_path / "killed", axes, num, True, sampler=sampler) == whole
    assert len(set(map(str, whole))) == num
    for axis in axes:
        values = [dict(o.partition("=")[::2] for o in point)[axis.keys[0]] for point in whole]
        if axis.interval:
            low, high, _, is_int = axis.interval
            assert all(low <= float(v) <= high for v in values) and (not is_int or all(v.isdigit() for v in values))
        else:
            assert {f"{axis.keys[0]}={v}" for v in values} == {row[0] for row in axis.rows}


@pytest.mark.thorough
def test_several_goals_are_kept_in_a_database(tmp_path):
    import optuna

    url = f"sqlite:///{tmp_path / 'x.db'}"
    search(tmp_path / "a", [LOG], 4, True, sampler="random", goal=["val/loss", "val/acc"], storage=url)
    study = optuna.load_study(study_name=state(tmp_path / "a")["study"], storage=url)
    assert [t.state.name for t in study.trials] == ["COMPLETE"] * 4
    found = {job["trial"]: job["values"] for job in state(tmp_path / "a")["jobs"]}
    assert {t.number: t.values for t in study.trials} == {n: [-v["val/loss"], v["val/acc"]] for n, v in found.items()}


def test_two_machines_share_a_database(tmp_path):
    """Each trial runs once, and their number is right; one that a kill left open returns to its own folder."""
    import optuna

    url, points = f"sqlite:///{tmp_path / 'x.db'}", []
    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    files = {"multirun.yaml": "", "base": {}}
    chosen = settings(trials=9, storage=url, sampler="random")
    with new_sweep(tmp_path / "a", chosen, command, [], files) as a:
        mine = Optuna(chosen, [LOG], 3)
        mine.open(a)
        name, facts = published(url, "sweep.join")
        assert name == a.facts["study"] and facts["total"] == 9
        theirs = settings(trials=9, storage=url, sampler="random", join=name)
        with new_sweep(tmp_path / "b", theirs, {**command, "study": name}, [], files) as b:
            other = Optuna(theirs, [LOG], 3)
            other.open(b)
            for plan, state in [(mine, a), (other, b)] * 2 + [(other, b)]:
                points.append(plan.more(state).overrides)
            left = other.more(b)
            b.jobs.remove(left)  # killed before it was saved
            for plan, state in [(mine, a), (other, b), (mine, a), (other, b)]:
                points += [job.overrides] if (job := plan.more(state)) else []
            assert mine.more(a) is None and other.more(b) is None
            assert left.overrides in points and len(set(map(str, points))) == len(points) == 9
            assert (a.total, b.total) == (len(a.jobs), len(b.jobs)) and len(a.jobs) + len(b.jobs) == 9
            study = optuna.load_study(study_name=name, storage=url)
            assert sorted(job.trial for job in a.jobs + b.jobs) == [t.number for t in study.trials]
    command["configs"] = "others"
    with new_sweep(tmp_path / "c", theirs, {**command, "study": name}, [], files) as c:
        with pytest.raises(UserError, match="the configs here differ from those of the sweep's start"):
            Optuna(theirs, [LOG], 3).open(c)


def test_a_changed_number_of_trials_is_kept(tmp_path):
    """Raised on resuming, it becomes the sweep's own: for later resumes, joins and printed commands."""
    words = ["sweep=optuna", "sweep.trials=2", "sweep.jobs=2"]
    command = {"command": words, "flags": [], "arguments": [], "configs": ""}
    with new_sweep(tmp_path, settings(trials=2), command, [], {"multirun.yaml": "", "base": {}}) as state:
        folder = state.folder
    for num, text in ((5, "5 jobs are left"), (5, "5 jobs are left"), (1, "1 job is left")):
        with existing_sweep(folder, settings(trials=num), lambda state, how: None) as state:
            with state.alone():
                Optuna(settings(trials=num), [LOG], 3).open(state)
            assert text in closing(state, stopped=2)
        for key in ("sweep.resume", "sweep.join"):
            found = reopen(key, str(folder), "outputs", [])[1]
            assert found == ["sweep=optuna", "sweep.jobs=2", f"sweep.trials={num}", "--multirun"]


def test_a_search_through_a_grid_ends_with_it(tmp_path):
    """No trials are left for which the grid has no points."""
    chosen = settings(trials=20, sampler="grid")
    command = {"command": ["sweep=optuna"], "flags": [], "arguments": [], "configs": ""}
    with new_sweep(tmp_path, chosen, command, [], {"multirun.yaml": "", "base": {}}) as state, state.alone():
        Optuna(chosen, [CHOICE, FIXED, PAIRS], 3).open(state)
        assert state.total == 6 and state.facts["command"] == ["sweep=optuna", "sweep.trials=6"]


@pytest.mark.thorough
def test_a_changed_number_of_trials_is_reported_to_other_machines(tmp_path):
    """Those who join through the database see it, and so does a folder that joined earlier and resumes."""
    url = f"sqlite:///{tmp_path / 'x.db'}"
    command = {"command": ["sweep=optuna", "sweep.trials=2"], "flags": [], "arguments": [], "configs": ""}

    def opened(opening: object, name: str, trials: int, **keys: object) -> int:
        chosen = settings(trials=trials, storage=url, **keys)
        with opening(chosen) as state, state.alone():
            Optuna(chosen, [LOG], 3).open(state)
            folders[name] = state.folder
            return state.facts["total"]

    def begin(name: str) -> object:
        study = {"study": published(url, "sweep.join")[0]} if folders else {}
        return lambda chosen: new_sweep(tmp_path / name, chosen, command | study, [], {"multirun.yaml": "", "base": {}})

    def go_on(name: str) -> object:
        return lambda chosen: existing_sweep(folders[name], chosen, lambda state, how: None)

    folders: dict[str, Path] = {}
    assert opened(begin("a"), "a", 2) == 2 and opened(begin("b"), "b", 2, join="the study") == 2
    assert opened(go_on("a"), "a", 7) == 7 and published(url, "sweep.join")[1]["command"][-1] == "sweep.trials=7"
    assert opened(go_on("b"), "b", 2) == 7, "as nothing else was said here"
    assert opened(go_on("b"), "b", 7) == 7, "by the command that was kept"
    assert opened(begin("c"), "c", 7, join="the study") == 7 and opened(go_on("b"), "b", 9) == 9
    assert published(url, "sweep.resume")[1]["total"] == 9 and opened(go_on("a"), "a", 7) == 9


@pytest.mark.thorough
def test_failed_jobs_are_repeated_and_trials_added(tmp_path):
    """Optuna's trials are final: a job that finishes at its second attempt is a new trial, once; 5 jobs become 7."""
    assert start(tmp_path / "a", 5, 2, do={"1": "raise", "3": "exit"}, sampler="random").wait(timeout=300) == 0
    assert [job[2] for job in results(tmp_path / "a")] == ["finished", "failed", "finished", "failed", "finished"]
    for _ in range(2):
        assert start(tmp_path / "a", 7, 2, retry="failed", sampler="random").wait(timeout=300) == 0
    jobs = state(tmp_path / "a")["jobs"]
    assert [job["status"] for job in jobs] == ["finished"] * 7
    found = [(number, value) for number, kind, value in sorted(trials(tmp_path / "a"), key=str) if kind == 1]
    assert sorted(value for _, value in found) == sorted(-job["values"]["val/loss"] for job in jobs)
    assert len(trials(tmp_path / "a")) == 9, "7 and the two that failed"


@pytest.mark.thorough
def test_a_goal_that_no_job_measures_is_reported_after_the_first_job(tmp_path):
    """With a direction the goal may be any metric; the first job that finishes without it reports that."""
    process = start(tmp_path / "a", 4, 1, goal="val/los", direction="min", sampler="random")
    assert process.wait(timeout=300) == 1 and not left_running(tmp_path / "a")
    log = (tmp_path / "a.log").read_text()
    assert "sweep.goal=val/los: job 0 finished without measuring it; did you mean 'val/loss'?\n  expected" in log


def test_a_goal_that_is_not_measured_is_refused(tmp_path):
    """It is known only after the first job: the sweep ends there."""
    process = start(tmp_path / "a", 4, 1, goal="val/f1", seconds=0.3, sampler="random")
    assert process.wait(timeout=300) == 1 and not left_running(tmp_path / "a")
    log = (tmp_path / "a.log").read_text()
    assert "sweep.goal=val/f1 is not measured here\n  expected one of: val/loss\n" in log


@pytest.mark.parametrize("pruner", ["median", "percentile", "asha", "hyperband"])
def test_hopeless_jobs_are_recognised_by_their_epochs(tmp_path, pruner):
    """Ten jobs whose curves never cross: the worse ones are stopped, and never the best."""
    chosen = settings(trials=10, sampler="qmc", pruner=pruner, pruner_startup=2, percentile=40.0, reduction=2)
    files = {"multirun.yaml": "", "base": {}}
    command = {"command": [], "flags": [], "arguments": [], "configs": "", "study": "as hyperband draws by its name"}
    with new_sweep(tmp_path, chosen, command, [], files) as now:
        plan, stopped = Optuna(chosen, [LINE], 16), {}
        plan.open(now)
        while (job := plan.more(now)) is not None:
            run, p = now.run_folder(job), float(job.overrides[0][2:])
            run.mkdir()
            (run / "summary.json").write_text('{"goal": "val/loss", "scores": {"val/loss": "min"}}')
            for epoch in range(1, 17):
                with open(run / "metrics.jsonl", "a") as file:
                    file.write(json.dumps({"epoch": epoch, "val/loss": p + 1 / epoch}) + "\n")
                if plan.is_hopeless(job, run):
                    stopped[p] = epoch
                    break
            assert epoch == 16 or p in stopped
            job.status, job.values = "pruned" if p in stopped else "finished", {"val/loss": p + 1 / epoch}
            plan.tell(job, run)
        points = sorted(float(job.overrides[0][2:]) for job in now.jobs)
        assert 2 <= len(stopped) <= 9 and points[0] not in stopped and max(stopped.values()) < 16
        kinds = [trial.state.name for trial in plan.study.get_trials(deepcopy=False)]
        assert kinds.count("PRUNED") == len(stopped) and kinds.count("COMPLETE") == 10 - len(stopped)


@pytest.mark.thorough
def test_hopeless_jobs_are_stopped_with_a_checkpoint(tmp_path):
    keys = {"epochs": 16, "seconds": 0.08, "sampler": "qmc", "pruner": "asha", "reduction": 2}
    assert start(tmp_path / "a", 6, 3, **keys).wait(timeout=300) == 0
    jobs = results(tmp_path / "a")
    pruned = [job for job in jobs if job[2] == "pruned"]
    assert pruned and {job[2] for job in jobs} == {"pruned", "finished"}
    for number, _, _, values, rows in pruned:
        assert len(rows) < 16 and values == {"val/loss": min(row["val/loss"] for row in rows)}
        saved = int((of(tmp_path / "a") / str(number) / "checkpoints" / "last.ckpt").read_text())
        assert saved in (len(rows), len(rows) - 1)
    assert min((abs(float(job[1][0][2:]) - 0.3), job[2]) for job in jobs)[1] == "finished"
