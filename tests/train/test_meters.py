"""Means over samples: equal to those of a plain computation, however they are flushed, saved or restored."""

import pytest
import torch
from runs import rows

from dlrun.output.checkpoint import snapshot
from dlrun.train.meters import Means


@pytest.mark.parametrize("flush_every", [0, 1, 3])
def test_means_are_those_over_all_samples(flush_every):
    loss, right = torch.rand(10, dtype=torch.float64), torch.rand(10) < 0.5
    means = Means()
    for i, (each, hits) in enumerate(zip(loss.split(4), right.split(4), strict=True)):
        means.add({"loss": each.mean(), "acc": hits}, len(each))
        if flush_every and (i + 1) % flush_every == 0:
            means.flush()
    found = means.result()
    assert found["loss"] == pytest.approx(loss.mean().item(), rel=1e-6)
    assert found["acc"] == pytest.approx(right.double().mean().item(), rel=1e-7)


def test_a_window_holds_the_steps_since_the_last_one():
    means = Means()
    for value in (1.0, 2.0, 6.0):
        means.add({"loss": torch.tensor(value)}, 2)
        if value < 6:
            assert means.flush() == {"loss": value}
    assert means.flush() == {"loss": 6.0} and means.flush() == {}
    assert means.result() == {"loss": 3.0}


def test_means_do_not_depend_on_when_they_were_saved():
    torch.manual_seed(0)
    steps = [({"loss": torch.rand(()), "acc": torch.rand(7)}, 7) for _ in range(20)]

    def over(save_at):
        means = Means()
        for i, step in enumerate(steps):
            if i == save_at:
                kept, means = snapshot(means.state_dict()), Means()
                means.load_state_dict(kept)
            means.add(*step)
            if i % 6 == 5:
                means.flush()
        return means.result()

    assert all(over(i) == over(None) for i in range(20))


def test_a_skipped_step_does_not_count():
    means = Means()
    means.add({"loss": torch.tensor(1.0)}, 3)
    means.add({}, 100)
    assert means.result() == {"loss": 1.0}
    assert Means().result() == {}


def test_a_metric_of_some_steps_is_averaged_over_those():
    means = Means()
    means.add({"loss": torch.tensor(1.0)}, 3)
    means.add({"loss": torch.tensor(2.0), "return": torch.tensor(7.0)}, 1)
    assert means.flush() == {"loss": 1.25, "return": 7.0}
    means.add({"loss": torch.tensor(5.0)}, 4)
    assert means.flush() == {"loss": 5.0}
    assert means.result() == {"loss": 25 / 8, "return": 7.0}


def test_an_epochs_means_are_over_its_samples(session, tmp_path):
    """For a network that does not learn they equal `evaluate` on the train split; the last batch is smaller."""
    trained = session("optimizer=sgd", "optimizer.lr=1e-30", "trainer.epochs=1")
    trained.finish = lambda training, outcome: None
    trained.start(tmp_path, resumed=False)
    expected = trained.task.evaluate(trained.data, "train")
    row = rows(tmp_path)[-1]
    assert row["train/acc"] == pytest.approx(expected["acc"], abs=1e-7)
    assert row["train/loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert row["samples"] == trained.data.size("train")
