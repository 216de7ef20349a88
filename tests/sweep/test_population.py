"""Population based training and successive halving between the epochs of a stack."""

import json
import subprocess
import sys
from dataclasses import replace
from math import inf, nan
from random import Random
from types import SimpleNamespace

import pytest
import runs
from runs import SMALL, assert_same, compose, rows
from stacks import together

from dlrun.errors import UserError
from dlrun.output.folders import read_summary
from dlrun.stack.functions import NotStackable
from dlrun.stack.selection import goal_of
from dlrun.sweep.halving import is_rung, to_stop
from dlrun.sweep.job import Job
from dlrun.sweep.outcomes import own_end, record
from dlrun.sweep.population import check, explored, first_values, points, successors, with_seeds
from dlrun.sweep.settings import Population, Search
from dlrun.sweep.space import read_axes

RATE, RESET = "optimizer.lr=tag(log,interval(1e-4,1e-1))", "task.l2=choice(0.001,1e-5,0.1)"
PBT = Population(None, [], None, None, 6, 1, 0.34, [0.5, 2.0], 0.0, 0, {})
ASHA = Search(
    1, None, [], 1, "auto", None, None, None, None, 8, "random", "asha", 5, 1, 25.0, 2, 0, None, None, None, {}
)


def test_members_start_anywhere_and_are_the_same_each_time():
    axes = read_axes(with_seeds([RATE, "seed=5", RESET, "data=moons"], PBT))
    found = points(PBT, axes)
    assert found == points(PBT, axes) != points(replace(PBT, seed=1), axes)
    assert [row[-1] for row in found] == [f"seed={n}" for n in range(5, 11)]
    assert all(float(row[1].removeprefix("task.l2=")) in (0.001, 1e-5, 0.1) for row in found)
    rates = [first_values(PBT, axes, n)["optimizer.lr"] for n in range(200)]
    assert 1e-4 <= min(rates) < 2e-4 and 5e-2 < max(rates) <= 0.1
    assert sum(rate < 10**-2.5 for rate in rates) == pytest.approx(100, abs=25)  # uniform in the logarithm
    (whole,) = read_axes(["trainer.clip_norm=int(interval(1,3))"])
    counts = [sum(first_values(PBT, [whole], n)["trainer.clip_norm"] == x for n in range(300)) for x in (1, 2, 3)]
    assert sum(counts) == 300 and min(counts) > 70


def test_the_worst_continue_from_the_best():
    axes = read_axes([RATE, RESET])
    values = {n: {"optimizer.lr": 10.0**-n, "task.l2": 0.001} for n in range(1, 7)}
    scores = {1: 0.5, 2: 0.9, 3: nan, 4: -inf, 5: 0.95, 6: 0.6}
    found = successors(PBT, axes, 3, scores, values)
    assert [each.member for each in found] == [3, 4] and {each.source for each in found} <= {5, 2}
    assert found == successors(PBT, axes, 3, dict(reversed(scores.items())), values)
    for each in found:
        rate = values[each.source]["optimizer.lr"]
        assert each.values["optimizer.lr"] in (max(1e-4, 0.5 * rate), max(1e-4, 2 * rate))
        assert each.values["task.l2"] in (1e-5, 0.1)  # the next listed values
    assert {each.source for epoch in range(9) for each in successors(PBT, axes, epoch, scores, values)} == {5, 2}
    assert successors(replace(PBT, ready_epochs=2), axes, 3, scores, values) == []
    assert [each.member for each in successors(PBT, axes, 1, {1: 0.1, 2: 0.2}, values)] == [1]
    assert successors(PBT, axes, 1, {1: 0.1}, values) == []
    anew = {explored(axes[0], 0.01, replace(PBT, resample=1.0), Random(n)) for n in range(9)}
    assert len(anew) == 9


