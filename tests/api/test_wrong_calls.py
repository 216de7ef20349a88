"""Calls from Python with wrong arguments are refused by a UserError, as wrong words are."""

import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from finished_runs import FAMILIES, untrained

import dlrun
from dlrun.api.command import run_command


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("call", "text"),
    {
        "allow": (lambda: dlrun.allow(["mynets"]), "expected the name of a package"),
        "load None": (lambda: dlrun.load(None), "run=None: expected a path or a Run"),
        "resume 3": (lambda: dlrun.resume(3), "run=3: expected a path or a Run"),
        "load last": (lambda: dlrun.load("last", 3), "output_dir=3: expected a path"),
        "runs": (lambda: dlrun.runs("/nothere"), "/nothere: there is no such folder"),
        "runs of a file": (lambda: dlrun.runs(__file__), "there is no such folder"),
        "config_dir": (lambda: dlrun.train(config_dir=3), "config_dir=3: expected a path"),
        "config_dir of a sweep": (lambda: dlrun.sweep("seed=0,1", config_dir=3), "config_dir=3: expected a path"),
        "jobs": (lambda: dlrun.Sweep("/nothere").jobs, "expected a sweep's folder"),
        "sweep": (lambda: dlrun.sweep("seed=0,1", x=[1], y=[1]), "x=..., y=...: a sweep takes words alone"),
    }.values(),
)
def test_wrong_arguments(call, text):
    with pytest.raises(dlrun.UserError, match=text):
        call()


def test_runs_without_a_folder_lists_none_before_the_first_run():
    assert dlrun.runs() == []


def made(tmp_path, family):
    return dlrun.load(untrained(tmp_path / family, [o.format(data=tmp_path) for o in FAMILIES[family]]))


def test_wrong_arguments_of_a_run(tmp_path, monkeypatch):
    classes, player, vae = (made(tmp_path, family) for family in ("two classes", "actor", "vae"))
    for number in (-1, 0, 1.5, True):
        with pytest.raises(dlrun.UserError, match=f"episodes={number}: expected an integer >= 1"):
            player.predict(episodes=number)
        with pytest.raises(dlrun.UserError, match=f"samples={number}: expected an integer >= 1"):
            vae.predict(samples=number)
    for seed in (-1, 1.5):
        with pytest.raises(dlrun.UserError, match=f"seed={seed}: expected an integer >= 0"):
            player.predict(episodes=1, seed=seed)
    with pytest.raises(
        dlrun.UserError, match=f"seed={2**63}: expected an integer of at most 9,223,372,036,854,775,807"
    ):
        player.predict(episodes=1, seed=2**63)
    assert player.predict(episodes=np.int64(1)).height == 1
    with pytest.raises(dlrun.UserError, match="x holds complex numbers"):
        classes.predict([1j, 2])
    with pytest.raises(dlrun.UserError, match="expected words such as"):
        classes.evaluate("test", 3)
    assert classes.evaluate("test", {"data": {"batch_size": 5}}) == classes.evaluate("test", "data.batch_size=5")
    for module in (classes.module, classes.full_module):
        name = "input" if isinstance(module, torch.nn.Sequential) else "x"
        assert torch.equal(module(**{name: torch.ones(1, 2)}), module(torch.ones(1, 2)))
        with pytest.raises(dlrun.UserError, match="the module got an input of shape"):
            module(**{name: torch.ones(1, 3)})
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.csv").write_text("0.5,1\n")
    assert classes.predict("~/rows.csv").drop("input").equals(classes.predict([0.5, 1.0]))


def test_a_removed_working_folder(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(dlrun.UserError, match="the working folder was removed"):
        dlrun.train("data=moons", f"output_dir={tmp_path}")
    monkeypatch.chdir(tmp_path)


def test_a_sweep_of_which_no_job_finishes_is_an_error():
    ending = '{"folder": "/o/s", "exit_code": 1, "error": null, "first_failure": "job 0: %s", "jobs": {%s}}'
    with patch("dlrun.api.command.COMMAND", ["-c", "import sys; print(sys.argv[2])"]):
        assert run_command([ending % ("loss", '"diverged": 1, "finished": 1')]) == Path("/o/s")
        with pytest.raises(dlrun.UserError, match="no job of the sweep finished: 2 refused\n  job 0: epochs") as error:
            run_command([ending % ("epochs", '"refused": 2')])
    assert "dlrun.Sweep('/o/s').jobs" in str(error.value)


@pytest.mark.thorough
def test_a_sweep_of_which_all_jobs_are_refused():
    with pytest.raises(dlrun.UserError, match="^trainer.epochs=abc: expected an integer >= 1$"):
        dlrun.sweep("data=moons", "seed=0,1", "trainer.epochs=abc")


@pytest.mark.parametrize("words", ["dlrun.cli data=moons", "dlrun.runs.cli list"])
def test_the_commands_in_a_removed_working_folder(words):
    code = f"import os, sys; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone'); sys.argv = {words.split()}; "
    code += f"from {words.split()[0]} import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 2 and ": the working folder was removed\n" in ended.stderr, ended.stderr
