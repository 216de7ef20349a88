"""A finished run keeps the tested weights until the resumed run has new results."""

import gc
import math
import os
import shutil
import sys
from contextlib import contextmanager
from unittest.mock import patch

import pytest
from runs import Killed, same, state

from dlrun import cli
from dlrun.config.saved import require_finished
from dlrun.output.checkpoint import load
from dlrun.runs.evaluate import evaluate
from dlrun.runs.show import show
from dlrun.train.finished import FinishedRun
from dlrun.train.weights import read_weights


@pytest.fixture(scope="module")
def cut(finished, tmp_path_factory):
    """The folder of a finished run that a limit ended in its first epoch."""
    folder = tmp_path_factory.mktemp("runs") / "cut"
    with pytest.MonkeyPatch.context() as here:
        here.chdir(folder.parent)
        here.setattr(sys, "argv", ["dl-run", "trainer.epochs=1", "trainer.max_steps=3", f"run_dir={folder}"])
        cli.main()
    return folder


def test_a_run_ended_by_a_limit_keeps_the_weights_it_was_tested_with(cut):
    """The epoch continues in a resumed run: it cannot yet be the best epoch, so its weights have their own file."""
    assert {path.name for path in (cut / "checkpoints").iterdir()} == {"last.ckpt", "tested_3.ckpt"}
    lines, is_same = evaluate(cut, "test", [], None, False)
    assert is_same and "reproduced exactly" in lines[-1]
    weights = read_weights(str(cut))  # those that init= starts from
    assert same(weights, FinishedRun(cut).state["state_dict"])
    assert same(weights, load(cut / "checkpoints" / "tested_3.ckpt")["state_dict"])


RESUMED = {  # what resumes the run, and the renames at which the resumed run is killed
    "finished": (["trainer.epochs=2"], (1, 2, 3, 4, 6, 8)),
    "cut": (["trainer.epochs=1", "trainer.max_steps=5"], (3, 6)),
}


@contextmanager
def renames(killed_at=math.inf):
    """Count calls of os.replace, and die at one of them."""
    replace, calls = os.replace, []

    def counting(source, target):
        calls.append(target)
        if len(calls) >= killed_at:
            raise Killed
        replace(source, target)

    with patch.object(os, "replace", counting):
        yield calls


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that a kill leaves open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", RESUMED)
def test_the_results_of_a_finished_run_stay_until_there_are_new_ones(kind, dl_run, request, tmp_path):
    """A resumed run that is killed at a rename keeps the tested weights; resumed again, it ends as without the kill."""

    def tested(folder):
        checkpoints = folder / "checkpoints"
        assert len(list(checkpoints.glob("tested_*"))) == (kind == "cut")
        return state(folder, next(checkpoints.glob("tested_*"), checkpoints / "best.ckpt").stem)

    finished, (more, kills) = request.getfixturevalue(kind), RESUMED[kind]
    shutil.copytree(finished, tmp_path / "straight")
    with renames() as calls:
        assert dl_run("resume=straight", *more)[0] == 0
    assert len(calls) >= kills[-1]
    want = tested(tmp_path / "straight")
    test, weights = require_finished(finished)["test"], FinishedRun(finished).state["state_dict"]
    for at in kills:
        shutil.copytree(finished, tmp_path / "run")
        with renames(killed_at=at), pytest.raises(Killed):
            dl_run("resume=run", *more)
        assert require_finished(tmp_path / "run")["test"] == test
        assert same(FinishedRun(tmp_path / "run").state["state_dict"], weights), f"killed at rename {at}"
        assert f"test/acc {test['test/acc']!r}" in show(tmp_path / "run")
        assert dl_run("resume=run", *more)[0] == 0
        assert same(tested(tmp_path / "run"), want)
        shutil.rmtree(tmp_path / "run")
    gc.collect()  # close the files here, where their warnings are expected