@pytest.mark.parametrize(
    ("space", "change", "text"),
    [
        ([], {}, "sweep=pbt: the space is empty"),
        (["model=mlp,linear"], {}, "model=mlp,linear: model cannot change within a run\n  expected one of optimizer"),
        (["data.batch_size=8,16"], {}, "data.batch_size cannot change within a run"),
        (["trainer.patience=int(interval(1,4))"], {}, "trainer.patience cannot change within a run"),
        (["zip(optimizer.lr=[1,2],task.l2=[0,1])"], {}, "optimizer.lr,task.l2 cannot change within a run"),
        (["optimizer.nesterov=true,false"], {}, "optimizer.nesterov=true,false: expected numbers, such as"),
        (["model.dropout=interval(0,0.5)"], {}, r"=0 would change .*\n  expected values > 0, such as interval"),
        ([RATE], {"factors": []}, "sweep.factors=.*: expected at least one factor"),
        ([RATE], {"ready_epochs": 4}, "sweep.ready_epochs=4 with trainer.epochs=4: no member would ever be replaced"),
    ],
)
def test_a_population_that_cannot_start(space, change, text):
    named = [f"pair={each}" if each.startswith("zip") else each for each in space]
    with pytest.raises(UserError, match=text):
        check(replace(PBT, **change), read_axes(with_seeds(named, PBT)), 4)
    with pytest.raises(UserError, match="seed=1,2 with sweep=pbt: each member has a seed of its own"):
        with_seeds(["seed=1,2"], PBT)


def test_halving_keeps_the_best_at_each_rung():
    assert [epoch for epoch in range(1, 40) if is_rung(ASHA, epoch)] == [1, 2, 4, 8, 16, 32]
    late = replace(ASHA, pruner_warmup_epochs=3, reduction=4)
    assert [epoch for epoch in range(1, 60) if is_rung(late, epoch)] == [3, 12, 48]
    scores = {0: 0.1, 1: 0.4, 2: nan, 3: 0.4, 4: 0.3, 5: 0.2, 6: -inf, 7: 0.9}
    assert to_stop(ASHA, 1, scores) == [0, 2, 5, 6]
    assert to_stop(replace(ASHA, reduction=4), 1, scores) == [0, 2, 4, 5, 6]  # the second best are two
    assert to_stop(replace(ASHA, reduction=9), 1, scores) == [0, 1, 2, 3, 4, 5, 6]
    assert to_stop(ASHA, 3, scores) == [] and to_stop(ASHA, 2, {4: nan, 5: nan}) == [5]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    data_dir = runs.write_mnist(tmp_path_factory.mktemp("data"))
    common = ["model.dropout=0.2", "optimizer=adamw", "trainer.epochs=5", "trainer.checkpoint_every_steps=1"]
    return lambda *overrides: compose(f"data_dir={data_dir}", *SMALL, *common, *overrides)


SPACE = [RATE, "model.dropout=interval(0.1,0.5)", "optimizer.weight_decay=choice(0.01,0.1)"]


@pytest.mark.thorough
def test_a_population_that_was_killed_ends_with_the_same_bits(config, tmp_path, monkeypatch):
    """Kills right after an exchange, in mid-epoch, and in the last epoch; one member leaves early."""
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    axes = read_axes(with_seeds(SPACE, PBT))
    words = [[each for each in point] for point in points(PBT, axes)]
    configs = [config(*point, *(["trainer.patience=3"] if n == 2 else [])) for n, point in enumerate(words)]
    population = {"settings": PBT, "axes": axes}
    assert together(tmp_path / "whole", configs, **population)
    for kill_at in (6, 13):
        assert not together(tmp_path / "cut", configs, kill_at=kill_at, **population)
    assert together(tmp_path / "cut", configs, **population)
    copies = 0
    for number in range(6):
        whole, cut = (tmp_path / kind / str(number) for kind in ("whole", "cut"))
        assert_same(whole, cut)
        found = [row for row in rows(whole) if "val/acc" in row]
        assert found[0]["pbt/optimizer.lr"] == first_values(PBT, axes, number)["optimizer.lr"]
        for before, row in zip(found, found[1:], strict=False):
            moved = row["pbt/copies"] - before["pbt/copies"]
            assert moved == ("pbt/from" in row)
            if moved:  # exactly the weights and values of the other one, varied
                source = [r for r in rows(tmp_path / "whole" / str(row["pbt/from"])) if "val/acc" in r]
                rate = source[before["epoch"] - 1]["pbt/optimizer.lr"]
                assert row["pbt/optimizer.lr"] in (*(pytest.approx(by * rate, rel=1e-5) for by in (0.5, 2)), 1e-4, 0.1)
                assert row["lr"] == row["pbt/optimizer.lr"]
        copies += found[-1]["pbt/copies"]
        record(job := Job(number, []), whole, 0)
        assert job.values["pbt/copies"] == found[-1]["pbt/copies"] and "pbt/from" not in job.values
    assert copies == 8  # two of six after each of four epochs
    assert "continuing from the weights of job" in "".join(p.read_text() for p in tmp_path.glob("whole/*/run.log"))


