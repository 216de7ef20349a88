"""Loaders of one's own as data: as exact a resume as they can offer, and a report where it is not."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from runs import assert_same, rows
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import dlrun
from dlrun.tasks.supervised import Supervised

WORDS = ["model.hidden=[8]", "trainer.device=cpu", "trainer.log_every=0", "data.classes=2", "trainer.checkpoint_gap=0"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlrun.output.plot_files.PlotFiles._plot", lambda *a: None)


def samples(count, seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)).astype(np.float32)
    return torch.tensor(x), torch.tensor((x.sum(1) > 0).astype(np.int64))


class Noisy(IterableDataset):
    """An endless stream whose noise comes from NumPy's global generator."""

    def __iter__(self):
        while True:
            x = np.random.normal(size=3).astype(np.float32)
            yield x, int(x.sum() > 0)


class Stateful:
    """Batches in an order of its own, with a state."""

    batch_size = 8

    def __init__(self):
        self.x, self.y = samples(96, 3)
        self.passes, self.at, self.is_restored = 0, 0, False

    def __len__(self):
        return 12

    def __iter__(self):
        if not self.is_restored:
            self.passes, self.at = self.passes + 1, 0
        self.is_restored = False
        order = np.random.default_rng(self.passes).permutation(96)
        while self.at < 12:
            rows = order[8 * self.at : 8 * self.at + 8]
            self.at += 1
            yield self.x[rows], self.y[rows]

    def state_dict(self):
        return {"passes": self.passes, "at": self.at}

    def load_state_dict(self, state):
        self.passes, self.at, self.is_restored = state["passes"], state["at"], True


def loader(kind):
    """Gives (a new train loader, further words)."""
    if kind == "shuffled":
        return DataLoader(TensorDataset(*samples(96, 1)), batch_size=8, shuffle=True), []
    if kind == "workers":
        return DataLoader(TensorDataset(*samples(96, 1)), batch_size=8, shuffle=True, num_workers=1), []
    if kind == "endless":
        return DataLoader(Noisy(), batch_size=8), ["data.epoch_batches=12"]
    return Stateful(), []


def val():
    return DataLoader(TensorDataset(*samples(40, 2)), batch_size=20)


def cut_and_resumed(words, loaders, step, folder):
    """Interrupt at this step and resume with a new loader. Gives the run."""
    learn = Supervised.step

    def stopping(self, batch, clock):
        if clock.step == step:
            raise KeyboardInterrupt
        return learn(self, batch, clock)

    every = "trainer.checkpoint_every_steps=1"
    with patch.object(Supervised, "step", stopping), pytest.raises(KeyboardInterrupt):
        dlrun.train(*words, every, f"run_dir={folder}", x=loaders(), x_val=val())
    return dlrun.resume(folder, x=loaders(), x_val=val())


@pytest.mark.parametrize("kind", ["shuffled", "endless", "stateful"])
def test_a_stream_resumes_in_mid_epoch(kind):
    more = loader(kind)[1]
    words = [*WORDS, *more, "trainer.epochs=3"]
    whole = dlrun.train(*words, "run_dir=whole", "trainer.checkpoint_every_steps=1", x=loader(kind)[0], x_val=val())
    again = cut_and_resumed(words, lambda: loader(kind)[0], 17, "cut")
    log = (again.folder / "run.log").read_text()
    if kind == "stateful":
        assert "resumes exactly, by its state_dict" in log and "read again" not in log
    else:
        assert "read again up to batch" in log and "its last batch is the same" in log
    assert rows(whole.folder) == rows(again.folder)
    assert_same(whole.folder, again.folder)
    assert again.evaluate() == whole.evaluate() and again.predict([[0.1, 0.2, 0.3]]).height == 1


@pytest.mark.slow
def test_loaders_with_worker_processes_resume_by_reading_again():
    words = [*WORDS, "trainer.epochs=2"]
    whole = dlrun.train(
        *words, "run_dir=whole", "trainer.checkpoint_every_steps=1", x=loader("workers")[0], x_val=val()
    )
    assert_same(whole.folder, cut_and_resumed(words, lambda: loader("workers")[0], 17, "cut").folder)


def test_a_stream_that_is_another_one_is_reported():
    made = iter([samples(96, 1), samples(96, 9)])
    again = cut_and_resumed(
        [*WORDS, "trainer.epochs=2"], lambda: DataLoader(TensorDataset(*next(made)), batch_size=8), 5, "cut"
    )
    assert "from here on this is not the run that was stopped" in (again.folder / "run.log").read_text()


class Broken:
    batch_size = 4

    def __init__(self, *items):
        self.items = items

    def __iter__(self):
        return iter(self.items)


X, Y = samples(4, 0)
WRONG = {
    "yields nothing": (Broken(), []),
    "expected batches (x, y) of two tensors": (Broken((X,)), []),
    "expected labels (batch,) from 0 to 1": (Broken((X, Y + 5)), []),
    "with a target for each sample": (Broken((X, Y[:2])), []),
    "expected data.epoch_batches": (Broken((X, Y)), []),
    "the loaders yield": (Broken((X[:, :2], Y)), ["data.epoch_batches=1"]),
}


@pytest.mark.parametrize("text", WRONG)
def test_garbage_is_refused(text):
    broken, words = WRONG[text]
    good = Broken((X, Y))
    x, x_val = (broken, good) if text in ("expected data.epoch_batches", "the loaders yield") else (good, broken)
    with pytest.raises(dlrun.UserError) as error:
        dlrun.train(*WORDS, *words, "trainer.epochs=1", x=x, x_val=x_val)
    assert text.replace("the loaders yield", "the train loader yields x of shape (4, 2)") in str(error.value)


def test_a_stream_needs_its_own_function_or_loaders():
    with pytest.raises(dlrun.UserError, match="expected a function of your own"):
        dlrun.train("data=stream", *WORDS)
    with pytest.raises(dlrun.UserError, match="x is a loader, which yields"):
        dlrun.train(*WORDS, x=val())
    assert not Path("outputs").exists()
