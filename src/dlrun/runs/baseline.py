"""Simple models on a run's splits, beside its own test: gradient boosting, a linear model and the trivial one.

They learn from the encoded train rows, each once, with the weights of data.weights; val chooses the number of trees.
Metrics are those of the test split, where every row counts once.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.config.saved import own_config, require_finished
from dlrun.errors import UserError, counted
from dlrun.output.as_json import as_json as json_line
from dlrun.output.console import number, table
from dlrun.spec import Columns, Table

if TYPE_CHECKING:
    import numpy as np

    from dlrun.data.base import SampleData
    from dlrun.data.resident import Resident

    Split = tuple[np.ndarray, np.ndarray]

OWN = "this run"
TREES = 300  # most trees; val chooses how many count
MOST_LEVELS = 255  # of a category, for scikit-learn's trees; one with more is taken as a number


def baseline(folder: Path, as_json: bool, seed: int = 0) -> Iterator[str]:
    """Yield lines to print. Raises UserError unless the run learned from rows of a table."""
    require_finished(folder)
    own_config(folder, evaluates=True)  # report its errors before torch is imported
    from dlrun.output.failures import within_memory
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder, {"trainer.device": "cpu"})
        spec = run.data.spec
        if not isinstance(spec, Table | Columns) or not spec.outputs:
            raise UserError(f"{folder}: the run learned from {spec}\n  expected a run on rows of a table with targets")
        run.load_data()
        simple, notes = scores(run.sample_data, spec, seed)
    tested = run.summary.get("test")
    of_run = {name: tested.get(f"test/{name}") for name in simple["trivial"]} if isinstance(tested, dict) else {}
    by_model: dict[str, Mapping[str, float | None]] = {OWN: of_run, **simple}
    if as_json:
        yield json_line({"run": str(folder), "test": by_model} | ({"notes": notes} if notes else {}))
        return
    metrics = list(simple["trivial"])
    unit = f", in {spec.unit}" if getattr(spec, "unit", "") else ""
    yield f"{folder}: {run.names.get('model')}, test split{unit}"
    yield from notes
    yield table(
        [["", *metrics], *([name, *(number(values.get(m)) for m in metrics)] for name, values in by_model.items())]
    )


def scores(data: "SampleData", spec: Table | Columns, seed: int) -> tuple[dict[str, dict[str, float]], list[str]]:
    """The test metrics of each simple model, by its name: loss and acc, or mae and mse; and notes for the user."""
    from dlrun.data.on_device import OnDevice

    resident = data.resident if isinstance(data, OnDevice) else None  # a stream has none
    splits = {split: _arrays(data, resident, split) for split in ("train", "val", "test")}
    weights = resident.train_weights() if resident else None
    levels = getattr(spec, "levels", ())
    if not spec.classes:
        return _targets(splits, weights, levels, seed), []
    known = set(splits["train"][1].tolist())
    unknown = sum(label not in known for label in splits["test"][1].tolist())
    note = (
        f"note: {counted(unknown, 'test row')} of a class that no train row has; the loss of simple models is without"
    )
    return _classes(splits, weights, levels, seed), [note] if unknown else []


def _arrays(data: "SampleData", resident: "Resident | None", split: str) -> "Split":
    """All rows of a split, each once, in stored order; those of a stream's train split in that of an epoch."""
    import torch

    batches = resident.evaluate(split, data.eval_batch_size) if resident else data.batches(split)
    x, y = (torch.cat(column).cpu().numpy() for column in zip(*(batch[:2] for batch in batches), strict=True))
    return x, y


def _classes(
    splits: "dict[str, Split]", weights: "np.ndarray | None", levels: tuple[int, ...], seed: int
) -> dict[str, dict[str, float]]:
    import numpy as np
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, log_loss

    (x, y), (x_val, y_val), (x_test, y_test) = splits.values()

    def loss(y: "np.ndarray", probabilities: "np.ndarray", labels: "np.ndarray") -> float:
        is_known = np.isin(y, labels)  # train may lack a class
        return log_loss(y[is_known], probabilities[is_known], labels=labels) if is_known.any() else float("nan")

    def measured(labels: "np.ndarray", probabilities: "np.ndarray") -> dict[str, float]:
        right = accuracy_score(y_test, labels[probabilities.argmax(1)])
        return {"loss": loss(y_test, probabilities, labels), "acc": right}

    trees = HistGradientBoostingClassifier(**_settings(x, levels, seed)).fit(x, y, sample_weight=weights)
    losses = [loss(y_val, p, trees.classes_) for p in trees.staged_predict_proba(x_val)]
    best = _stage(trees.staged_predict_proba(x_test), losses)
    linear = _linear(LogisticRegression(max_iter=1000), x, levels).fit(x, y, model__sample_weight=weights)
    trivial = DummyClassifier(strategy="prior").fit(x, y, sample_weight=weights)
    return {
        "gradient boosting": measured(trees.classes_, best),
        "linear": measured(linear.classes_, linear.predict_proba(x_test)),
        "trivial": measured(trivial.classes_, trivial.predict_proba(x_test)),
    }


def _targets(
    splits: "dict[str, Split]", weights: "np.ndarray | None", levels: tuple[int, ...], seed: int
) -> dict[str, dict[str, float]]:
    import numpy as np
    from sklearn.dummy import DummyRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge

    (x, y), (x_val, y_val), (x_test, y_test) = splits.values()

    def boosted(k: int) -> "np.ndarray":
        trees = HistGradientBoostingRegressor(**_settings(x, levels, seed)).fit(x, y[:, k], sample_weight=weights)
        losses = [np.square(out - y_val[:, k]).mean() for out in trees.staged_predict(x_val)]
        return _stage(trees.staged_predict(x_test), losses)

    linear = _linear(Ridge(), x, levels).fit(x, y, model__sample_weight=weights)
    trivial = DummyRegressor().fit(x, y, sample_weight=weights)
    outputs = {"gradient boosting": np.stack([boosted(k) for k in range(y.shape[1])], 1)}
    outputs |= {"linear": linear.predict(x_test), "trivial": trivial.predict(x_test)}
    outputs = {name: out.reshape(y_test.shape) for name, out in outputs.items()}
    return {
        name: {"mae": float(np.abs(out - y_test).mean()), "mse": float(np.square(out - y_test).mean())}
        for name, out in outputs.items()
    }


def _settings(x: "np.ndarray", levels: tuple[int, ...], seed: int) -> dict[str, Any]:
    first = x.shape[1] - len(levels)
    categorical = [first + i for i, count in enumerate(levels) if count < MOST_LEVELS]
    return {
        "max_iter": TREES,
        "early_stopping": False,
        "random_state": seed,
        "categorical_features": categorical or None,
    }


def _stage(stages: "Iterator[np.ndarray]", losses: list[float]) -> "np.ndarray":
    """The outputs after the number of trees with the lowest loss."""
    best = losses.index(min(losses))
    return next(out for i, out in enumerate(stages) if i == best)


def _linear(model: Any, x: "np.ndarray", levels: tuple[int, ...]) -> Any:
    """The linear model, after categories became one-hot."""
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import Pipeline
    from sklearn.preprocessing import OneHotEncoder

    first = x.shape[1] - len(levels)
    one_hot = ("categories", OneHotEncoder(handle_unknown="ignore"), list(range(first, x.shape[1])))
    return Pipeline([("inputs", ColumnTransformer([one_hot], remainder="passthrough")), ("model", model)])
