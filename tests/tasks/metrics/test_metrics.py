"""Metrics agree with scikit-learn's; thresholds of skewed classes; metrics while training."""

import json
import signal
from functools import partial

import numpy as np
import polars as pl
import pytest
import torch
from layouts import SKEWED, write_skewed
from runs import assert_same, compose, rows, train
from sklearn import metrics as theirs
from torch import nn
from toys import Batches, make_task

from dlrun.errors import UserError
from dlrun.output.checkpoint import load
from dlrun.spec import Columns, Table
from dlrun.system.distributed import Distributed
from dlrun.tasks import metrics as ours
from dlrun.tasks.metrics.decision import SCORES, Decision
from dlrun.tasks.metrics.measures import Measures, counts, examples
from dlrun.tasks.metrics.outcomes import Outcomes, gathered
from dlrun.train.finished import FinishedRun
from dlrun.types import Higher, Lower

TWO, THREE = Table(features=3, classes=2), Table(features=3, classes=3, labels=("a b", "c", "d"))
NAMES = ("f1", "precision", "recall")


@pytest.fixture(autouse=True)
def without_plots(monkeypatch):
    """They take most of a small run's time."""
    monkeypatch.setattr("dlrun.output.run_folder.RunFolder.write_plots", lambda *arguments: None)


