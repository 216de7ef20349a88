"""Samples in memory: arrays, frames and Datasets train and resume; wrong ones are refused first."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import dlrun
from dlrun.api.memory import as_polars, given


def samples(count=200, seed=0):
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 3)).astype(np.float32)
    return x, (x.sum(1) > 0).astype(np.int64)


@pytest.mark.thorough
def test_arrays_train_and_resume_only_with_the_same_arrays():
    x, y = samples()
    words = ["model.hidden=[8]", "trainer.device=cpu"]
    whole = dlrun.train(*words, "trainer.epochs=3", "run_dir=whole", x=torch.tensor(x), y=y.tolist())
    cut = dlrun.train(*words, "trainer.epochs=1", "run_dir=cut", x=x, y=y)
    loaded = dlrun.load(cut.folder)
    with pytest.raises(dlrun.UserError, match="in the memory of a Python program"):
        loaded.evaluate()
    with pytest.raises(dlrun.UserError, match="in the memory of a Python program"):
        dlrun.resume(loaded, "trainer.epochs=3")
    with pytest.raises(dlrun.UserError, match="the data has changed"):
        dlrun.resume(loaded, "trainer.epochs=3", x=x + 0.01, y=y)
    before = cut.outputs(x)
    again = dlrun.resume(loaded, "trainer.epochs=3", x=x, y=y)
    assert np.array_equal(cut.outputs(x), again.outputs(x)) and not np.array_equal(cut.outputs(x), before)
    with pytest.raises(dlrun.UserError, match="a number that is not finite"):
        again.predict(np.full_like(x[:2], np.nan))
    assert torch.equal(again.module(torch.tensor(x)), whole.module(torch.tensor(x)))
    assert again.evaluate("val")["acc"] == again.summary["best"]["value"]
    assert whole.evaluate(x=x, y=y)["acc"] == np.mean(whole.outputs(x).argmax(1) == y)
    with pytest.raises(dlrun.UserError, match="samples in memory belong to one process"):
        dlrun.train(*words, "trainer.processes=2", x=x, y=y)


def test_frames_and_datasets_train():
    x, y = samples()
    frame = pl.DataFrame({"a": x[:, 0], "b": ["u" if v > 0 else "w" for v in x[:, 1]]})
    words = ["model.hidden=[8]", "trainer.epochs=1", "trainer.device=cpu"]
    run = dlrun.train(*words, x=frame, y=pl.Series("kind", y))
    assert run.finished.data.spec.target_names == ("kind",) and frame.columns == ["a", "b"]
    assert run.predict(frame)["label"].to_list() == run.predict([*frame.iter_rows(named=True)])["label"].to_list()
    assert run.evaluate(x=frame, y=y)["acc"] == np.mean(run.predict(frame)["label"].to_numpy() == y.astype(str))
    dataset = torch.utils.data.TensorDataset(torch.tensor(x), torch.tensor(y))
    by_set, by_array = (dlrun.train(*words, x=a, y=b) for a, b in ((dataset, None), (x, y)))
    assert torch.equal(by_set.module(torch.tensor(x)), by_array.module(torch.tensor(x)))


class Bad(torch.utils.data.Dataset):
    def __init__(self, *items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i] if not isinstance(self.items[i], Exception) else (_ for _ in ()).throw(self.items[i])


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield 1, 2


class Long(Bad):
    def __len__(self):
        return -3


ONE = (np.zeros(3), 0)
MASKED, META = np.ma.array(np.zeros((3, 2)), mask=np.eye(3, 2)), torch.zeros(3, 2, device="meta")
WRONG = {
    "x has 200 samples, y has 199 targets": samples()[0:1] + (samples()[1][:-1],),
    "an array (N, ...), each of one shape": ([[1, 2], [3]], [0, 1]),
    "y without x": (None, [1]),
    "Bad[1] is a int: 5": (Bad(ONE, 5), None),
    "Bad[1]: x has the shape (4,), that of the first item (3,)": (Bad(ONE, (np.zeros(4), 0)), None),
    "Bad[0] raised OSError: gone": (Bad(OSError("gone")), None),
    "Bad[0]: x is a dict": (Bad(({"a": 1}, 0)), None),
    "Bad has no items": (Bad(), None),
    "Stream has no length: it is a stream": (Stream(), None),
    "y='z': train has no such column": (pl.DataFrame({"a": [1, 2]}), "z"),
    "expected only one of the two": (Bad(ONE), [1]),
    "Bad[1]: x: setting an array element with a sequence": (Bad((1, 0), ([1, [2, 3]], 0)), None),
    "len() of Long raised ValueError: __len__() should return >= 0": (Long(ONE), None),
    "train: the frame has no rows": (pl.DataFrame({"a": []}), "a"),
    "x without y": (pl.DataFrame({"a": [1, 2]}), None),
    "the LazyFrame raised": (pl.scan_csv("nowhere.csv"), "a"),
    "x: a masked array has no values where it is masked": (MASKED, [0, 1, 0]),
    "y: a masked array has": ([1, 2, 3], MASKED[:, 0]),
    "Bad[0]: x: a masked array has": (Bad((MASKED[0], 0)), None),
    "x: Cannot copy out of meta tensor": (META, [0, 1, 0]),
    "Bad[0]: x: Cannot copy out of meta tensor": (Bad((META[0], 0)), None),
}


@pytest.mark.parametrize("text", WRONG)
def test_wrong_samples_are_refused_before_anything_is_written(text):
    x, y = WRONG[text]
    with pytest.raises(dlrun.UserError) as error:
        if text == "y without x":
            dlrun.train(x=x, y_test=y)
        dlrun.train(x=x, y=y)
    assert text.removeprefix("y ") in str(error.value) and not Path("outputs").exists()


def test_missing_values_of_pandas_become_null():
    class Series(list):
        def tolist(self):
            return list(self)

    class NAType:
        """As pandas' own: it equals nothing and has no truth value."""

        def __ne__(self, other):
            return self

        def __bool__(self):
            raise TypeError("boolean value of NA is ambiguous")

    column = Series([1.0, float("nan"), NAType()])
    members = {"__module__": "pandas.core.frame", "columns": ["a"], "__getitem__": lambda self, name: column}
    frame = type("DataFrame", (), members)()
    assert as_polars(frame)["a"].to_list() == [1.0, None, None]
    assert given(None, None, None, None, None, None).data == {}
    members["columns"] = ["a", "a"]
    with pytest.raises(dlrun.UserError, match="two columns 'a'"):
        as_polars(type("DataFrame", (), members)())


def test_a_lazy_frame_is_collected():
    frame = pl.DataFrame({"a": [1, 2], "b": [0, 1]})
    lazy, eager = (given(x, "b", x, "b", None, None) for x in (frame.lazy(), frame))
    assert lazy.words == eager.words and lazy.data["source"]()["val"].equals(eager.data["source"]()["val"])
