"""Samples in memory: what is trained is what is predicted, and a run takes only samples like those that it had."""

import pickle
import signal
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from PIL import Image

import dlrun
from dlrun.api.memory import given
from dlrun.tasks.supervised import Supervised

WORDS = ["model=mlp", "model.hidden=[4]", "trainer.epochs=1", "trainer.device=cpu", "trainer.log_every=0"]
COLOURED = ("P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
REFUSED = ("LA", "La", "PA", "RGBA", "RGBa", "I", "I;16", "F")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dlrun.output.plot_files.PlotFiles._plot", lambda *a: None)  # drawing takes most of the time


class Pairs(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i], self.y[i]


def pictures(mode, count=40):
    """Noisy images of two colours."""
    noise = np.random.default_rng(0).integers(0, 60, (count, 8, 8, 3), np.uint8)
    noise[np.arange(count), :, :, np.arange(count) % 2 * 2] += 180
    way = {"La": ["LA", "La"], "PA": ["RGBA", "PA"], "RGBa": ["RGBA", "RGBa"], "I;16": ["I", "I;16"]}
    images = [Image.fromarray(each) for each in noise]
    for step in way.get(mode, [mode]):
        images = [image.convert("L").convert(step) if step == "LAB" else image.convert(step) for image in images]
    return images


def test_images_of_pillow_are_trained_on_as_they_are_predicted():
    """The pixels of a palette image were its indices, and colours of other spaces were taken for red, green, blue."""
    targets = np.arange(40) % 2
    runs = {}
    for mode in ("P", "1"):
        images = pictures(mode)
        runs[mode] = dlrun.train(*WORDS, x=Pairs(images, targets))
        taken = runs[mode].predict(images)["label"].to_numpy().astype(int) == targets
        assert runs[mode].evaluate(x=Pairs(images, targets))["acc"] == taken.mean()
    for mode in (*COLOURED, "1", "L"):
        images = pictures(mode)
        pixels = given(Pairs(images, targets), None, None, None, None, None).data["arrays"]["x"]
        run = runs["P" if mode in COLOURED else "1"]
        assert pixels.dtype == np.uint8 and pixels.shape[1:] == ((8, 8, 3) if mode in COLOURED else (8, 8)), mode
        assert np.array_equal(run.outputs(images), run.outputs(pixels)), mode
        assert np.array_equal(given(images, targets, None, None, None, None).data["arrays"]["x"], pixels), mode


@pytest.mark.parametrize("mode", REFUSED)
def test_images_that_prediction_would_read_otherwise_are_refused(mode):
    images = pictures(mode, 4)
    for x, y in ((Pairs(images, [0, 1, 0, 1]), None), (images, [0, 1, 0, 1])):
        with pytest.raises(dlrun.UserError, match=f"is an image of mode {mode}") as error:
            given(x, y, None, None, None, None)
        assert "expected mode L or RGB" in str(error.value)


def test_after_an_interrupt_the_advice_has_the_samples(monkeypatch, capsys):
    learn, x = Supervised.step, np.random.default_rng(0).normal(size=(40, 3))

    def interrupted(self, batch, clock):
        signal.raise_signal(signal.SIGINT)
        return learn(self, batch, clock)

    for again in (partial(dlrun.train, *WORDS, "run_dir=run"), partial(dlrun.resume, "run")):
        monkeypatch.setattr(Supervised, "step", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"dlrun.resume\('run', x=\.\.\., y=\.\.\.\)"):
            again(x=x, y=x[:, 0])
        assert "Resume with: dlrun.resume('run', x=..., y=...)\n" in capsys.readouterr().out
    monkeypatch.setattr(Supervised, "step", learn)
    assert dlrun.resume("run", x=x, y=x[:, 0]).status == "finished"


def test_objects_that_are_numbers_are_numbers():
    """Of a frame with mixed columns `to_numpy` gives them; each was refused as a float."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    run = dlrun.train(*WORDS, x=x.astype(object), y=(x[:, 0] > 0).astype(object))
    assert np.array_equal(run.outputs(x.astype(object)), run.outputs(x))
    assert run.evaluate(x=x.astype(object), y=(x[:, 0] > 0).astype(object)) == run.evaluate(x=x, y=x[:, 0] > 0)
    for wrong in (None, "a", [1]):
        mixed = x.astype(object)
        mixed[3, 1] = wrong
        with pytest.raises(dlrun.UserError, match="x"):
            run.predict(mixed)
        with pytest.raises(dlrun.UserError, match="x holds a "):
            given(mixed, x[:, 0], None, None, None, None)


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_is_refused_as_transparency_is(mode):
    """docs/python.md says so, and they were trained on, on white."""
    images = pictures(mode, 4)
    images[2].info["transparency"] = 0
    with pytest.raises(dlrun.UserError, match=rf"x\[2\] is an image of mode {mode}, with transparency"):
        given(images, [0, 1, 0, 1], None, None, None, None)


def test_a_run_is_resumed_with_samples_only_if_it_was_trained_on_such_samples():
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    y, frame = (x.sum(1) > 0).astype(int), pl.DataFrame(x)
    stored, arrays = dlrun.train(*WORDS, "data=moons"), dlrun.train(*WORDS, x=x, y=y)
    for samples in (x, frame):
        with pytest.raises(dlrun.UserError, match="was trained on data=moons, not on samples in memory"):
            dlrun.resume(stored, "trainer.epochs=2", x=samples, y=y)
    with pytest.raises(dlrun.UserError, match="was trained on arrays or a Dataset\n  expected the same samples, not a"):
        dlrun.resume(arrays, "trainer.epochs=2", x=frame, y=y)
    with pytest.raises(dlrun.UserError, match="y without x"):
        stored.evaluate(y=y)


@pytest.mark.parametrize("name", ["ü=${x}", "a\\b", "a\\"])
def test_a_target_may_have_any_name(name):
    frame = pl.DataFrame({"u": np.arange(40) / 40, name: np.arange(40) % 3 / 3})
    run = dlrun.train(*WORDS, x=frame, y=name)
    assert dlrun.load(run.folder).finished.data.spec.target_names == (name,)


def test_a_run_is_pickled_as_its_folder():
    run = dlrun.train(*WORDS, "data=moons")
    before = run.outputs([0.0, 1.0])
    again = pickle.loads(pickle.dumps(run))
    assert again.folder == run.folder.absolute() and np.array_equal(again.outputs([0.0, 1.0]), before)
