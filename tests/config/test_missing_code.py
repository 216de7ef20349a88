"""A finished run is read without code that only trained it; a message names the package that is missing."""

import importlib
import sys

import numpy as np
import pytest

import dlrun
from dlrun.config import consent, plugins

CODE = """import torch
import torch.nn.functional as F
from dlrun.types import Higher

class Step(torch.optim.SGD):
    def __init__(self, params, *, lr: float = 0.1):
        super().__init__(params, lr=lr, momentum=0.9)

def warm(time):
    return 1.0

def loss(out, y):
    return F.cross_entropy(out, y, reduction="none")

def score(y, p) -> Higher:
    return 1.0

def darker(x):
    return x * 0.9

class Darker:
    def __init__(self, *, by: float = 0.9):
        self.by = by

    def check(self, shape):
        pass

    def on_bytes(self, x, draw):
        return x

    def on_values(self, x, draw):
        return x * self.by

def net(spec):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(spec.features, spec.outputs))
"""
SMALL = ["data=digits", "trainer.epochs=1", "trainer.device=cpu", "trainer.log_every=0"]
TRAINS = ["optimizer=gone.Step", "schedule=gone.warm", "data.augment=[{crop: 1}, gone.darker]"]
MEASURES = ["task.loss=gone.loss", "task.metrics=[f1, gone.score]"]
X = np.arange(128, dtype=np.uint8).reshape(2, 8, 8)


@pytest.fixture(autouse=True)
def code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlrun.output.plot_files.PlotFiles._plot", lambda *a: None)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(consent, "allowed", set())
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "gone.py").write_text(CODE)
    sys.path.insert(0, str(tmp_path / "site"))
    importlib.invalidate_caches()
    dlrun.allow("gone")
    yield
    uninstall()
    plugins.plugins.cache_clear()


def uninstall():
    sys.modules.pop("gone", None)
    consent.allowed.clear()
    sys.path[:] = [path for path in sys.path if not path.endswith("site")]
    importlib.invalidate_caches()


def test_a_run_predicts_without_code_that_only_trained_it():
    for name, words in {"last": ["trainer.test=last", "trainer.ema=0.9"], "best": MEASURES}.items():
        run = dlrun.train(*SMALL, *TRAINS, *words, f"run_dir={name}")
        before, test = run.outputs(X), run.summary["test"]
        uninstall()
        read = dlrun.load(name)
        assert np.array_equal(read.outputs(X), before) and read.config["optimizer"]["_target_"] == "gone.Step"
        if name == "last":  # measured with what is part of dl-run
            assert read.evaluate("test")["acc"] == test["test/acc"]
        else:
            with pytest.raises(dlrun.UserError, match="best: task.loss=gone.loss is code of the package 'gone', wh"):
                read.evaluate("test")
        with pytest.raises(dlrun.UserError, match="resume=.*=gone.* is not installed\n  expected it installed"):
            dlrun.resume(read, "trainer.epochs=2")
        sys.path.insert(0, str(read.folder.absolute().parent / "site"))
        importlib.invalidate_caches()
        with pytest.raises(dlrun.UserError, match="is not allowed here\n  expected DL_RUN_ALLOW=gone or"):
            dlrun.resume(read, "trainer.epochs=2")
        dlrun.allow("gone")


def test_the_augmentation_of_a_run_may_be_gone():
    own = ["~data.augment", "+data.augment={_target_: gone.Darker, by: 0.8}"]
    run = dlrun.train(*SMALL, *own, "run_dir=run")
    before = run.outputs(X)
    uninstall()
    assert np.array_equal(dlrun.load("run").outputs(X), before)


def test_the_message_names_what_is_needed_and_its_plugin(tmp_path):
    run = dlrun.train(*SMALL, "model=gone.net", "run_dir=run")
    uninstall()
    info = tmp_path / "other" / "gone_nets-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "entry_points.txt").write_text("[dlrun.plugins]\ngone = gone\n")
    sys.path.insert(0, str(tmp_path / "other"))
    with pytest.raises(dlrun.UserError, match="model=gone.net is code of the package 'gone', a plugin of gone_nets"):
        dlrun.load(run.folder).predict(X)
