"""Losses, metrics and augmentations that a config names, those of the user's own among them."""

import json
import sys
from copy import deepcopy
from textwrap import dedent

import pytest
import torch
from runs import compose, rows, train

from dlrun.config import signatures
from dlrun.config.build import build
from dlrun.config.check import check
from dlrun.errors import ConfigError, UserError


@pytest.fixture(autouse=True)
def without_plots(monkeypatch):
    """They take most of a small run's time."""
    monkeypatch.setattr("dlrun.output.run_folder.RunFolder.write_plots", lambda *arguments: None)


MINE = {
    "losses.py": """
        from dlrun.types import NonNegative
        import torch.nn.functional as F

        def focal(out, y, *, gamma: NonNegative = 2.0):
            losses = F.cross_entropy(out, y, reduction="none")
            return (1 - (-losses).exp()) ** gamma * losses

        def odd(logits, y):
            return logits

        def square(out, y):
            return out

        def mean(out, y):
            return F.cross_entropy(out, y)
    """,
    "metrics.py": """
        from dlrun.types import Higher, Lower

        def gini(y, p) -> Higher:
            return 2 * p.max(1).mean() - 1

        def cost(counts, *, price: float = 2.0) -> Lower:
            return price * (counts.sum() - counts.trace())

        def blind(y, p):
            return 1.0

        def pair(y, predicted) -> Lower:
            return [1.0, 2.0]
    """,
    "changes.py": """
        def darker(x, *, by: float = 0.5):
            return x - by

        def smaller(x, context):
            return x[:, :, 1:]
    """,
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package of one's own, which configs may name."""
    folder = tmp_path / "ownnets"
    folder.mkdir()
    for name, text in MINE.items():
        (folder / name).write_text(dedent(text))
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(signatures, "ALLOWED", frozenset({"ownnets"}))
    yield
    for module in [name for name in sys.modules if name.partition(".")[0] == "ownnets"]:
        del sys.modules[module]


SHORT = ["data=digits", "trainer.device=cpu", "trainer.epochs=2", "model.hidden=[8]", "trainer.checkpoint_gap=0"]
SHORT += ["trainer.log_every=0"]


AUGMENTED = {"_target_": "dlrun.data.images.augment.Augment", "flip": True}


def configured(*overrides, augment=None):
    config, names = deepcopy(compose(*SHORT))
    for override in overrides:
        key, value = override
        config["task"][key] = value
    config["data"]["augment"] = augment or config["data"]["augment"]
    check(config, names)
    return config, names


def test_the_users_own_code_can_be_named(own, tmp_path):
    words = ["f1", "ownnets.metrics.gini", {"_target_": "ownnets.metrics.cost", "price": 3.0}]
    loss = {"_target_": "ownnets.losses.focal", "gamma": 1.0}
    config = configured(("loss", loss), ("metrics", words), augment=["flip", {"crop": 1}, "ownnets.changes.darker"])
    config[0]["trainer"]["monitor"] = "cost"
    train(tmp_path / "run", config, finish=True)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["best"]["metric"] == "val/cost" and summary["scores"]["val/cost"] == "min"
    lowest = min(row["val/cost"] for row in rows(tmp_path / "run"))
    assert summary["best"]["value"] == lowest and lowest % 3 == 0
    assert summary["test"]["test/gini"] <= 1


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("loss", "ownnets.losses.odd", "its parameters are (logits, y)\n    expected (out, y)"),
        ("loss", "ownnets.losses.none", "task.loss='ownnets.losses.none': ownnets.losses has no 'none'"),
        ("loss", "othernets.losses.x", "code of the package 'othernets' is not allowed here"),
        ("loss", "focl", "there is no 'focl'; did you mean 'focal'?"),
        ("loss", {"_target_": "focal", "gama": 1}, "focal has no 'gama'; did you mean 'gamma'?: it has gamma"),
        ("loss", {"_target_": "focal", "gamma": -1}, "gamma=-1: expected a number >= 0"),
        ("loss", 3, "task.loss=3: expected a word, a dotted path, or a mapping with a _target_"),
        ("loss", "os.system", "code of the package 'os' is not allowed here"),
        ("metrics", ["ownnets.metrics.blind"], "which values are better\n    expected -> Higher or -> Lower"),
        ("metrics", "f1", "task.metrics=f1: expected a list of words, such as 'task.metrics=[f1]'"),
        ("metrics", ["f1", "f1"], "f1 is named twice"),
        ("metrics", ["top0"], "k=0: expected an integer >= 1"),
        ("metrics", ["top"], "k is missing: top needs it"),
        ("threshold", 1.0, "task.threshold=1.0: expected a number in (0, 1) or one of f1, balanced_acc, mcc, acc"),
    ],
)  # fmt: skip
def test_unknown_names_are_refused_at_once(own, key, value, text):
    with pytest.raises(ConfigError) as error:
        configured((key, value))
    assert text in str(error.value)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("loss", "ownnets.losses.square", "returned a tensor of shape (2, 10)\n  expected a loss of outputs"),
        ("metrics", ["ownnets.metrics.pair"], "metrics.pair returned 2 numbers\n  expected a number from y int64"),
        ("class_weights", {"11": 2.0}, "there is no class '11'"),
        ("threshold", "f1", "task.threshold=f1: this data has 10 classes; a threshold divides two"),
    ],
)
def test_metrics_and_losses_that_do_not_fit_are_refused(own, tmp_path, key, value, text):
    config = configured((key, value))
    with pytest.raises(UserError) as error:
        train(tmp_path / "run", config)
    assert text in str(error.value)


def test_losses_that_return_a_mean_cannot_be_weighted(own, tmp_path):
    config = configured(("loss", "ownnets.losses.mean"), ("class_weights", {"1": 2.0}))
    with pytest.raises(UserError, match="returns a mean, and data.weights or task.class_weights weigh samples"):
        train(tmp_path / "run", config)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["flipp"], "there is no augmentation 'flipp'; did you mean 'flip'?"),
        (["crop"], "crop alone: expected an integer >= 0, as in '{crop: ...}'"),
        ([3], "3 is not an augmentation"),
        (["othernets.x"], "code of the package 'othernets' is not allowed here"),
        (["ownnets.changes.smaller"], "ownnets.changes.smaller returned torch.float32 (2, 1, 7, 8)\n  expected"),
    ],
)
def test_augmentations_are_refused_before_data_is_read(own, words, text):
    with pytest.raises(UserError) as error:
        build(configured(augment=words)[0]["data"])
    assert text in str(error.value)


def test_a_list_of_augmentations_is_the_same_as_their_keys():
    first, second = (
        build(configured(augment=each)[0]["data"]) for each in (["flip", {"crop": 1}], AUGMENTED | {"crop": 1})
    )
    device = torch.device("cpu")
    first.load(device)
    second.load(device)
    for (a, _), (b, _) in zip(first.batches("train"), second.batches("train"), strict=True):
        assert torch.equal(a, b)
