"""Predictions can be matched to files; samples without targets are evaluated; errors name arguments of Python."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from finished_runs import FAMILIES, untrained, write_texts
from PIL import Image
from torch.utils.data import DataLoader, TensorDataset

import dlrun

WORDS = ["trainer.epochs=1", "trainer.device=cpu", "trainer.log_every=0"]


def made(family):
    return dlrun.load(untrained(Path(family), [o.format(data=".") for o in FAMILIES[family]]))


def test_predictions_from_files_have_their_names(capsys):
    run, folder = made("classes"), Path("images")
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (3, 8, 8), np.uint8)
    for name, image in zip("cab", pixels, strict=True):
        Image.fromarray(image).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"x")
    found = run.predict(folder)
    assert found["input"].to_list() == [f"images/{name}.png" for name in "abc"]
    assert found.drop("input").equals(run.predict(pixels[[1, 2, 0]]))
    assert "skipped: images/broken.png cannot be read" in capsys.readouterr().err
    image = Image.fromarray(pixels[0])
    mixed = run.predict([image, folder / "a.png", image])
    assert mixed["input"].to_list() == ["image 0", "images/a.png", "image 2"]
    assert "input" not in run.predict([image]).columns
    write_texts(Path("."))
    texts = made("texts")
    Path("films.csv").write_text("text,label\na great film,good\nbad,bad\n")
    assert texts.predict(Path("films.csv"))["input"].to_list() == ["films.csv:2", "films.csv:3"]
    assert "input" not in texts.predict(["a great film"]).columns
    Path("rows.csv").write_text("1,2\n3,4\n")
    assert made("targets").predict("rows.csv")["input"].to_list() == ["rows.csv:1", "rows.csv:2"]
    columns = made("columns")
    pl.DataFrame({name: [0.5, 1.5] for name in columns.finished.data.fitted()["columns"]}).write_csv("table.csv")
    assert columns.predict("table.csv")["input"].to_list() == ["row 1", "row 2"]


def test_an_autoencoder_is_evaluated_without_targets():
    """With or without targets in training."""
    x = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    for y in (None, np.arange(40) % 4, np.arange(40) / 3):
        run = dlrun.train(*WORDS, "model=autoencoder", x=x, y=y)
        assert run.evaluate(x=x) == pytest.approx(run.evaluate("all"), rel=1e-5)
        assert run.evaluate(x=x[:1])["mse"] >= 0


def test_only_samples_of_the_run_s_kind_are_evaluated():
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    run = dlrun.train(*WORDS, "model.hidden=[4]", x=x, y=x[:, 0] > 0)
    frame = pl.DataFrame(x, schema=["a", "b"])
    assert run.evaluate(x=frame, y=x[:, 0] > 0) == run.evaluate(x=x, y=x[:, 0] > 0)
    with pytest.raises(dlrun.UserError, match="there are no targets"):
        run.evaluate(x=x)
    with pytest.raises(dlrun.UserError, match="samples of shape"):
        run.evaluate(x=np.zeros((2, 3)), y=[0, 1])
    with pytest.raises(dlrun.UserError, match="x is a loader\n  expected x=..., y=...: arrays or"):
        run.evaluate(x=DataLoader(TensorDataset(torch.tensor(x)), batch_size=4))


def test_errors_name_arguments_of_python_and_no_flags():
    image = Image.new("L", (9, 9))
    image.save("a.png")
    for call, text in (
        (lambda: made("classes").predict("a.png"), "fit=True resizes them"),
        (lambda: made("actor").predict([1]), "this run takes episodes=N"),
        (lambda: dlrun.load("classes").predict(samples=3), "samples=3 to predict from: this run takes images"),
        (lambda: dlrun.load("actor").predict([1], episodes=2), "x=..., episodes=2 to predict from"),
        (lambda: made("gan").outputs([1]), "expected run.predict with samples=N"),
        (lambda: dlrun.load(output_dir="nowhere"), "choose another folder with output_dir="),
    ):
        with pytest.raises(dlrun.UserError) as error:
            call()
        assert text in str(error.value) and "--" not in str(error.value)
