"""The limits that end a run: one set of rules for the engine and for the refusal to resume a finished run."""

from dataclasses import replace
from pathlib import Path

import pytest
from toys import composed

from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.train.best import Best
from dlrun.train.limits import limits_reached, refuse_finished, rounded_up

FREE = replace(build(composed()["trainer"]), epochs=9, max_steps=None, max_time=None, patience=None, stop_at=None)
SET = [  # a limit; the least progress (epochs, steps, seconds, waited, score) that reaches it
    ({"epochs": 2}, (2, 0, 0, 0, None)),
    ({"max_steps": 5}, (0, 5, 0, 0, None)),
    ({"max_time": 0.5}, (0, 0, 30.0, 0, None)),
    ({"patience": 3}, (0, 0, 0, 3, None)),
    ({"stop_at": 0.9}, (0, 0, 0, 0, 0.9)),
]


def best_of(waited, score, mode="max"):
    best = Best("acc", mode, 0.0)
    best.waited, best.score = waited, score
    return best


def reached(trainer, progress):
    epochs, steps, seconds, waited, score = progress
    return limits_reached(trainer, steps, seconds, epochs, best_of(waited, score))


@pytest.mark.parametrize("limit, least", SET)
def test_a_limit_is_reached_at_its_value_and_not_before(limit, least):
    trainer = replace(FREE, **limit)
    assert reached(FREE, least) == [] and reached(trainer, least) == list(limit)
    at = next(i for i, value in enumerate(least) if value)
    less = tuple(value - 0.01 if i == at else value for i, value in enumerate(least))
    assert reached(trainer, less) == []


def test_in_mid_epoch_only_steps_and_time_count():
    trainer = replace(FREE, **{key: value for limit, _ in SET for key, value in limit.items()})
    everything = (2, 5, 30.0, 3, 0.9)
    assert reached(trainer, everything) == ["epochs", "patience", "stop_at", "max_steps", "max_time"]
    assert reached(trainer, (None, *everything[1:])) == ["max_steps", "max_time"]


def test_without_a_goal_neither_patience_nor_a_score_counts():
    assert limits_reached(replace(FREE, patience=1, stop_at=0.0), 9, 9.0, 1, None) == []


@pytest.mark.parametrize(
    "limits, done, named",
    [
        ({}, {"stopped_by": "finished", "epochs": 9}, "epochs=<more>"),
        ({"max_steps": 5}, {"stopped_by": "max_steps", "epochs": 9, "steps": 5}, "max_steps=<more>"),
        ({"max_time": 1e-9}, {"stopped_by": "max_time", "seconds": rounded_up(1e-7)}, "max_time=<more>"),
        ({"patience": 2, "epochs": 3}, {"stopped_by": "patience", "waited": 2, "epochs": 3}, "patience=<more>"),
        ({"stop_at": 0.5}, {"stopped_by": "stop_at", "epochs": 1, "best": {"value": 0.6}}, "stop_at=<more>"),
        ({"stop_at": 0.7}, {"stopped_by": "stop_at", "epochs": 1, "best": {"value": 0.6}, "goal": "val/loss",
                            "scores": {"val/loss": "min"}}, "stop_at=<less>"),
    ],
)  # fmt: skip
def test_a_finished_run_is_refused_by_the_same_rules(limits, done, named):
    with pytest.raises(UserError, match=f"has reached .*\n.*\n  dl-run resume=run trainer.{named}"):
        refuse_finished(Path("run"), replace(FREE, **limits), done)


@pytest.mark.parametrize(
    "limits, done",
    [
        ({"epochs": 10}, {"stopped_by": "finished", "epochs": 9}),
        ({}, {"stopped_by": "max_steps", "epochs": 9}),  # the last epoch was cut short and continues
        ({"stop_at": 0.5}, {"stopped_by": "stop_at", "epochs": 1, "best": {"value": 0.6}, "goal": "val/loss",
                            "scores": {"val/loss": "min"}}),
        ({}, {"stopped_by": 5, "epochs": "x", "steps": [], "best": 3, "scores": 4}),  # edited by hand
    ],
)  # fmt: skip
def test_a_run_that_has_more_to_do_is_not_refused(limits, done):
    assert refuse_finished(Path("run"), replace(FREE, **limits), done) is None
