"""The report of a sweep: it agrees with the results of the jobs, and its page is self-contained."""

import json
import math
import random
import re
import shlex
from html.parser import HTMLParser
from pathlib import Path

import pytest

from dlrun.sweep.goals import best_settings, over_seeds
from dlrun.sweep.importance import importance
from dlrun.sweep.job import Job
from dlrun.sweep.page import curve, parameters
from dlrun.sweep.report import Report, closing, report
from dlrun.sweep.state import State


def made(folder: Path, jobs: list[Job]) -> State:
    command = {"command": [], "flags": ["--config-dir=my configs"], "arguments": ["lr=..."]}
    state = State.new(folder, command, jobs, len(jobs), [["val/acc", "max"]])
    for job in jobs:
        state.run_folder(job).mkdir(parents=True)
        rows = [
            {"step": e, "epoch": e, "val/acc": 0.1 * e, "val/loss": float("inf") if e > 1 else 1.0} for e in (1, 2, 3)
        ]
        text = "".join(json.dumps(row).replace("Infinity", "null") + "\n" for row in rows)
        (state.run_folder(job) / "metrics.jsonl").write_text(text + '{"step": 4, "ep')
    return state


class Page(HTMLParser):
    """Tags that load something, and the data."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads, self.opened, self.data = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.opened.append((tag, dict(attributes)))
        self.loads += [value for key, value in attributes if key in ("src", "href", "srcset", "action")]

    def handle_data(self, text: str) -> None:
        if self.opened and self.opened[-1] == ("script", {"id": "data", "type": "application/json"}):
            self.data += text


def test_tables_fit_a_terminal():
    """The overrides are folded where leaving out columns is not enough; no word of them is lost."""
    own = [f"optimizer.lr=0.00{n}123456 schedule=cosine_with_a_long_name task.label_smoothing=0.{n}" for n in range(2)]
    common = ["data=digits", "output_dir=/tmp/a/long/path/for/all/of/them", "model.hidden=[16,16]"]
    jobs = [Job(n, [*common, *own[n // 2].split(), f"seed={n % 2}"], "finished", 0, 1.5) for n in range(4)]
    for job in jobs:
        job.values = {"val/acc": 0.5, "test/acc": 0.4, "test/loss": 1.0}
    text = report(jobs, 80)
    assert max(map(len, text.splitlines())) < 80 <= max(map(len, report(jobs).splitlines()))
    assert text.startswith("all jobs with data=digits output_dir=/tmp/a/long/path/for/all/of/them\n  model.hidden=")
    assert sorted(re.findall(r"\w[\w.]*=[\w.]+", text)) == sorted(re.findall(r"\w[\w.]*=[\w.]+", report(jobs)))


def test_a_table_keeps_the_goals_and_each_table_what_fits_it():
    """Overrides are folded before the goal on test is left out; the means are wider than the values of the jobs."""
    jobs = [Job(n, ["model=mlp", f"seed={n}"], "finished", 0, 1.5) for n in range(2)]
    for one in jobs:
        one.values = {"val/acc": 0.5, "pbt/optimizer.lr": 0.1, "test/acc": 0.4 + one.number, "test/loss": 1.0}
    heads = [text.splitlines()[0].split() for text in report(jobs, 78).split("\n\n")[1:]]
    assert heads[0] == ["job", "val/acc", "test/acc", "pbt/optimizer.lr", "test/loss", "seconds", "status"]
    assert heads[1] == ["mean", "+/-", "std", "over", "seeds", "val/acc", "test/acc", "seeds"]
    for n, one in enumerate(jobs):
        one.overrides = [f"optimizer.lr=0.00{n}123456", f"task.l2=0.0000{n}654321", f"seed={n}"]
    text = report(jobs, 80)
    assert "  val/acc  test/acc  seconds    status\n" in text and max(map(len, text.splitlines())) < 80
    jobs = [Job(n, [f"seed={n}"]) for n in range(2)]
    assert report(jobs, 30).splitlines()[0].split() == ["job", "seconds", "status"]


def test_the_advice_can_be_pasted_from_a_narrow_terminal(tmp_path, monkeypatch):
    """The shell reads the words that were typed, from lines that fit the terminal."""
    odd = "model.hidden=[16, 16] it's"
    words = ["data=digits", odd, "model.activation=tanh", "trainer.max_steps=100", "trainer.log_every=0"]
    state = made(tmp_path / "a folder of a sweep", [job(i, 0.5, *words, f"seed={i}") for i in range(2)])
    state.jobs += [
        Job(2, [*words, "seed=2"], "failed", 1, error="dl-run: the loss is not finite, " + "and so on " * 9),
        Job(3, [*words, "seed=3"]),
    ]
    (whole,) = (line for line in closing(state, 0).splitlines() if line.startswith("  dl-run"))
    monkeypatch.setattr("dlrun.sweep.report.columns", lambda stream, most: 60)
    lines = closing(state, 0).splitlines()
    longest = max(len(line) for line in lines if str(tmp_path) not in line)
    assert longest < 60, "all but what cannot be broken"
    commands = re.findall(r"^  dl-run(?:.*\\\n)*.*", "\n".join(lines), re.MULTILINE)
    assert "\\\n" in commands[0]
    assert [shlex.split(each.replace("\\\n", "")) for each in commands] == [  # what a shell does first
        shlex.split(whole),
        ["dl-run", "-m", f"sweep.resume={state.folder}"],
    ]
    state.jobs[3].status = "finished"
    assert "repeat the failed jobs with:\n  dl-run -m \\\n    'sweep.resume=" in closing(state, 0)


def test_the_page_is_complete_and_loads_nothing(tmp_path):
    odd = "data.labels=[</script><script>alert(1)</script>]"
    jobs = [
        Job(0, ["lr=0.1", "seed=0", odd], "finished", 0, 1.5, {"val/acc": 0.5, "test/loss": math.inf}),
        Job(1, ["lr=0.1", "seed=1", odd], "finished", 0, 1.5, {"val/acc": 0.7, "test/loss": 1.0}),
        Job(2, ["lr=0.001", "seed=0", odd], "failed", 1, None, {}, "RuntimeError: <b>"),
        Job(3, ["lr=0.001", "seed=1", odd]),
    ]
    state = made(tmp_path / "s", jobs)
    Report(state).write(at_once=True)
    text = (tmp_path / "s" / "report.html").read_text()
    page = Page(text)
    assert not page.loads and not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|url\(", text)
    assert [tag for tag, _ in page.opened].count("script") == 2, "what a job is called cannot end the script"
    data = json.loads(page.data)
    assert [job["status"] for job in data["jobs"]] == ["finished", "finished", "failed", "waiting"]
    assert data["jobs"][0]["values"] == {"val/acc": 0.5, "test/loss": None} and data["jobs"][0]["overrides"].endswith(
        odd
    )
    assert data["jobs"][0]["curves"]["val/acc"] == [[1, 0.1], [2, 0.2], [3, pytest.approx(0.3)]]
    assert data["jobs"][0]["curves"]["val/loss"] == [[1, 1.0]]
    assert [p["name"] for p in data["parameters"]] == ["lr", "seed"] and data["parameters"][0]["log"]
    assert data["names"] == ["val/acc", "test/loss"] and data["common"] == [odd], "the goal first"
    assert [job["own"] for job in data["jobs"]][:2] == ["lr=0.1 seed=0", "lr=0.1 seed=1"]
    assert data["parameters"][0]["few"] == [0.001, 0.1], "the ticks of an axis with few values"
    command = f"dl-run -m lr=0.1 '{odd}' seed=0,1 '--config-dir=my configs'"
    assert data["best"] == [{"jobs": [0, 1], "name": "jobs 0, 1", "command": command}]
    assert data["means"][0]["setting"] == f"lr=0.1 {odd}" and data["means"][0]["values"]["val/acc"] == [0.5, 0.7]
    assert (tmp_path / "s" / "best").resolve() == (tmp_path / "s" / "0").resolve(), "not the lucky seed"
    found = json.loads((tmp_path / "s" / "results.json").read_text())
    assert found["jobs"][0]["values"] == {"val/acc": 0.5, "test/loss": None}, "JSON has no infinity"
    assert found["goals"] == [{"metric": "val/acc", "better": "max"}] and len(found["jobs"]) == 4


def job(number: int, value: float | None, *overrides: str, **values: float) -> Job:
    return Job(number, list(overrides), "finished", 0, 1.0, {"val/acc": value, **values})


def test_importance_is_the_share_of_the_variance():
    """All of it, none of it, half of it; chance explains nothing."""
    draw = random.Random(0)
    jobs = [job(4 * i + j, i + draw.gauss(0, 1e-6), f"a={i}", f"b={j}") for i in range(4) for j in range(4)]
    found = importance(jobs, parameters(jobs), "val/acc")
    assert found["a"] > 0.9 and found["b"] < 0.05
    jobs = [job(4 * i + j, i + j, f"a={i}", f"b={j}", "c=x") for i in range(4) for j in range(4)]
    found = importance(jobs, parameters(jobs), "val/acc")
    assert found == {"a": pytest.approx(0.5, abs=0.02), "b": pytest.approx(found["a"])}, "each a half"
    many = [job(i, draw.gauss(0, 1), f"a={draw.random()}") for i in range(400)]
    assert importance(many, parameters(many), "val/acc")["a"] < 0.02
    line = [job(i, i / 400, f"a={i / 400}") for i in range(400)]
    assert importance(line, parameters(line), "val/acc")["a"] == pytest.approx(63 / 64, abs=0.01)  # eight bins
    assert importance(jobs[:1], parameters(jobs), "val/acc") == {"a": None, "b": None}


@pytest.mark.parametrize("seed", range(3))
def test_importance_finds_a_rate_whose_best_is_in_the_middle(seed):
    """The rate decides, by a peak; the loss of rates that are too high is huge; the rest does next to nothing.

    together: good values were tried together, as a search does; the dropout gets no credit for that.
    """
    draw, jobs, together = random.Random(seed), [], []
    for i in range(40):
        rate, dropout, kind = draw.uniform(-5, 0), draw.uniform(0, 0.6), draw.choice("xyz")
        loss = (rate + 2.5) ** 2 + 0.1 * dropout + draw.gauss(0, 0.05) + (1e6 if rate > -0.3 else 0)
        jobs.append(job(i, loss, f"lr={10**rate}", f"dropout={dropout}", f"kind={kind}"))
        near = f"dropout={abs(rate + 2.5) / 5 + draw.uniform(0, 0.2)}"
        together.append(job(i, loss, f"lr={10**rate}", near))
    found = importance(jobs, parameters(jobs), "val/acc")
    assert found["lr"] > 0.8 and found["dropout"] < 0.1 and found["kind"] < 0.1
    found = importance(together, parameters(together), "val/acc")
    assert found["lr"] > 0.8 and found["dropout"] < 0.15


def test_the_best_job_is_found():
    found = [(0.5, 3.0), (0.7, 2.0), (0.7, 4.0), (None, 0.0), (0.2, 1.0)]
    jobs = [job(i, value, f"lr={i}", time=seconds) for i, (value, seconds) in enumerate(found)]
    jobs.append(Job(5, ["lr=5"], "pruned", 143, 1.0, {"val/acc": 0.9}))
    assert [setting.first.number for setting in best_settings(jobs, [("val/acc", "max")])] == [1]
    assert [setting.first.number for setting in best_settings(jobs, [("val/acc", "min")])] == [4]
    assert [setting.first.number for setting in best_settings(jobs, [("val/acc", "max"), ("time", "min")])] == [1, 4]
    assert best_settings(jobs, []) == [] and best_settings(jobs[3:4], [("val/acc", "max")]) == []


def test_the_best_is_a_setting_and_not_a_lucky_seed():
    """One lucky seed of lr=0 beats all; the mean of lr=1 is higher. lr=2 has a failed seed: fewer than the others."""
    scores = {"lr=0": (0.99, 0.10, 0.11), "lr=1": (0.80, 0.79, 0.81), "lr=2": (0.95, 0.95, None)}
    jobs = [
        job(3 * i + k, value, setting, f"data.fold={k}")
        for i, (setting, values) in enumerate(scores.items())
        for k, value in enumerate(values)
    ]
    jobs[8].status = "diverged"
    (best,) = best_settings(jobs, [("val/acc", "max")])
    assert best.overrides == ["lr=1"] and best.mean("val/acc") == pytest.approx(0.8)
    assert [each.number for each in best.jobs] == [3, 4, 5] and best.first.number == 3
    jobs[4].status = "waiting"
    assert best_settings(jobs, [("val/acc", "max")])[0].overrides == ["lr=0"], "until all of its folds are done"
    jobs[0].status = "failed"
    assert best_settings(jobs, [("val/acc", "max")])[0].overrides == ["lr=2"], "two finished everywhere"


@pytest.mark.parametrize("status", ["refused", "failed", "running"])
def test_the_best_names_only_the_jobs_that_finished(tmp_path, status):
    jobs = [job(i, value, "lr=1", f"seed={seed}") for i, (seed, value) in enumerate(((-1, None), (0, 0.5), (1, 0.7)))]
    jobs[0].status = status
    state = made(tmp_path / "s", jobs)
    Report(state).write(at_once=True)
    (found,) = json.loads((tmp_path / "s" / "results.json").read_text())["best"]
    assert (found["job"], found["jobs"], found["values"]["val/acc"]) == (1, [1, 2], pytest.approx(0.6))
    assert found["command"].startswith("dl-run -m lr=1 seed=0,1") and "-1" not in found["command"]
    assert found["command"] in closing(state, 0) and (tmp_path / "s" / "best").resolve().name == "1"


def test_seeds_are_distinguished_from_settings():
    jobs = [job(i, float(i), f"lr={i // 2}", f"seed={i % 2}") for i in range(4)]
    assert [(row["setting"], row["jobs"], row["seeds"]) for row in over_seeds(jobs, ["val/acc"])] == [
        ("lr=0", [0, 1], 2),
        ("lr=1", [2, 3], 2),
    ]


def test_folds_are_repetitions_too(tmp_path):
    jobs = [job(i, float(i), f"lr={i // 4}", f"data.fold={i % 2}", f"seed={i // 2 % 2}") for i in range(8)]
    rows = over_seeds(jobs, ["val/acc"])
    assert [(row["setting"], row["jobs"]) for row in rows] == [("lr=0", [0, 1, 2, 3]), ("lr=1", [4, 5, 6, 7])]
    means = report(jobs).partition("\n\n")[2].splitlines()
    assert means[0].startswith("mean +/- std over folds and seeds  ") and means[0].endswith("  runs")
    assert json.loads(Page(Report(made(tmp_path / "s", jobs)).html()).data)["means"][0]["own"] == "lr=0"
    for key, fixed in (("data.fold", "seed=0"), ("seed", "data.fold=0")):
        some, word = [job(i, float(i), fixed, f"{key}={i}") for i in range(2)], f"{key.rpartition('.')[2]}s"
        lines = report(some).partition("\n\n")[2].partition("\n\n")[2].splitlines()
        assert lines[0].startswith(f"mean +/- std over {word}  ") and lines[0].endswith(f"  {word}")
    assert [line.split()[0] for line in means[2:]] == ["lr=0", "lr=1"]


def test_a_seed_that_ran_twice_counts_once():
    """A repeated run adds no spread; a failed run is replaced by one that succeeded."""
    assert over_seeds([job(i, 0.5, "lr=1", "seed=0") for i in (0, 1)], ["val/acc"]) == []
    jobs = [job(i, float(i), "lr=1", f"seed={i % 2}") for i in range(3)]
    jobs[0].status, jobs[0].values = "killed", {}
    (row,) = over_seeds(jobs, ["val/acc"])
    assert (row["seeds"], row["jobs"], row["values"]["val/acc"]) == (2, [2, 1], [2.0, 1.0])


@pytest.mark.parametrize(
    ("statuses", "advised"),
    [
        (["finished", "refused", "diverged"], False),
        (["refused", "killed"], True),
        (["failed"], True),
        (["exit 139"], True),
        (["timeout"], True),
        (["finished"], False),
    ],
)
def test_retrying_is_advised_where_it_can_help(tmp_path, statuses, advised):
    state = made(tmp_path / "s", [Job(i, ["lr=1"], status, 1) for i, status in enumerate(statuses)])
    text = closing(state, stopped=0)
    hint = f"repeat the failed jobs with: dl-run -m sweep.resume={tmp_path / 's'} sweep.retry=failed"
    assert (hint in text) == advised and ("retry" in text) == advised


def test_a_long_curve_is_thinned_and_keeps_its_end():
    rows = [{"epoch": e, "val/acc": e / 1000} for e in range(1, 1001)]
    found = curve(rows, "val/acc")
    assert len(found) <= 120 and found[-1] == [1000, 1.0] and found == sorted(found)
    assert curve([], "val/acc") == [] and curve([{"epoch": 1}], "val/acc") == []
