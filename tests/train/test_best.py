"""The best epoch: which score wins, how ties are broken, and how long patience waits."""

from types import SimpleNamespace

import pytest
from runs import rows, state, train

from dlrun.tasks.supervised import Supervised
from dlrun.train.best import Best


def scores(best, values, start=1):
    return [best.update(v, SimpleNamespace(epoch=i, step=10 * i)) for i, v in enumerate(values, start)]


def test_every_better_score_is_best():
    best = Best("acc", "max", min_delta=0.5)
    assert scores(best, [0.5, 0.5, 0.6, 0.55]) == [True, False, True, False]
    assert (best.score, best.epoch, best.step) == (0.6, 3, 30)
    best = Best("loss", "min", min_delta=0.0)
    assert scores(best, [2.0, 3.0, 1.0, float("nan"), float("-inf")]) == [True, False, True, False, False]
    assert (best.score, best.epoch) == (1.0, 3)


def test_of_equal_scores_the_one_with_the_lower_loss_is_best():
    """Epochs 2 and 6 have accuracy 1.0: a loss of 0.0243 is better than 0.7255, but does not reset patience."""
    best = Best("acc", "max", min_delta=0.0)
    found = [(0.9, 0.8), (1.0, 0.7255), (0.8, 0.01), (1.0, 0.9), (1.0, float("nan")), (1.0, 0.0243), (1.0, None)]
    kept = [
        best.update(score, SimpleNamespace(epoch=epoch, step=10 * epoch), loss)
        for epoch, (score, loss) in enumerate(found, 1)
    ]
    assert kept == [True, True, False, False, False, True, False]
    assert (best.score, best.loss, best.epoch, best.step) == (1.0, 0.0243, 6, 60)
    assert (best.anchor_epoch, best.waited) == (2, 5)
    again = Best("acc", "max", min_delta=0.0)
    again.load_state_dict(best.state_dict())
    assert vars(again) == vars(best)


def test_patience_waits_for_more_than_min_delta():
    best = Best("acc", "max", min_delta=0.1)
    waits = []
    for epoch, score in enumerate([0.5, 0.55, 0.59, 0.61, 0.70, float("nan")], 1):
        scores(best, [score], epoch)
        waits.append(best.waited)
    assert waits == [0, 1, 2, 0, 1, 2]  # small gains count from the anchor, so together they are a gain
    again = Best("acc", "max", min_delta=0.1)
    again.load_state_dict(best.state_dict())
    assert vars(again) == vars(best)


@pytest.mark.parametrize(("mode", "reached"), [("max", [0.5, 0.4]), ("min", [0.5, 0.6])])
def test_a_score_is_reached_from_its_side(mode, reached):
    best = Best("acc", mode, 0.0)
    assert not best.reaches(0.5) and not best.reaches(None)
    scores(best, [0.5], 1)
    assert all(map(best.reaches, reached)) and not best.reaches(1 - reached[1])


def test_patience_counts_from_validated_epoch_to_validated_epoch(config, tmp_path):
    keys = ["trainer.epochs=30", "trainer.val_every=5", "trainer.patience=3", "trainer.min_delta=9"]
    assert train(tmp_path, config(*keys)).reason == "patience"
    assert [row["epoch"] for row in rows(tmp_path) if "val/acc" in row] == [5, 10]


@pytest.mark.parametrize(("monitor", "score", "choose"), [("val/loss", "val/loss", min), ("top5", "val/top5", max)])
def test_monitor_chooses_the_best_epoch(monitor, score, choose, config, tmp_path):
    train(tmp_path, config(f"trainer.monitor={monitor}", "trainer.epochs=5"))
    best = state(tmp_path, "best")
    found = [row for row in rows(tmp_path) if score in row]
    highest = choose(row[score] for row in found)
    assert best["best"]["score"] == highest == best["metrics"][score]
    of_equals = min((row["val/loss"], row["epoch"]) for row in found if row[score] == highest)
    assert best["clock"]["epoch"] == of_equals[1]


@pytest.mark.parametrize(("monitor", "scores"), [("acc", [0.5, 1.0, 0.9, 1.0]), ("top5", [1.0, 1.0, 1.0, 1.0])])
def test_the_best_checkpoint_is_of_the_tie_with_the_lower_loss(monitor, scores, config, tmp_path, monkeypatch):
    losses = iter([0.5, 0.7255, 0.4, 0.0243])
    given = iter(scores)
    evaluated = lambda *_: {"loss": next(losses), "acc": 0.5, "top5": 0.5} | {monitor: next(given)}  # noqa: E731
    monkeypatch.setattr(Supervised, "evaluate", evaluated)
    train(tmp_path, config(f"trainer.monitor={monitor}", "trainer.epochs=4"))
    best = state(tmp_path, "best")["best"]
    assert (best["epoch"], best["loss"]) == (4, 0.0243)
