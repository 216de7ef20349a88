"""What a sweep shows beside metrics: its jobs' images on one sheet, their reports' tables, failures once."""

import json

import numpy as np
import pytest
from PIL import Image

from dlrun.output.panels import ROWS
from dlrun.sweep.job import Job
from dlrun.sweep.report import Report, closing, failures
from dlrun.sweep.screen import Screen
from dlrun.sweep.sheet import FILE, joined, read_rows
from dlrun.sweep.state import State
from dlrun.sweep.tables import have_one_problem, is_table


def strip(value: int) -> np.ndarray:
    return np.full((4, 40, 1), value, np.uint8)


def made(folder, overrides: list[list[str]]) -> State:
    jobs = [Job(i, own, "finished", 0, 1.0, {"val/f": 1.0 - i}) for i, own in enumerate(overrides)]
    state = State.new(folder, {"command": [], "flags": [], "arguments": []}, jobs, len(jobs), [["val/f", "min"]])
    for job in jobs:
        state.run_folder(job).mkdir(parents=True)
    return state


def test_equal_rows_are_drawn_once_and_the_others_below_each_other():
    jobs = {f"hidden={k}": {"originals": strip(1), "reconstructions": strip(10 + k), "PCA": strip(3)} for k in range(3)}
    rows = joined(jobs)
    assert [(label, row[0, 0, 0]) for label, row in rows.items()] == [
        ("originals", 1), ("hidden=0", 10), ("hidden=1", 11), ("hidden=2", 12), ("PCA", 3)
    ]  # fmt: skip
    jobs["hidden=2"]["PCA"] = strip(4)
    assert list(joined(jobs)) == [
        "originals",
        *(f"{kind}  hidden={k}" for kind in ("reconstructions", "PCA") for k in range(3)),
    ]


def test_a_sweep_has_one_sheet_with_a_row_for_each_setting(tmp_path):
    state = made(tmp_path, [["k=0", "seed=0"], ["k=0", "seed=1"], ["k=1", "seed=0"]])
    for job in state.jobs[:2]:
        np.savez(state.run_folder(job) / ROWS, originals=strip(200), out=strip(40 * job.number))
    Report(state).write(at_once=True)
    assert not (tmp_path / FILE).exists(), "two seeds of one setting are no comparison"
    np.savez(state.run_folder(state.jobs[2]) / ROWS, originals=strip(200), out=strip(120))
    Report(state).write(at_once=True)
    with Image.open(tmp_path / FILE) as image:
        found = set(np.asarray(image.convert("L")).ravel().tolist())
    assert {200, 0, 120} <= found and str(tmp_path / FILE) in closing(state, 0)
    (state.run_folder(state.jobs[0]) / ROWS).write_bytes(b"no archive")
    assert read_rows(state.run_folder(state.jobs[0]) / ROWS) == {}
    np.savez(state.run_folder(state.jobs[0]) / ROWS, originals=np.ones(3))
    assert read_rows(state.run_folder(state.jobs[0]) / ROWS) == {}


def test_the_tables_of_the_jobs_are_printed(tmp_path):
    state = made(tmp_path, [["data.source.name=a", "x=1"], ["data.source.name=b", "x=1"]])
    for job in state.jobs:
        table = [["w", "f"], ["4", str(27 - job.number)]]
        (state.run_folder(job) / "summary.json").write_text(json.dumps({"table": table}))
    text = closing(state, 0)
    assert "job 0  data.source.name=a\nw   f\n-----\n4  27\n\njob 1  data.source.name=b\nw   f\n-----\n4  26" in text
    assert "best:" not in text, "they are of two functions"
    for wrong in ({}, [[]], [["a"], ["a", "b"]], [[1]], "x", [["a"], "b"]):
        assert not is_table(wrong)


@pytest.mark.parametrize(
    ("own", "is_one"),
    [
        (["data.source.name=a", "data.source.name=b"], False),
        (["data=mnist", "data=digits"], False),
        (["data.source.samples=10", "data.source.samples=20"], True),
        (["optimizer.lr=1", "optimizer.lr=2"], True),
    ],
)
def test_the_best_job_is_named_only_where_jobs_solve_one_problem(tmp_path, own, is_one):
    state = made(tmp_path, [[each] for each in own])
    assert have_one_problem(state.jobs) == is_one == ("best:" in closing(state, 0))


def test_a_cause_is_told_once(capsys):
    jobs = [Job(i, [], "refused", 2, error="dl-run: x=0: expected another") for i in (0, 1, 2, 4)]
    jobs.append(Job(3, [], "failed", 1, error="other"))
    assert failures(jobs) == "jobs 0 to 2 and 4 refused: dl-run: x=0: expected another\njob 3 failed: other"
    screen = Screen()
    for number, log in enumerate((["a", "b"], ["a", "b"], ["c"], [])):
        screen.fail(f"job {number}", "refused (exit code 2)", log)
    out, err = capsys.readouterr()
    assert err == "  a\n  b\n  c\n"
    assert out.splitlines() == [
        "job 0 refused (exit code 2)", "job 1 refused (exit code 2), as job 0", "job 2 refused (exit code 2)",
        "job 3 refused (exit code 2)",
    ]  # fmt: skip
