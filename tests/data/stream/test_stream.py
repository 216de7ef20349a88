"""The user's own loaders as data: resuming is as exact as they allow, and reported if it is not."""

from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from runs import assert_same, rows
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import dlrun
from dlrun.data.stream.position import StreamReader, is_plain
from dlrun.data.stream.stream import Stream
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


def test_a_state_without_the_random_numbers_of_workers_is_not_called_exact():
    """torchdata 0.11: after kill -9 a shuffled loader with workers that draw noise yields other noise."""
    given = loader("stateful")[0]
    given.num_workers, position = 2, StreamReader()
    position.attach(given, None)
    assert position.promise().startswith("resumes by its state_dict; exact unless its workers draw random numbers")
    next(position.batches(0, 0, 0, 12))
    again = StreamReader()
    again.attach(given, None)
    again.load_state_dict(position.state_dict())
    assert again.find(0).startswith("the stream continues from its state_dict; exact unless its workers draw")


@pytest.mark.thorough(but=["stateful"])
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


class Raising(Broken):
    def __iter__(self):
        yield from self.items
        raise ValueError("the disk of clouds is gone")


class Once(Broken):
    """An iterator: it can be read only once."""

    def __init__(self, *items):
        self.items = iter(items)

    def __next__(self):
        return next(self.items)


X, Y = samples(4, 0)
GOOD, ONE = Broken((X, Y)), ["data.epoch_batches=1"]
REAL = ["data.classes=null"]
WRONG = {  # train, val, words
    "yields nothing": (GOOD, Broken(), []),
    "expected batches (x, y) of two tensors": (GOOD, Broken((X,)), []),
    "the val loader yields a NoneType": (GOOD, Broken(None), []),
    "expected labels (batch,) from 0 to 1": (GOOD, Broken((X, Y + 5)), []),
    "with a target for each sample": (GOOD, Broken((X, Y[:2])), []),
    "x of shape (), and data.kind=auto": (GOOD, Broken((1.0, 0)), []),
    "expected this number of axes": (GOOD, Broken((X[:, :, None, None, None], Y)), []),
    "2 (tokens)": (GOOD, Broken((X[:, :, None], Y)), ["data.kind=tokens", "data.vocab=9"]),
    "expected tokens (batch, length) from 0 to 8": (GOOD, Broken((X, Y)), ["data.kind=tokens", "data.vocab=9"]),
    "data.vocab is null": (GOOD, GOOD, ["data.kind=tokens"]),
    "data.labels has 1 name": (GOOD, GOOD, ["data.labels=[a]"]),
    "expected dense tensors": (GOOD, Broken((X.to_sparse(), Y)), []),
    "can be read only once": (GOOD, Once((X, Y)), []),
    "test_stream.py, line": (GOOD, Raising(), []),
    "expected data.epoch_batches": (GOOD, GOOD, []),
    "the train loader yields x of shape (4, 2)": (Broken((X[:, :2], Y)), GOOD, ONE),
    "the train loader yields y with 2 targets": (Broken((X, X[:, :2])), Broken((X, X[:, :1])), [*ONE, *REAL]),
    "the train loader raised ValueError: the disk of clouds is gone": (Raising((X, Y)), GOOD, ["data.epoch_batches=2"]),
    "the train loader yields a NoneType": (Broken((X, Y), None), GOOD, ["data.epoch_batches=2"]),
    "yields nothing in pass 2": (Once((X, Y)), GOOD, ["data.epoch_batches=2"]),
}


LABELS = torch.arange(40) % 3
PLAIN = [word for word in WORDS if "classes" not in word] + ["trainer.epochs=1"]


def test_labels_of_a_tensor_dataset_are_classes(capsys):
    """As without a loader; others are never taken for real targets without a word."""
    x = torch.randn(40, 3)
    loaders = [DataLoader(data, batch_size=8) for data in (TensorDataset(x, LABELS), TensorDataset(x[:9], LABELS[:9]))]
    part = DataLoader(torch.utils.data.Subset(loaders[0].dataset, range(20)), batch_size=8)
    for train in (loaders[0], part):
        assert dlrun.train(*PLAIN, x=train, x_val=loaders[1]).finished.data.spec.classes == 3
    assert "5 batches an epoch, one pass, 3 classes;" in capsys.readouterr().out
    assert dlrun.train(*PLAIN, "data.classes=5", x=part, x_val=part).finished.data.spec.classes == 5
    real = DataLoader(TensorDataset(x, LABELS.float()), batch_size=8)
    assert dlrun.train(*PLAIN, x=real, x_val=real).finished.data.spec.targets == 1
    assert "one pass, 1 real target;" in capsys.readouterr().out
    for unknown in ([(x, LABELS)], [(x, LABELS[:, None])], DataLoader(TensorDataset(x, LABELS - 1), batch_size=8)):
        with pytest.raises(dlrun.UserError, match="y of type int64, and data.classes is null: are they labels or real"):
            dlrun.train(*PLAIN, x=loaders[0], x_val=unknown)


class Listed(list):
    batch_size = None


