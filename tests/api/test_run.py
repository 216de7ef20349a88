"""A run in Python: predictions, modules, and what a notebook shows of it."""

import numpy as np
import polars as pl
import pytest
import torch
from finished_runs import FAMILIES, untrained, write_texts
from PIL import Image

import dlrun
from dlrun.api.run import Run


def test_predictions_from_every_kind_of_object(tmp_path):
    write_texts(tmp_path)

    def made(family):
        return dlrun.load(untrained(tmp_path / family, [o.format(data=tmp_path) for o in FAMILIES[family]]))

    run, pixels = made("classes"), np.random.default_rng(0).integers(0, 255, (5, 8, 8), np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    masked = np.ma.array(np.zeros((3, 2)), mask=np.eye(3, 2))
    wanted = run.outputs(pixels)
    assert wanted.shape == (5, 10) and np.allclose(wanted.sum(1), 1, atol=1e-6)
    for x in (pixels[:, None], torch.tensor(pixels), pixels[..., None], paths, [Image.open(p) for p in paths]):
        assert np.array_equal(run.outputs(x), wanted)
    assert np.array_equal(run.outputs(paths[0]), run.outputs(pixels[0]))
    labels = run.predict(pixels)
    assert labels["label"].to_list() == [str(i) for i in wanted.argmax(1)] and "p(9)" in labels.columns
    stored = torch.tensor(pixels[:, None])
    assert np.allclose(run.full_module(stored).detach().numpy(), wanted, atol=1e-6)
    assert not run.module.training
    zeros, shape = torch.zeros(2, 1, 8, 8), r"the module got an input of shape \(8, 8\)\n  expected \(batch, 1, 8, 8\)"
    for x, text in (
        (torch.zeros(8, 8), shape),
        (zeros.double(), "type float64\n  expected float32"),
        (None, "NoneType"),
        (zeros.to("meta"), "on the device meta, which has no values\n  expected one with values"),
        (zeros.to_sparse(), "a sparse tensor\n  expected a dense one"),
        (torch.nested.as_nested_tensor(zeros), "a nested tensor"),
    ):
        with pytest.raises(dlrun.UserError, match=text):
            run.module(x)
    assert run.module.to("meta")(zeros.to("meta")).shape == (2, 10)  # to count operations, say
    with pytest.raises(dlrun.UserError, match=r"on the device cpu\n  expected one on .*: x.to\('meta'\)"):
        run.module.to("meta")(zeros)
    assert run.module.double()(zeros.double()).dtype is torch.float64
    for x, text in (
        (stored[0], r"of shape \(1, 8, 8\)"),
        (stored.float(), "expected pixels as they are stored, uint8"),
        (stored.to("meta"), "on the device meta"),
    ):
        with pytest.raises(dlrun.UserError, match=text):
            run.full_module(x)
    meta = torch.zeros(3, 2, dtype=torch.uint8, device="meta")
    for x, text in (
        (pixels / 255, "uint8"), (pixels[:, :4], "has the shape"), ([3], "is not an image"), (None, "nothing"),
        (5, "5 is not an image"), (meta, "meta tensor"), (masked, "masked array"),
    ):  # fmt: skip
        with pytest.raises(dlrun.UserError, match=text):
            run.predict(x)
    assert made("targets").predict([[0.5, 1.0]]).height == 1
    with pytest.raises(dlrun.UserError, match="one text or number per column"):
        (rows := made("columns")).predict([{"x": 1}, 5])
    texts = made("texts")
    assert texts.predict(["a good film", "bad"])[:1].equals(texts.predict("a good film"))
    for x in (5, np.zeros((2, 2)), pl.LazyFrame({"a": ["good"]})):
        with pytest.raises(dlrun.UserError, match="is not text"):
            texts.predict(x)
    assert made("masks").predict(np.zeros((2, 16, 16, 3), np.uint8)).shape == (2, 16, 16)
    gan, actor = made("gan"), made("actor")
    assert gan.predict(samples=3).shape[0] == 3
    assert actor.predict(episodes=2).columns == ["episode", "return", "length"]
    for each, size in ((gan, 64), (actor, 4), (rows, rows.finished.data.spec.features), (texts, 6)):
        wrong = [torch.zeros(3, size, 3), torch.zeros(3, size, dtype=torch.bool), np.zeros((3, size))]
        right = torch.zeros(3, size, dtype=torch.int32 if each is texts else torch.float32)
        wrong += [right.to("meta"), right.to_sparse()]
        for module in (each.module, each.full_module):
            out = module(right)
            assert len(out[0] if isinstance(out, tuple) else out) == 3
            for x in wrong:
                with pytest.raises(dlrun.UserError, match="the module got an? "):
                    module(x)
    with pytest.raises(dlrun.UserError, match="this run takes --episodes|this run takes"):
        made("values").predict(np.zeros((1, 4)))


def test_a_stranger_s_names_are_escaped(tmp_path):
    folder = untrained(tmp_path / "<img src=x onerror=alert(1)>", FAMILIES["two classes"])
    (folder / "summary.json").write_text(
        '{"status": "finished", "model": "<script>", "best": {"metric": "<b>", "value": 1}}'
    )
    run = dlrun.load(folder)
    html = run._repr_html_()
    assert "<script>" not in html and "<img" not in html and "<b>" not in html and "&lt;script&gt;" in html
    for name in ("loss.png", "acc.png"):
        (folder / "plots").mkdir(exist_ok=True)
        (folder / "plots" / name).symlink_to("/etc/hostname")
    for best, test in (
        ('{"value": "a", "metric": "\\u001b[2J\\ud800"}', '{"a": "b"}'),
        ("[1]", '"x"'),
        ('{"epoch": []}', "{}"),
    ):
        (folder / "summary.json").write_text(f'{{"status": ["x"], "data": {{}}, "best": {best}, "test": {test}}}')
        assert "\x1b" not in repr(run) + run._repr_html_() + run.figures._repr_html_()
        (repr(run) + run._repr_html_()).encode()
        assert "<img" not in run._repr_html_()
    sweep = dlrun.Sweep(folder)
    assert "no results" in repr(sweep) and "no results" in sweep._repr_html_()


def test_a_notebook_shows_the_figures(tmp_path):
    (tmp_path / "plots").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "plots" / "loss.png")
    Image.new("RGB", (2, 2)).save(tmp_path / "plots" / "rows.gif")
    html = Run(tmp_path).figures._repr_html_()
    assert html.count("<img") == 2 and "data:image/png;base64,iVBOR" in html and "data:image/gif;base64,R0lG" in html
