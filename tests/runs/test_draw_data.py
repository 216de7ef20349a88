"""dl-data draw: columns in their own units, images back in [0, 1], refusals; and inputs in TensorBoard."""

import numpy as np
import pytest
from PIL import Image
from runs import command, compose, train
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dlrun.output.figures import new_figure
from dlrun.runs.data_cli import main


@pytest.fixture
def draw(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return command(monkeypatch, capsys, main, "dl-data", "draw")


def test_columns_are_in_their_own_units(draw, monkeypatch, tmp_path):
    shown = {}
    monkeypatch.setattr("dlrun.output.data_plots.pairs", lambda columns, *_: shown.update(columns) or new_figure()[0])
    assert draw("diabetes", "--columns", "progression,age,bmi", "--out", "a.png")[0] == 0
    assert list(shown) == ["progression", "age", "bmi"] and 18 <= shown["age"].min() < shown["age"].max() < 90
    assert shown["progression"].max() > 300


def test_columns_of_a_table_with_classes_are_drawn(draw, tmp_path):
    code, lines, err = draw("iris")
    assert (code, err, lines) == (0, "", ["iris.png"])
    with Image.open(tmp_path / "iris.png") as image:
        colours = {tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3)[::7]}
    assert len(colours) > 50


@pytest.mark.thorough
def test_drawn_images_are_those_of_training(draw, tmp_path):
    assert draw("digits", "--out", "sheet.png")[:2] == (0, ["sheet.png"])
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["diabetes", "--columns", "agee"], "there is no column 'agee' of numbers; did you mean 'age'?"),
        (["digits", "--columns", "a"], "--columns a: the data is Image(shape=1x8x8, classes=10)"),
        (["cartpole"], "expected a table or images to draw"),
        (["iris", "--out", "iris.pdf"], "--out iris.pdf: expected a name that ends in .png"),
    ],
)
def test_wrong_requests_for_drawings_are_refused(draw, words, text, tmp_path):
    code, lines, err = draw(*words)
    assert code == 2 and text in err and not list(tmp_path.iterdir())


def test_tensorboard_shows_inputs_and_labels(tmp_path):
    """The first images of the first batch, and how often each label occurs in the train split."""
    config = compose(
        "data=digits", "model.hidden=[4]", "trainer.device=cpu", "trainer.histograms=true", "trainer.epochs=1"
    )
    train(tmp_path, config)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert "labels" in events.Tags()["histograms"] and "inputs" in events.Tags()["images"]
    counts = [bucket for bucket in events.Histograms("labels")[0].histogram_value.bucket if bucket]
    assert len(counts) == 10 and sum(counts) == 1438 - 144
    assert len(events.Images("inputs")) == 1
