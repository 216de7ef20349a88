"""Simple models on a run's splits, beside its own test: gradient boosting, a linear model and the trivial one.

They learn from the encoded train rows; val chooses the number of trees. Metrics are those of the test split.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlrun.config.saved import own_config, require_finished
from dlrun.errors import UserError
from dlrun.output.as_json import as_json as json_line
from dlrun.output.console import number, table
from dlrun.spec import Columns, Table

if TYPE_CHECKING:
    import numpy as np

    from dlrun.data.base import SampleData

    Split = tuple[np.ndarray, np.ndarray]

TREES = 300  # most trees; val chooses how many count
MOST_LEVELS = 255  # of a category, for scikit-learn's trees; one with more is taken as a number


def baseline(folder: Path, as_json: bool, seed: int = 0) -> Iterator[str]:
    """Yield lines to print. Raises UserError unless the run learned from rows of a table."""
    require_finished(folder)
    own_config(folder)  # report its errors before torch is imported
    from dlrun.output.failures import within_memory
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder, {"trainer.device": "cpu"})
        spec = run.data.spec
        if not isinstance(spec, Table | Columns) or not spec.outputs:
            raise UserError(f"{folder}: the run learned from {spec}\n  expected a run on rows of a table with targets")
        run.load_data()
        simple = scores(run.sample_data, spec, seed)
    tested = run.summary.get("test")
    of_run = {name: tested.get(f"test/{name}") for name in simple["trivial"]} if isinstance(tested, dict) else {}
    by_model: dict[str, Mapping[str, float | None]] = {str(run.names.get("model")): of_run, **simple}
    if as_json:
        yield json_line({"run": str(folder), "test": by_model})
        return
    metrics = list(simple["trivial"])
    unit = f", in {spec.unit}" if getattr(spec, "unit", "") else ""
    yield f"{folder}: test split{unit}"
    yield table(
        [["", *metrics], *([name, *(number(values.get(m)) for m in metrics)] for name, values in by_model.items())]
    )


def scores(data: "SampleData", spec: Table | Columns, seed: int) -> dict[str, dict[str, float]]:
    """The test metrics of each simple model, by its name: loss and acc, or mae and mse."""
    splits = {split: _arrays(data, split) for split in ("train", "val", "test")}
    fit = _classes if spec.classes else _targets
    return fit(splits, getattr(spec, "levels", ()), seed)


def _arrays(data: "SampleData", split: str) -> "Split":
    """All rows of a split, in stored order or, of train, in that of an epoch."""
    import torch

    batches = [batch[:2] for batch in data.batches(split)]
    x, y = (torch.cat(column).cpu().numpy() for column in zip(*batches, strict=True))
    return x, y


def _classes(splits: "dict[str, Split]", levels: tuple[int, ...], seed: int) -> dict[str, dict[str, float]]:
    from sklearn.dummy import DummyClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import accuracy_score, log_loss

    (x, y), (x_val, y_val), (x_test, y_test) = splits.values()

    def measured(labels: "np.ndarray", probabilities: "np.ndarray") -> dict[str, float]:
        right = accuracy_score(y_test, labels[probabilities.argmax(1)])
        known = [label for label in y_test if label in labels]
        is_known = [label in labels for label in y_test]
        return {"loss": log_loss(known, probabilities[is_known], labels=labels), "acc": right}

    trees = HistGradientBoostingClassifier(**_settings(x, levels, seed)).fit(x, y)
    losses = [log_loss(y_val, p, labels=trees.classes_) for p in trees.staged_predict_proba(x_val)]
    best = _stage(trees.staged_predict_proba(x_test), losses)
    linear = _linear(LogisticRegression(max_iter=1000), x, levels).fit(x, y)
    trivial = DummyClassifier(strategy="prior").fit(x, y)
    return {
        "gradient boosting": measured(trees.classes_, best),
        "linear": measured(linear.classes_, linear.predict_proba(x_test)),
        "trivial": measured(trivial.classes_, trivial.predict_proba(x_test)),
    }


def _targets(splits: "dict[str, Split]", levels: tuple[int, ...], seed: int) -> dict[str, dict[str, float]]:
    import numpy as np
    from sklearn.dummy import DummyRegressor
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.linear_model import Ridge

    (x, y), (x_val, y_val), (x_test, y_test) = splits.values()

    def boosted(k: int) -> "np.ndarray":
        trees = HistGradientBoostingRegressor(**_settings(x, levels, seed)).fit(x, y[:, k])
        losses = [np.square(out - y_val[:, k]).mean() for out in trees.staged_predict(x_val)]
        return _stage(trees.staged_predict(x_test), losses)

    models = {"linear": _linear(Ridge(), x, levels), "trivial": DummyRegressor()}
    outputs = {"gradient boosting": np.stack([boosted(k) for k in range(y.shape[1])], 1)}
    outputs |= {name: model.fit(x, y).predict(x_test).reshape(y_test.shape) for name, model in models.items()}
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
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    first = x.shape[1] - len(levels)
    one_hot = ("categories", OneHotEncoder(handle_unknown="ignore"), list(range(first, x.shape[1])))
    return make_pipeline(ColumnTransformer([one_hot], remainder="passthrough"), model)
