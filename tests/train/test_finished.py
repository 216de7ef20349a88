"""A finished run keeps what it was tested with, until a resumed run has new results."""

import gc
import os
import shutil
import sys

import pytest
from runs import Killed, same, state

from dlrun import cli
from dlrun.output.checkpoint import load


@pytest.fixture(scope="module")
def cut(finished, tmp_path_factory):
    """The folder of a finished run that a limit ended in its first epoch."""
    folder = tmp_path_factory.mktemp("runs") / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setattr(sys, "argv", ["dl-run", "trainer.epochs=1", "trainer.max_steps=3", f"run_dir={folder}"])
        cli.main()
    return folder


def test_a_run_ended_by_a_limit_keeps_the_weights_it_was_tested_with(cut):
    """Its epoch continues in a resumed run, so the best checkpoint, of whole epochs, is not that of the cut one."""
    from dlrun.runs.evaluate import evaluate
    from dlrun.train.finished import FinishedRun
    from dlrun.train.weights import read_weights

    assert {path.name for path in (cut / "checkpoints").iterdir()} == {"last.ckpt", "tested_3.ckpt"}
    lines, is_same = evaluate(cut, "test", [], None, False)
    assert is_same and "reproduced exactly" in lines[-1]
    weights = read_weights(str(cut))  # those that init= starts from
    assert same(weights, FinishedRun(cut).state["state_dict"])
    assert same(weights, load(cut / "checkpoints" / "tested_3.ckpt")["state_dict"])


RESUMED = {  # by the run: what resumes it, and the renames at which that is killed; 99 is after the last
    "finished": (["trainer.epochs=2"], (1, 2, 3, 4, 6, 8, 99)),
    "cut": (["trainer.epochs=1", "trainer.max_steps=5"], (3, 6, 99)),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that a kill leaves open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", RESUMED)
def test_the_results_of_a_finished_run_stay_until_there_are_new_ones(kind, dl_run, request, tmp_path, monkeypatch):
    """Killed at each of its renames, a resumed run keeps what it was tested with, and ends as one that was not."""

    def tested(folder):
        checkpoints = folder / "checkpoints"
        assert len(list(checkpoints.glob("tested_*"))) == (kind == "cut")
        return state(folder, next(checkpoints.glob("tested_*"), checkpoints / "best.ckpt").stem)

    from dlrun.config.saved import require_finished
    from dlrun.runs.show import show
    from dlrun.train.finished import FinishedRun

    finished, (more, kills) = request.getfixturevalue(kind), RESUMED[kind]
    shutil.copytree(finished, tmp_path / "straight")
    assert dl_run("resume=straight", *more)[0] == 0
    want, replace, last = tested(tmp_path / "straight"), os.replace, 0
    test, weights = require_finished(finished)["test"], FinishedRun(finished).state["state_dict"]
    for at in kills:
        shutil.copytree(finished, tmp_path / "run")
        calls = []

        def dying(source, target, at=at, calls=calls):
            calls.append(target)
            if len(calls) >= at:
                raise Killed
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            if at == 99:
                assert dl_run("resume=run", *more)[0] == 0
            else:
                with pytest.raises(Killed):
                    dl_run("resume=run", *more)
        last = len(calls)
        if at != 99:
            assert require_finished(tmp_path / "run")["test"] == test
            assert same(FinishedRun(tmp_path / "run").state["state_dict"], weights), f"killed at rename {at}"
            assert f"test/acc {test['test/acc']!r}" in show(tmp_path / "run")
            assert dl_run("resume=run", *more)[0] == 0
        assert same(tested(tmp_path / "run"), want)
        shutil.rmtree(tmp_path / "run")
    assert last > kills[-2]
    gc.collect()  # close the files here, where their warnings are expected
