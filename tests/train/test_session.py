"""A session: what it refuses before training, and what it tests at the end."""

import pytest
from runs import compose, same, weights_of

from dlrun.errors import UserError
from dlrun.output.checkpoint import load, snapshot
from dlrun.train.session import Session

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_monitor_that_nothing_measures_is_refused_before_training(session):
    with pytest.raises(UserError) as error:
        session("trainer.monitor=val/accc")
    assert str(error.value) == (
        "trainer.monitor=val/accc is not measured here; did you mean 'val/acc'?\n"
        "  expected one of: val/loss, val/acc, val/top5\n"
        "  or a metric of docs/metrics.md that task.metrics has, such as 'task.metrics=[balanced_acc]'"
    )


def test_an_empty_monitor_is_refused(session):
    with pytest.raises(UserError, match="trainer.monitor= is not measured here"):
        session("trainer.monitor=''")


def test_a_task_measures_the_metrics_that_it_declares(session):
    for keys in ([], ["model=linear"]):
        made = session(*keys) if not keys else Session(*compose("model=linear", "data=moons", "trainer.device=cpu"))
        assert made.task.evaluate(made.data, "val").keys() == made.task.scores.keys()


def test_the_test_split_is_evaluated_once_with_the_best_weights(session, tmp_path, monkeypatch):
    made, asked = session("trainer.epochs=3"), []
    evaluate = made.task.evaluate

    def asking(data, split):
        asked.append((split, weights_of(made)))
        return evaluate(data, split)

    monkeypatch.setattr(made.task, "evaluate", asking)
    made.start(tmp_path, resumed=False)
    assert [split for split, _ in asked] == ["val", "val", "val", "test"]
    assert same(asked[-1][1], snapshot(load(tmp_path / "checkpoints" / "best.ckpt")["state_dict"]))