def test_a_list_of_batches_is_counted_and_val_is_not_called_test(capsys):
    """The header said 3,200 samples of 10 batches of 32, and the table called the numbers of val those of test."""
    train, held_out = Listed(samples(32, i) for i in range(10)), Listed([samples(320, 11)])
    dlrun.train(*WORDS, "trainer.epochs=1", x=train, x_val=held_out)
    out = capsys.readouterr().out
    assert ": 320 train, 320 val (no test: val is tested); " in out
    assert "\nval as test  " in out and "\ntest" not in out
    dlrun.train(*WORDS, "trainer.epochs=1", x=train, x_val=held_out, x_test=held_out)
    out = capsys.readouterr().out
    assert ": 320 train, 320 val, 320 test; " in out and "\ntest  " in out


@pytest.mark.parametrize(
    ("made", "text"),
    [
        ({"train": []}, "data.source returned a dict without 'val'\n  expected"),
        ({"test": []}, "returned a dict without 'train' and 'val'"),
        ([], "returned a list\n  expected a dictionary"),
    ],
)
def test_a_source_without_a_loader_is_told_which_one(made, text):
    keys = {"kind": "auto", "classes": 2, "vocab": None, "labels": [], "epoch_batches": None}
    with pytest.raises(dlrun.UserError, match=text):
        Stream(source=lambda: made, **keys).load(torch.device("cpu"))


@pytest.mark.thorough(
    but=[
        "yields nothing",
        "the val loader yields a NoneType",
        "expected labels (batch,) from 0 to 1",
        "with a target for each sample",
        "expected dense tensors",
        "can be read only once",
        "the train loader yields x of shape (4, 2)",
        "the train loader raised ValueError: the disk of clouds is gone",
    ]
)
@pytest.mark.parametrize("text", WRONG)
def test_garbage_is_refused(text):
    x, x_val, words = WRONG[text]
    with pytest.raises(dlrun.UserError) as error:
        dlrun.train(*WORDS, *words, "trainer.epochs=1", x=x, x_val=x_val)
    assert text in str(error.value)


class WithState(Broken):
    """A loader whose state is whatever the test gives it."""

    def __init__(self, state):
        super().__init__((X, Y), (X + 1, Y))
        self.state, self.taken = state, []

    def __len__(self):
        return 2

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.taken.append(state)
        if state == {"bad": 1}:
            raise KeyError("at")


@pytest.mark.thorough
def test_a_state_of_any_kind_leaves_a_run_that_can_be_resumed():
    """A state that a checkpoint cannot hold counts as none; the header states it."""
    for state in ([1, (2, "a")], {"at": torch.ones(2)}, 7, {"a": {1: None, "b": [True, 0.5]}}):
        assert is_plain(state)
    for state in (np.float64(1), np.zeros(2), torch.tensor(np.nan), X.to_sparse(), X.cfloat(), {(1, 2): 3}, {"a": {X}}):
        assert not is_plain(state) and not is_plain({"at": [state]})
    words = [*WORDS, "trainer.epochs=2"]
    again = cut_and_resumed(words, lambda: WithState([1, (2, "a")]), 3, "plain")
    assert "resumes exactly, by its state_dict" in (again.folder / "run.log").read_text()
    log = (cut_and_resumed(words, lambda: WithState({"at": np.float64(1)}), 3, "other").folder / "run.log").read_text()
    assert "without state_dict" in log and "its last batch is the same" in log
    with pytest.raises(dlrun.UserError, match="load_state_dict of the train loader raised KeyError: 'at'"):
        cut_and_resumed(words, lambda: WithState({"bad": 1}), 3, "bad")


def test_batches_of_any_type_resume():
    """bfloat16, which NumPy does not know, and tensors that require gradients."""
    batches = [(X.bfloat16().requires_grad_(), Y), (X.double(), Y.to(torch.uint8))]
    again = cut_and_resumed([*WORDS, "data.epoch_batches=2", "trainer.epochs=2"], lambda: Broken(*batches), 3, "types")
    assert "its last batch is the same" in (again.folder / "run.log").read_text()


def test_a_short_pass_ends_its_epoch():
    class Short(Broken):
        def __len__(self):
            return 5

    run = dlrun.train(*WORDS, "trainer.epochs=2", x=Short((X, Y), (X, Y), (X, Y)), x_val=GOOD)
    assert run.metrics["step"].to_list() == [3, 6]


class NoisyVal:
    """Val whose noise comes from torch's global generator."""

    def __iter__(self):
        yield torch.randn(20, 3), samples(20, 2)[1]

    batch_size = 20


def test_a_stop_in_validation_does_not_change_random_val_batches():
    def stopping(self, data, split):
        raise KeyboardInterrupt

    words = [*WORDS, "trainer.epochs=2", "trainer.checkpoint_every_steps=1"]
    whole = dlrun.train(*words, "run_dir=whole", x=loader("shuffled")[0], x_val=NoisyVal())
    with patch.object(Supervised, "evaluate", stopping), pytest.raises(KeyboardInterrupt):
        dlrun.train(*words, "run_dir=cut", x=loader("shuffled")[0], x_val=NoisyVal())
    again = dlrun.resume("cut", x=loader("shuffled")[0], x_val=NoisyVal())
    assert rows(whole.folder) == rows(again.folder)


def test_a_stream_needs_its_own_function_or_loaders():
    with pytest.raises(dlrun.UserError, match="expected a function of your own"):
        dlrun.train("data=stream", *WORDS)
    with pytest.raises(dlrun.UserError, match="x is a loader, which yields"):
        dlrun.train(*WORDS, x=val())
    assert not Path("outputs").exists()
