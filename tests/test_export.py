"""Every supervised model in every format gives the run's own outputs; what cannot be exported leaves nothing."""

import json
import re

import pytest
import torch
from finished_runs import FAMILIES, small_overrides, trained, untrained, write_texts
from toys import models, takes

from dlrun.after import export as exports
from dlrun.after.export import export
from dlrun.errors import DataError, UserError

FORMATS = ("pt2", "onnx", "safetensors", "state_dict")
QUICK = ["lenet"]


def check(folder, form):
    lines = list(export(folder, form, None))
    assert re.search(r"\d+ real samples in batches of 1, 2, \d+: within", lines[-1]), lines
    files = sorted(path.name for path in (folder / "export").iterdir())
    assert len(files) == 1
    assert (folder / "export" / files[0]).stat().st_mode == (folder / "summary.json").stat().st_mode
    (folder / "export" / files[0]).unlink()


@pytest.mark.parametrize("model", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in models()])
def test_every_model(model, tmp_path):
    kind = "Tokens" if takes(model) == ["Tokens"] else "Image"
    folder = untrained(tmp_path / "run", small_overrides(model, kind, tmp_path / "data"))
    for form in FORMATS:
        check(folder, form)


@pytest.mark.slow
def test_a_graph_has_no_heads_that_only_training_has(tmp_path):
    small = ["model=googlenet", "data=digits", "model.form=cifar", "model.width=2"]
    for heads, weight in enumerate((0, 0.3)):
        folder = untrained(tmp_path / f"run{heads}", [*small, f"model.auxiliary={weight}"])
        list(export(folder, "pt2", tmp_path / f"{heads}.pt2"))
    assert abs((tmp_path / "0.pt2").stat().st_size - (tmp_path / "1.pt2").stat().st_size) < 5_000


@pytest.mark.parametrize("family", [f if f == "texts" else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_every_family(family, tmp_path):
    write_texts(tmp_path)
    folder = untrained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES[family]])
    for form in FORMATS:
        check(folder, form)


def test_a_graph_needs_nothing_of_dl_run(tmp_path):
    """Stored values in, probabilities out, whatever the batch; labels and normalisation are in the file."""
    folder = untrained(tmp_path / "run", ["data=digits", "model.hidden=[8]"])
    list(export(folder, "pt2", tmp_path / "m.pt2"))
    found = {"dlrun": ""}
    graph = torch.export.load(tmp_path / "m.pt2", extra_files=found).module()
    with torch.no_grad():
        out = graph(torch.full((5, 1, 8, 8), 255, dtype=torch.uint8))
        assert torch.allclose(out.sum(1), torch.ones(5)) and torch.equal(out[0], out[4])
    notes = json.loads(found["dlrun"])
    assert notes["labels"] == list("0123456789") and notes["mean"] == [0.3053]


def test_a_wrong_file_is_not_kept(tmp_path, monkeypatch):
    folder = untrained(tmp_path / "run", ["data=digits", "model.hidden=[8]"])
    read = exports.READERS["state_dict"]
    for wrong, said in (
        (lambda y: y + 2e-5, r"other outputs than the run, by up to 2.0e-05"),
        (lambda y: y[:, :9], "shape"),
    ):
        monkeypatch.setitem(exports.READERS, "state_dict", lambda *a, wrong=wrong: lambda x: wrong(read(*a)(x)))
        with pytest.raises(UserError, match=said):
            list(export(folder, "state_dict", None))
        assert not list((folder / "export").iterdir())


def test_a_net_that_torch_cannot_export(tmp_path, monkeypatch):
    folder = untrained(tmp_path / "run", ["data=digits", "model.hidden=[8]"])
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: forward(self, x) * float(x.sum() > -1e9))
    with pytest.raises(UserError, match="torch cannot export mlp as pt2: .*\n  expected another --format: onnx, "):
        list(export(folder, "pt2", None))
    assert not list((folder / "export").iterdir())


def test_data_that_is_gone(tmp_path):
    write_texts(tmp_path)
    folder = untrained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES["texts"]])
    (tmp_path / "texts.csv").unlink()
    with pytest.raises(
        DataError, match=r"there is no .*texts.csv\n  expected the run's data where it was: its samples are compared$"
    ):
        list(export(folder, "pt2", None))
    assert not (folder / "export").exists()


def test_data_that_changed(tmp_path):
    write_texts(tmp_path)
    folder = untrained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES["texts"]])
    text = (tmp_path / "texts.csv").read_text()
    (tmp_path / "texts.csv").write_text(text.replace("film", "play"))
    with pytest.raises(DataError, match="the data is not what it was"):
        list(export(folder, "pt2", None))


def test_averaged_weights_are_exported(tmp_path):
    folder = trained(tmp_path / "run", ["data=digits", "model.hidden=[8]", "trainer.ema=0.9"])
    check(folder, "safetensors")
    check(folder, "pt2")