def drawn(classes: int, seed: int, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Classes and probabilities of 60 samples. levels: number of different probabilities, so that many are equal."""
    random = np.random.default_rng(seed)
    y = random.integers(0, classes, 60)
    p = random.dirichlet(np.ones(classes), 60) + 0.6 * np.eye(classes)[y]
    p /= p.sum(1, keepdims=True)
    if levels:
        first = np.round(p[:, 0] * levels) / levels
        p = np.column_stack([first, *(1 - first)[None] * np.full((classes - 1, 1), 1 / (classes - 1))])
    return y, p


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("levels", [None, 4])
def test_metrics_of_classes_are_scikit_learns(classes, levels):
    y, p = drawn(classes, 10 * classes, levels)
    predicted, labels = p.argmax(1), range(classes)
    table = counts(y, predicted, classes)
    assert table.tolist() == theirs.confusion_matrix(y, predicted, labels=labels).tolist()
    auto = "binary" if classes == 2 else "macro"
    for name, wanted in (*((name, getattr(theirs, f"{name}_score")) for name in NAMES), ("iou", theirs.jaccard_score)):
        metric = getattr(ours, name)
        for average in ("auto", "macro", "micro", "weighted"):
            expected = wanted(y, predicted, average=auto if average == "auto" else average, zero_division=0.0)
            assert metric(table, average=average) == pytest.approx(expected, abs=1e-12), (name, average)
        expected = wanted(y, predicted, average=None, zero_division=0.0)
        assert metric(table, average="per_class") == pytest.approx(expected, abs=1e-12)
    assert ours.acc(table) == theirs.accuracy_score(y, predicted)
    assert ours.balanced_acc(table) == pytest.approx(theirs.balanced_accuracy_score(y, predicted))
    assert ours.mcc(table) == pytest.approx(theirs.matthews_corrcoef(y, predicted))
    one_hot = np.eye(classes, dtype=int)[y]
    for name, wanted in (("auroc", theirs.roc_auc_score), ("average_precision", theirs.average_precision_score)):
        for average in ("macro", "micro", "weighted"):
            found = getattr(ours, name)(y, p, average=average)
            assert found == pytest.approx(wanted(one_hot, p, average=average), abs=1e-12)
        if classes == 2:
            assert getattr(ours, name)(y, p) == pytest.approx(wanted(y, p[:, 1]))
    assert ours.top(y, p, k=1) >= theirs.accuracy_score(y, predicted) and ours.top(y, p, k=classes) == 1
    if levels is None:
        for k in range(1, classes):
            assert ours.top(y, p, k=k) == (np.argsort(-p)[:, :k] == y[:, None]).any(1).mean()
    squares = np.square(p - one_hot).sum(1).mean()
    assert ours.brier(y, p) == pytest.approx(theirs.brier_score_loss(y, p[:, 1]) if classes == 2 else squares)


def test_classes_that_do_not_occur_do_not_count():
    table = np.array([[3, 1, 0], [1, 2, 0], [0, 0, 0]])
    y, predicted = [0] * 4 + [1] * 3, [0, 0, 0, 1, 0, 1, 1]
    for name in NAMES:
        expected = getattr(theirs, f"{name}_score")(y, predicted, average="macro")
        assert getattr(ours, name)(table) == pytest.approx(expected)
        expected = getattr(theirs, f"{name}_score")(y, predicted, average="weighted")
        assert getattr(ours, name)(table, average="weighted") == pytest.approx(expected)
        assert np.isnan(getattr(ours, name)(table, average="per_class")[2])
    p = np.array([[0.5, 0.3, 0.2], [0.2, 0.6, 0.2], [0.1, 0.8, 0.1]])
    assert np.isnan(ours.auroc(np.array([1, 1, 1]), p)) and ours.average_precision(np.array([1, 1, 1]), p) == 1
    assert ours.mcc(np.array([[0, 0], [0, 4]])) == 0 and np.isnan(ours.recall(np.zeros((3, 3), int)))


def test_calibration_error_by_hand():
    """Two bins: probability 0.4 that is right in half of the cases, and 0.9 that is right in 2 of 3."""
    p = np.array([[0.4, 0.3, 0.3], [0.4, 0.3, 0.3], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0]])
    y = np.array([0, 1, 0, 0, 1])
    assert ours.ece(y, p, bins=2) == pytest.approx(2 / 5 * abs(0.4 - 1 / 2) + 3 / 5 * abs(0.9 - 2 / 3))
    assert ours.ece(np.array([0, 1]), np.eye(2)) == 0 and ours.ece(np.array([1, 0]), np.eye(2)) == 1


def test_metrics_of_real_targets_are_scikit_learns():
    random = np.random.default_rng(0)
    y = random.normal(3, 1, (40, 2)).round(1).astype(np.float32)  # with equal values
    out = (y + random.normal(0, 0.5, (40, 2))).astype(np.float32)
    for average, keys in (("mean", {}), ("per_target", {"multioutput": "raw_values"})):
        for name, wanted in (
            ("mae", theirs.mean_absolute_error),
            ("mse", theirs.mean_squared_error),
            ("r2", theirs.r2_score),
            ("mape", theirs.mean_absolute_percentage_error),
            ("median_ae", theirs.median_absolute_error),
        ):
            found = getattr(ours, name)(y, out, average=average)
            assert found == pytest.approx(wanted(y.astype(float), out.astype(float), **keys), rel=1e-6), name
    assert ours.rmse(y[:, :1], out[:, :1]) == pytest.approx(theirs.mean_squared_error(y[:, 0], out[:, 0]) ** 0.5)
    columns = [pl.DataFrame({"y": y[:, i], "out": out[:, i]}) for i in range(2)]
    expected = [each.select(pl.corr("y", "out", method="spearman")).item() for each in columns]
    assert ours.spearman(y, out, average="per_target") == pytest.approx(expected)
    assert ours.spearman(y, np.ones_like(y)) == 0


def named(spec, *calls, known=()):
    return Measures(calls, spec, known)


def test_scores_are_named_by_word_and_class():
    measures = named(
        THREE,
        partial(ours.f1, average="micro"),
        partial(ours.recall, average="per_class"),
        partial(ours.top, k=2),
        partial(ours.ece),
        partial(ours.acc),
        known=("loss", "acc"),
    )
    scores = {"f1_micro": "max", "recall_a_b": "max", "recall_c": "max", "recall_d": "max", "top2": "max", "ece": "min"}
    assert measures.scores() == scores
    y, p = drawn(3, 0)
    found = measures({"counts": counts(y, p.argmax(1), 3), "y": y, "p": p})
    assert list(found) == list(scores)
    assert found["recall_c"] == pytest.approx(theirs.recall_score(y, p.argmax(1), average=None)[1])
    message = "task.metrics=f1 is for classes, and this data has real targets\n  expected mae, mape, median_ae"
    with pytest.raises(UserError, match=message):
        named(Table(features=3, targets=1), partial(ours.f1))
    with pytest.raises(UserError, match="task.metrics=top3 is always 1 with 3 classes"):
        named(THREE, partial(ours.top, k=3))
    with pytest.raises(UserError, match="two metrics are named f1"):
        named(THREE, partial(ours.f1), partial(ours.f1))
    targets = Columns(numbers=1, targets=2, target_names=("width", "height"))
    assert list(named(targets, partial(ours.rmse, average="per_target")).scores()) == ["rmse_width", "rmse_height"]


@pytest.mark.parametrize(("spec", "metric"), [(TWO, "brier"), (THREE, "brier"), (THREE, "top2")])
def test_training_measures_what_is_a_mean_over_samples(spec, metric):
    call = partial(ours.top, k=2) if metric == "top2" else partial(ours.brier)
    out = torch.randn(20, spec.outputs, generator=torch.Generator().manual_seed(0))
    y = torch.arange(20) % spec.classes
    task = make_task(nn.Linear(3, spec.outputs), spec, task={"metrics": [call]})
    p = task._predictions(out).numpy()
    found = task.scoring.measures.per_sample(out, y)[metric].float().mean().item()
    assert found == pytest.approx(call(y=y.numpy(), p=p), abs=1e-6)


def test_a_split_is_scored_as_a_whole():
    """In batches of 7, the last of 4: the metric of all samples, and not a mean over batches."""
    torch.manual_seed(0)
    x, y = torch.randn(60, 3), torch.randint(2, (60,))
    task = make_task(nn.Linear(3, 1), TWO, task={"metrics": [partial(ours.auroc), partial(ours.f1)]})
    task.net.eval()
    small, whole = (task.evaluate(Batches(x, y, TWO, size), "val") for size in (7, 60))
    assert list(small) == list(task.scores) == ["loss", "acc", "auroc", "f1"]
    assert small == pytest.approx(whole, abs=1e-6)
    with torch.no_grad():
        p = torch.sigmoid(task.net(x))[:, 0]
    assert small["auroc"] == pytest.approx(theirs.roc_auc_score(y, p))


def test_real_targets_are_measured_while_training():
    """Val chooses no threshold for them."""
    spec = Table(features=3, targets=1)
    x, y = torch.randn(20, 3), torch.randn(20, 1)
    data, task = Batches(x, y, spec, 8), make_task(nn.Linear(3, 1), spec, task={"metrics": [partial(ours.rmse)]})
    task.prepare(data)
    found = task.evaluate(data, "val")
    assert found["rmse"] == pytest.approx(found["mse"] ** 0.5, rel=1e-5)


def test_outputs_of_several_processes_come_in_order(monkeypatch):
    """Each process has every second batch; the first of them joins all in stored order."""
    batches = [(torch.full((n,), i), torch.full((n, 2), float(i))) for i, n in enumerate((3, 3, 3, 3, 1))]
    monkeypatch.setattr(Distributed, "gather_objects", lambda self, own: [batches[1::2]] if not self.rank else [])
    y, out = gathered(batches[::2], Distributed(0, 2))
    assert y.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] and (out[:, 0] == y).all()
    assert gathered(batches[1::2], Distributed(1, 2)) is None


@pytest.mark.parametrize("metric", list(SCORES))
@pytest.mark.parametrize("levels", [None, 6])
def test_no_threshold_is_better(metric, levels):
    y, p = drawn(2, 7, levels)
    decision = Decision(metric, 2)
    decision.choose(Outcomes(y, p.astype(np.float32)))
    p = torch.tensor(p, dtype=torch.float32)

    def score(threshold: float) -> float:
        return getattr(ours, metric)(counts(y, (p[:, 1] > threshold).long().numpy(), 2))

    best = max(score(threshold) for threshold in np.linspace(0, 1, 1001))
    assert score(decision.threshold) == pytest.approx(best)
    assert (decision(p) == (p[:, 1] > decision.threshold)).all()
    odds = torch.logit(p[:, 1].clamp(1e-6, 1 - 1e-6))
    assert torch.equal(decision.of_logits(odds), decision(torch.stack((1 - odds.sigmoid(), odds.sigmoid()), 1)))
    before = decision.threshold
    decision.choose(Outcomes(np.ones(5, int), p[:5].numpy()))
    assert decision.threshold == before, "without both classes there is nothing to choose by"


def test_a_metric_of_ones_own_named_as_one_of_the_task_s_is_refused():
    """It was left out without a word."""

    def acc(counts) -> Lower:
        return 0.5

    def loss(y, p) -> Lower:
        return 0.5

    for call in (acc, loss):
        with pytest.raises(UserError, match=f"the task measures '{call.__name__}' of its own\n.*rename"):
            named(THREE, partial(call), known=("loss", "acc"))
    assert named(THREE, partial(ours.acc), known=("loss", "acc")).functions == {}


def test_what_a_metric_writes_into_its_inputs_reaches_no_other():
    def wiped(y, p) -> Higher:
        p[:] = 0
        return 1.0

    def largest(p) -> Higher:
        return p.max()

    measures = named(THREE, partial(wiped), partial(largest))
    assert measures(given := examples(THREE))["largest"] == given["p"].max() > 0


CHOSEN = ["task.threshold=f1", "task.metrics=[f1,auroc]", "trainer.monitor=f1", "task.class_weights=balanced"]


@pytest.fixture(scope="module")
def skewed(tmp_path_factory):
    """The path of a table with 15 rows of one class to one of the other."""
    return write_skewed(tmp_path_factory.mktemp("tables"))


def test_a_threshold_is_kept_and_resumes_to_the_bit(skewed, tmp_path):
    """The run ends in the middle of an epoch and is resumed; the best epoch's threshold is that of its weights."""
    config = compose(*SKEWED, f"data.file={skewed}", "data.sampler=balanced", *CHOSEN)
    folders = whole, part = tmp_path / "whole", tmp_path / "part"
    train(whole, config, finish=True)
    train(part, config, signals={11: signal.SIGTERM})
    train(part, config, resumed=True, finish=True)
    assert_same(whole, part)
    fitted = [load(folder / "checkpoints" / "best.ckpt")["fitted"] for folder in folders]
    assert fitted[0] == fitted[1] and fitted[0]["class_counts"] == [270, 18] and 0 < fitted[0]["threshold"] < 1
    assert fitted[0]["threshold"] != 0.5
    summary = json.loads((whole / "summary.json").read_text())
    assert "test/balanced_acc" in summary["test"], "skewed classes are measured by it unasked"
    assert summary["test"]["per_class"]["sick"]["support"] == 6
    best = next(row for row in rows(whole) if row["epoch"] == summary["best"]["epoch"])
    assert best["val/f1"] == summary["best"]["value"]


def test_a_finished_run_decides_by_its_threshold(skewed, tmp_path):
    from finished_runs import write_config

    overrides = [*SKEWED, f"data.file={skewed}", *CHOSEN]
    train(tmp_path, write_config(tmp_path, overrides), finish=True)
    run = FinishedRun(tmp_path)
    threshold = load(tmp_path / "checkpoints" / "best.ckpt")["fitted"]["threshold"]
    assert run.task.scoring.decision.threshold == threshold
    test, recorded = run.task.evaluate(run.load_data(), "test"), run.summary["test"]
    assert all(recorded[f"test/{name}"] == value for name, value in test.items()) and "f1" in test
    p = torch.tensor([[1 - threshold + 0.01, threshold - 0.01], [1 - threshold - 0.01, threshold + 0.01]])
    assert run.task.decide(p).tolist() == [0, 1]
    run.task.evaluate(run.data, "val")
    assert run.task.scoring.decision.threshold == threshold, "chosen in training only"


@pytest.mark.parametrize(
    ("target", "asked", "wanted"),
    [
        (
            "kind",
            "f1_macro,recall_per_class,mcc,brier,auroc",
            "acc f1_macro recall_healthy recall_sick mcc brier balanced_acc",
        ),
        ("a", "rmse,mape,r2", "mae rmse mse mape"),
    ],
)
def test_training_has_the_metrics_that_cost_little(target, asked, wanted, skewed, tmp_path):
    """With constant weights they equal the metrics of the train split; rows within an epoch have them, too."""
    from finished_runs import write_config

    overrides = [
        *SKEWED,
        f"data.file={skewed}",
        f"data.target={target}",
        f"task.metrics=[{asked}]",
        "optimizer.lr=1e-30",
    ]
    train(tmp_path, write_config(tmp_path, [*overrides, "trainer.epochs=1", "trainer.log_every=8"]), finish=True)
    run = FinishedRun(tmp_path)
    expected = run.task.evaluate(run.load_data(), "train")
    *steps, epoch = rows(tmp_path)
    found = {name.partition("/")[2]: value for name, value in epoch.items() if name.startswith("train/")}
    assert found.keys() == {"loss", *wanted.split()}
    assert found == pytest.approx({name: expected[name] for name in found}, rel=1e-5)
    assert len(steps) == 2 and all(f"step/{name}" in row for row in steps for name in found)
