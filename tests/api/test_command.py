"""What starts processes of its own: sweeps, distributed runs, and the packages that they may use."""

import sys
from unittest.mock import patch

import pytest
from runs import assert_same

import dlrun
from dlrun.api.command import _folders, run_command

SMALL = ["data=digits", "model.hidden=[16]", "trainer.epochs=2", "trainer.device=cpu", "trainer.log_every=0"]


def test_allow_accepts_only_names_of_packages():
    with pytest.raises(dlrun.UserError, match="expected the name of a package"):
        dlrun.allow("my nets")


@pytest.fixture
def beside(tmp_path, monkeypatch):
    """A package that is allowed, and on this program's own path only, as one in a script's folder is."""
    (tmp_path / "beside" / "mynets").mkdir(parents=True)
    (tmp_path / "beside" / "mynets" / "nets.py").write_text(
        "from torch import nn\n\n\ndef wide(spec, *, width: int = 4):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(spec.features, width), nn.Linear(width, spec.outputs))\n"
    )
    monkeypatch.setattr("dlrun.config.consent.allowed", (allowed := set()))
    monkeypatch.setattr("dlrun.api.command.allowed", allowed)
    monkeypatch.syspath_prepend(tmp_path / "beside")
    dlrun.allow("mynets.nets")
    return tmp_path / "beside"


def test_a_new_process_finds_allowed_packages_and_no_others(beside):
    code = "from dlrun.config.signatures import is_allowed, signature; print(signature('mynets.nets.wide').keys, "
    code += "is_allowed('mynets.nets.wide'), is_allowed('mynets.netsuite.x'), is_allowed('mynets.other.x'))"
    isolated = ["-P"] if sys.version_info >= (3, 11) else []  # without the working folder
    with patch("dlrun.api.command.COMMAND", [*isolated, "-c", code]), patch("dlrun.api.command.json.loads") as line:
        line.return_value = {"exit_code": 0, "error": None, "folder": "."}
        run_command([])
    assert line.call_args.args[0] == "{'width': <class 'int'>} True False False"
    assert _folders(["torch", "mynets.nets", "nowhere"]) == [str(beside)]


@pytest.mark.slow
def test_allow_reaches_the_jobs_of_sweeps(beside):
    sweep = dlrun.sweep("model=mynets.nets.wide", "model.width=3,4", "data=moons", *SMALL[2:], "trainer.max_steps=1")
    assert sweep.jobs["status"].to_list() == ["finished", "finished"], sweep.results


@pytest.mark.slow
def test_sweeps_and_distributed_runs_start_their_own_processes():
    sweep = dlrun.sweep("seed=0,1", *SMALL)
    assert [run.status for run in sweep.runs] == ["finished"] * 2 and sweep.jobs.height == 2
    assert sweep.best.folder in [run.folder for run in sweep.runs] and "2 jobs" in repr(sweep)
    assert_same(sweep.runs[0].folder, dlrun.train(*SMALL, "seed=0").folder)
    assert dlrun.sweep("seed=0,-1", *SMALL).jobs["status"].to_list() == ["finished", "refused"]
    seeds = dlrun.sweep("seeds=2", *SMALL)
    assert seeds.jobs.height == 2 and [run.config["seed"] for run in seeds.runs] == [0, 1]
    with pytest.raises(dlrun.UserError, match="sweep.jobs"):
        dlrun.sweep("seed=0,1", "sweep.jobs=0", *SMALL)
    assert dlrun.train(*SMALL, "trainer.processes=2").summary["processes"] == 2
