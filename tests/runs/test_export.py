"""Every supervised model in every format gives the outputs of the run; a failed export leaves nothing."""

import json
import os
import re
import subprocess
import sys

import gymnasium
import onnx
import pytest
import torch
from finished_runs import FAMILIES, small_overrides, trained, untrained, write_texts
from toys import models, takes

from dlrun.errors import DataError, UserError
from dlrun.output.written import whole
from dlrun.runs import export as exports
from dlrun.runs.export import export
from dlrun.train.finished import FinishedRun

FORMATS = ("pt2", "onnx", "safetensors", "state_dict")
QUICK = ["lenet"]


def check(folder, form):
    lines = list(export(folder, form, None))
    assert re.search(r"checked \d+ (real samples|codes|observations) in batches of 1, 2, \d+: within", lines[-1]), lines
    (file,) = (path for path in (folder / "export").iterdir() if path.name != "encoding.json")  # of rows of a table
    assert file.stat().st_mode == (folder / "summary.json").stat().st_mode
    file.unlink()


@pytest.mark.thorough
@pytest.mark.parametrize("model", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in models()])
def test_every_model_is_exported_exactly(model, tmp_path):
    kind = next(kind for kind in ("Image", "Tokens", "Series", *takes(model)) if kind in takes(model))
    folder = untrained(tmp_path / "run", small_overrides(model, kind, tmp_path / "data"))
    for form in FORMATS:
        check(folder, form)


@pytest.mark.slow
def test_an_exported_graph_has_no_auxiliary_heads(tmp_path):
    small = ["model=googlenet", "data=digits", "model.form=cifar", "model.width=2"]
    for heads, weight in enumerate((0, 0.3)):
        folder = untrained(tmp_path / f"run{heads}", [*small, f"model.auxiliary={weight}"])
        list(export(folder, "pt2", tmp_path / f"{heads}.pt2"))
    assert abs((tmp_path / "0.pt2").stat().st_size - (tmp_path / "1.pt2").stat().st_size) < 5_000


@pytest.mark.thorough
@pytest.mark.parametrize("family", [f if f == "texts" else pytest.param(f, marks=pytest.mark.slow) for f in FAMILIES])
def test_every_task_is_exported_exactly(family, tmp_path):
    write_texts(tmp_path)
    folder = untrained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES[family]])
    for form in FORMATS:
        check(folder, form)


def test_an_exported_graph_runs_without_dl_run(tmp_path):
    """Stored values in, probabilities out, for any batch size; the file holds labels and normalisation."""
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
    for wrong, message in (
        (lambda y: y + 2e-5, r"outputs differ from the run's by up to 2.0e-05"),
        (lambda y: y[:, :9], "shape"),
    ):
        monkeypatch.setitem(exports.READERS, "state_dict", lambda *a, wrong=wrong: lambda x: wrong(read(*a)(x)))
        with pytest.raises(UserError, match=message):
            list(export(folder, "state_dict", None))
        assert not list((folder / "export").iterdir())


def test_a_network_that_torch_cannot_export_is_reported(tmp_path, monkeypatch):
    folder = untrained(tmp_path / "run", ["data=digits", "model.hidden=[8]"])
    forward = torch.nn.Linear.forward
    monkeypatch.setattr(torch.nn.Linear, "forward", lambda self, x: forward(self, x) * float(x.sum() > -1e9))
    with pytest.raises(UserError, match="torch cannot export mlp as pt2: .*\n  expected another --format: onnx, "):
        list(export(folder, "pt2", None))
    assert not list((folder / "export").iterdir())


@pytest.mark.parametrize("family", ["texts", "targets"])
def test_missing_or_changed_data_is_replaced_by_random_inputs(family, tmp_path, monkeypatch):
    """An export needs the run's folder only; nothing is fetched."""
    write_texts(tmp_path)
    folder = untrained(tmp_path / "run", [o.format(data=tmp_path) for o in FAMILIES[family]])
    monkeypatch.setattr(FinishedRun, "load_data", gone)
    lines = list(export(folder, "state_dict", None))
    assert lines[-1].startswith("  checked 33 drawn samples (the data is gone) in batches of 1, 2, 30: within"), lines


@pytest.mark.parametrize("id", ["Acrobot-v1", "FrozenLake-v1"])
def test_a_policy_is_exported_without_its_environment(id, tmp_path, monkeypatch):
    """The user's package is missing: the spaces of observations and actions are in the checkpoint."""
    folder = untrained(tmp_path / "run", ["model=dqn", "data=gym", f"data.id={id}"])
    monkeypatch.delitem(gymnasium.registry, id)
    lines = list(export(folder, "pt2", None))
    assert lines[-1].startswith(f"  checked 33 drawn observations (data.id={id}: there is no such environment"), lines


def test_only_regular_files_are_replaced(tmp_path):
    """Root could replace /dev/null by a model. A link stays a link."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "file").write_text("before")
    with pytest.raises(UserError, match="cannot write .*pipe: it is a FIFO\n"), whole(tmp_path / "pipe"):
        pass
    with whole(tmp_path / "link") as temporary:
        temporary.write_text("after")
    assert (tmp_path / "file").read_text() == "after" and (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]


def gone(run, download=True):
    assert not download
    raise DataError("the data is gone\n  expected it")


@pytest.mark.thorough
def test_the_exported_graph_accepts_any_batch_size(tmp_path):
    """Not even batches of two samples, or of one, fix the size in the graph."""
    for count in (1, 2):
        few = ["data=linear", "model=linear", f"data.source.test_samples={count}", f"data.eval_batch_size={count}"]
        folder = untrained(tmp_path / f"run{count}", few)
        lines = list(export(folder, ("pt2", "onnx")[count - 1], tmp_path / f"named{count}"))  # a name without a suffix
        assert lines[-1].startswith(f"  checked {count} real sample") and "batches of 1, 2, 30" in lines[-1]
    graph = onnx.load(tmp_path / "named2").graph
    assert [v.type.tensor_type.shape.dim[0].dim_param for v in (*graph.input, *graph.output)] == ["batch", "batch"]


@pytest.mark.slow
def test_a_full_disk_is_reported(tmp_path):
    folder = untrained(tmp_path / "run", ["data=digits", "model.hidden=[512]"])
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (99_000, 99_000))"
    code = f"{limited}; sys.argv = ['dl-runs', 'export', {str(folder)!r}, '--format', sys.argv[1]]; "
    for form in FORMATS:
        command = [sys.executable, "-c", code + "from dlrun.runs.cli import main; main()", form]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 1 and f"cannot write {folder}" in done.stderr, done.stderr
        assert not list((folder / "export").iterdir())


def test_averaged_weights_are_exported(tmp_path):
    folder = trained(tmp_path / "run", ["data=digits", "model.hidden=[8]", "trainer.ema=0.9"])
    check(folder, "safetensors")
    check(folder, "pt2")
