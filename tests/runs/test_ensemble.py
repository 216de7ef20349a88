"""Ensembles: the mean of predictions, and what cannot be averaged."""

import json

import pytest
import torch
from finished_runs import trained
from torch import nn

from dlrun.errors import UserError
from dlrun.runs.ensemble import Ensemble, ensemble, export_ensemble
from dlrun.runs.model_files import FP32, READERS, Graph
from dlrun.train.finished import FinishedRun


@pytest.mark.parametrize(("classes", "outputs"), [(None, 3), (2, 1), (5, 5)])
def test_predictions_are_means_over_the_networks(classes, outputs):
    torch.manual_seed(0)
    nets, x = [nn.Linear(4, outputs) for _ in range(3)], 3 * torch.randn(6, 4)
    predict = {None: lambda out: out, 2: torch.sigmoid, 5: lambda out: out.softmax(1)}[classes]
    wanted = torch.stack([predict(net(x)) for net in nets]).mean(0)
    torch.testing.assert_close(predict(Ensemble(nets, classes)(x)), wanted)


def test_an_ensemble_is_evaluated_like_a_run(tmp_path):
    small = ["data=moons", "model.hidden=[4]"]
    jobs = {"0": ["seed=0"], "1": ["seed=1"], "other": ["data.source.noise=0.3"], "vae": ["model=vae", "data=digits"]}
    folders = {name: tmp_path / name for name in jobs}
    for name in ("0", "1", "other"):
        trained(folders[name], [*small, *jobs[name]])
    ours = list(folders.values())[:2]
    together = json.loads(ensemble(ours, "test", None, True)[0])
    alone = [FinishedRun(folder) for folder in ours]
    p = torch.stack(
        [torch.cat([run.task.predict(x) for x, _ in run.load_data().batches("test")]) for run in alone]
    ).mean(0)
    y = torch.cat([y for _, y in alone[0].data.batches("test")])
    assert together["metrics"]["loss"] == pytest.approx(-p.gather(1, y[:, None]).log().mean().item(), rel=1e-5)
    assert together["metrics"]["acc"] == pytest.approx((p.argmax(1) == y).double().mean().item())
    lines = "\n".join(ensemble(ours, "test", None, False))
    assert "2 runs, moons, test split" in lines and "each alone" in lines and "ensemble of 2" in lines
    with pytest.raises(UserError, match=r"--export .*mean.txt: expected a file that ends in .pt2 or .onnx"):
        list(export_ensemble(ours, tmp_path / "mean.txt"))
    with pytest.raises(UserError, match="other learned from other samples, classes or statistics than"):
        ensemble([*ours, folders["other"]], "test", None, False)
    with pytest.raises(UserError, match="^1 finished run of 1: an ensemble is the mean of several"):
        ensemble(ours[:1], "test", None, False)
    trained(folders["vae"], jobs["vae"])
    with pytest.raises(UserError, match="task=vae predicts nothing that could be averaged"):
        ensemble([folders["vae"], ours[0]], "test", None, False)


def test_folds_are_averaged_where_they_have_the_same_samples(tmp_path):
    small = ["data=digits", "model.hidden=[4]", "data.folds=3"]
    folds = [trained(tmp_path / str(k), [*small, f"data.fold={k}"]) for k in range(2)]
    assert json.loads(ensemble(folds, "test", None, True)[0])["metrics"].keys() >= {"loss", "acc"}
    with pytest.raises(UserError, match="1: its val split has other samples than that of .*0\n.*the test split"):
        ensemble(folds, "val", None, False)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["pt2", "onnx"])
def test_the_mean_prediction_as_one_graph(form, tmp_path):
    folders = [trained(tmp_path / str(n), ["data=moons", "model.hidden=[4]", f"seed={n}"]) for n in range(3)]
    graph, x = tmp_path / f"mean.{form}", torch.randn(5, 2)
    assert "checked 33 real samples" in list(export_ensemble(folders, graph))[-1]
    each = torch.stack([Graph(FinishedRun(folder, FP32), "inputs").eval()(x) for folder in folders])
    torch.testing.assert_close(READERS[form](tmp_path, "inputs", graph)(x), each.mean(0))
