"""Kept epochs depend on the rows only, also after a resume; what a resume may change, and what it reports."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch
from runs import same, state

import dlrun
from dlrun.output.checkpoint import load
from dlrun.runs.report import report
from dlrun.runs.show import show
from dlrun.tasks.supervised import Supervised
from dlrun.train.best import Best
from dlrun.train.keep import kept_epochs

WORDS = ["data=digits", "model.hidden=[16]", "trainer.device=cpu", "trainer.checkpoint_gap=0", "trainer.epochs=5"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlrun.output.plot_files.PlotFiles._plot", lambda *a: None)


def kept(run):
    return sorted(path.name for path in run.folder.glob("checkpoints/epoch_*.ckpt"))


def test_the_best_epochs_and_every_nth_are_kept():
    scores = [(0.5, 2.0), (0.9, 1.0), (0.9, 0.5), (float("nan"), 0.1), (0.7, 0.2), (0.9, 0.5)]
    rows = [{"epoch": i, "val/acc": acc, "val/loss": loss} for i, (acc, loss) in enumerate(scores, 1)]

    def of(keep, every, mode="max", best=True, rows=rows):
        trainer = SimpleNamespace(keep=keep, keep_every=every)
        return kept_epochs(rows, Best("acc", mode, 0.0) if best else None, trainer)

    assert of("best2", None) == {3, 6} and of("best3", None) == {2, 3, 6} and of("best1", None) == {3}
    assert of("best1", 2) == {2, 3, 4, 6} and of(None, None) == set() and of("best1", None, "min") == {1}
    assert of("best9", 4, best=False) == {4} and of("best99", None) == {1, 2, 3, 5, 6}
    assert of("best1", None, rows=[{"epoch": 1}, {"epoch": 2, "val/acc": 0.1}]) == {2}  # an epoch without validation


def test_a_resumed_run_keeps_the_same_epochs_and_new_logging_keeps_the_bits():
    words = [*WORDS, "trainer.keep=best2", "trainer.keep_every=4"]
    whole = dlrun.train(*words, "run_dir=whole")
    learn = Supervised.step

    def step(self, batch, clock):
        if clock.step == 80:  # in the fourth epoch
            raise KeyboardInterrupt
        return learn(self, batch, clock)

    with patch.object(Supervised, "step", step), pytest.raises(KeyboardInterrupt):
        dlrun.train(*words, "run_dir=cut", "trainer.checkpoint_every_steps=7")
    (dlrun.load("cut").folder / "checkpoints" / "epoch_5.ckpt").write_text("of an epoch that is not done yet")
    cut = dlrun.resume("cut", "trainer.log_every=3", "trainer.histograms=true", "trainer.checkpoint_every_steps=5")
    assert kept(cut) == kept(whole) and "epoch_4.ckpt" in kept(whole) and 2 <= len(kept(whole)) <= 3
    assert same(state(whole.folder)["components"], state(cut.folder)["components"])
    for name in kept(whole):
        one, other = (load(run.folder / "checkpoints" / name)["state_dict"] for run in (whole, cut))
        assert same(one, other)
    again = dlrun.train(
        "model.hidden=[16]", "data=digits", "trainer.epochs=1", f"init=whole/checkpoints/{kept(whole)[0]}"
    )
    assert again.status == "finished"
    before = kept(cut)  # another rule holds for later epochs only
    assert kept(dlrun.resume(cut, "trainer.keep=null", "trainer.keep_every=3", "trainer.epochs=7")) == [
        *before,
        "epoch_6.ckpt",
    ]
    assert (
        kept(dlrun.resume(cut, "trainer.keep_every=null", "trainer.keep=best1", "trainer.epochs=8"))[: len(before)]
        == before
    )
    assert set(before) < set(kept(dlrun.resume(cut, "trainer.epochs=9")))


def test_a_resume_allows_changes_or_nothing():
    run = dlrun.train(*WORDS, "trainer.epochs=1", "run_dir=run")
    with pytest.raises(dlrun.UserError, match="resume.allow=changez: expected changes, or null"):
        dlrun.resume(run, "trainer.epochs=2", "resume.allow=changez")
    assert run.metrics.height == 1


@pytest.mark.thorough
def test_another_learning_rate_must_be_allowed_and_is_reported():
    run = dlrun.train(*WORDS, "trainer.epochs=1", "run_dir=run")
    with pytest.raises(dlrun.UserError, match="or optimizer.lr=0.01 with resume.allow=changes"):
        dlrun.resume(run, "trainer.epochs=2", "optimizer.lr=0.01")
    with pytest.raises(dlrun.UserError, match="resume.allow=all: expected changes, or null"):
        dlrun.train("resume.allow=all")
    with pytest.raises(dlrun.UserError, match="model.hidden=.8. cannot change"):
        dlrun.resume(run, "model.hidden=[8]", "resume.allow=changes")
    run = dlrun.resume(run, "trainer.epochs=2", "optimizer.lr=0.01", "resume.allow=changes")
    entry = {"step": 21, "key": "optimizer.lr", "from": 0.001, "to": 0.01}
    assert run.summary["changes"] == [entry] and run.config["optimizer"]["lr"] == 0.01
    assert run.metrics["lr"].to_list() == [0.001, 0.01]
    assert "from step 21 on this is another run: optimizer.lr=0.01, before 0.001" in Path("run/run.log").read_text()
    run = dlrun.resume(run, "trainer.epochs=3")  # it keeps the new rate, and the note
    assert run.summary["changes"] == [entry] and run.metrics["lr"].to_list()[-1] == 0.01
    assert "from step 21" in show(run.folder)
    report(run.folder, Path("report.html"))
    assert "optimizer.lr=0.01, before 0.001" in Path("report.html").read_text()
    optimizer = state(run.folder)["components"]["update"]["optimizer"]
    assert torch.tensor([group["lr"] for group in optimizer["param_groups"]]).eq(0.01).all()