@pytest.mark.thorough
def test_a_search_that_halves_its_stack_and_was_killed(config, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    rates = enumerate((1e-4, 1e-2, 0.03, 1e-3, 0.1, 1.0))
    configs = [config(f"seed={n}", f"optimizer.lr={lr}", "trainer.monitor=val/loss") for n, lr in rates]
    assert together(tmp_path / "whole", configs, settings=ASHA)
    for kill_at in (4, 6):
        assert not together(tmp_path / "cut", configs, kill_at=kill_at, settings=ASHA)
    assert together(tmp_path / "cut", configs, settings=ASHA)
    ends = {n: len([row for row in rows(tmp_path / "whole" / str(n)) if "val/acc" in row]) for n in range(6)}
    scores = [[row["val/loss"] for row in rows(tmp_path / "whole" / str(n)) if "val/acc" in row] for n in range(6)]
    assert sorted(ends.values())[0] == 1 and sorted(ends.values())[-1] == 5
    kept = [n for n in ends if ends[n] > 1]
    assert sorted(scores[n][0] for n in kept) == sorted(each[0] for each in scores)[:3]
    for n in range(6):
        assert_same(tmp_path / "whole" / str(n), tmp_path / "cut" / str(n))
        end, asked = own_end(tmp_path / "cut" / str(n), 0, None)
        record(job := Job(n, []), tmp_path / "cut" / str(n), end, [("val/loss", "min")], asked)
        assert job.status == ("finished" if ends[n] == 5 else "pruned") and job.values["val/loss"] == min(scores[n])


def test_the_goal_by_which_jobs_are_compared():
    def member(best: object) -> SimpleNamespace:
        task = SimpleNamespace(scores={"loss": "min", "acc": "max"})
        return SimpleNamespace(training=SimpleNamespace(best=best), session=SimpleNamespace(task=task))

    best = SimpleNamespace(metric="acc")
    assert goal_of(member(best), None, None) == ("val/acc", 1) and goal_of(member(best), "val/loss", None)[1] == -1
    assert goal_of(member(None), "val/x", "max") == ("val/x", 1)
    with pytest.raises(NotStackable, match="no goal by which jobs could be compared: expected a val metric as trainer"):
        goal_of(member(None), None, None)
    with pytest.raises(UserError, match="sweep.goal=val/los is not measured here; did you mean 'val/loss'"):
        goal_of(member(best), "val/los", None)


@pytest.mark.slow
def test_a_population_in_one_command(tmp_path):
    def dl_run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "dlrun", "-m", *words, f"output_dir={tmp_path}"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    small = ["sweep=pbt", "sweep.population=6", "data=moons", "trainer.epochs=4", RATE]
    done = dl_run(*small)
    assert done.returncode == 0 and "pbt/copies" in done.stdout, done
    (sweep,) = tmp_path.glob("*/*_sweep")
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert sum(job["values"]["pbt/copies"] for job in jobs) == 3
    assert (sweep / "best" / "plots" / "loss.png").exists() and "dl-run -m sweep=pbt sweep.population=6" in done.stdout
    for words, text in (
        ([*small, "task.mixup=0.2"], "6 jobs (0 to 5) cannot train as one network: task.mixup or task.cutmix has no"),
        ([*small, "sweep.jobs=2"], "sweep.jobs=2: sweep has no 'jobs'"),
        ([*small, "sweep.population=1"], "sweep.population=1: expected an integer in [2, 1000]"),
        (
            [*small, "seeds=4"],
            "seeds=4 with sweep=pbt: expected seeds of new runs, without a mode, a search or a population",
        ),
    ):
        done = dl_run(*words)
        assert done.returncode == 2 and text in done.stderr, done
    assert read_summary(sweep / "0")["status"] == "finished"
