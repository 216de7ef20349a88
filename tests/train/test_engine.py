"""The training loop: rows, limits, checkpoints in time, divergence; a step depends on seed and clock alone."""

import json

import pytest
import torch
from runs import rows, same, state, train
from toys import CPU

from dlrun.clock import Clock
from dlrun.errors import Diverged
from dlrun.output.checkpoint import load, snapshot
from dlrun.output.checkpoints import Checkpoints
from dlrun.seeds import Reseeder
from dlrun.train.state import all_finite


def test_a_run_that_skips_every_step_reports_it(config, tmp_path):
    train(tmp_path, config("trainer.on_nan=skip", "trainer.epochs=1"), nan_at=(0, 1, 2, 3))
    assert state(tmp_path)["components"]["update"]["skipped"] == 4
    assert rows(tmp_path)[-1]["train/skipped_steps"] == 4 and "train/loss" not in rows(tmp_path)[-1]


def test_the_last_epoch_is_validated_and_every_nth(config, tmp_path):
    train(tmp_path, config("trainer.epochs=5", "trainer.val_every=2"))
    assert [row["epoch"] for row in rows(tmp_path) if "val/acc" in row] == [2, 4, 5]


def test_rows_of_steps_and_of_epochs(config, tmp_path):
    train(tmp_path, config())
    steps = [(row["step"], row["epoch"]) for row in rows(tmp_path) if "step/loss" in row]
    assert steps == [(3, 0.75), (6, 1.5)]
    epochs = [(row["step"], row["epoch"], row["samples"]) for row in rows(tmp_path) if "train/loss" in row]
    assert epochs == [(4, 1, 58), (8, 2, 116)]


def test_max_steps_stops_there_with_a_validation(config, tmp_path):
    assert train(tmp_path, config("trainer.max_steps=5", "trainer.val_every=9")).reason == "max_steps"
    row = rows(tmp_path)[-1]
    assert (row["step"], row["epoch"]) == (5, 2) and "val/acc" in row


def test_max_time_stops(config, tmp_path):
    assert train(tmp_path / "a", config("trainer.max_time=1e-9")).reason == "max_time"
    assert state(tmp_path / "a")["clock"]["step"] == 0 and not (tmp_path / "a" / "metrics.jsonl").exists()
    assert train(tmp_path / "b", config("trainer.max_time=0.005", "trainer.epochs=9999")).reason == "max_time"
    assert 0.1 < load(tmp_path / "b" / "checkpoints" / "last.ckpt")["clock"]["seconds"] < 5
    assert "val/acc" in rows(tmp_path / "b")[-1]


def test_tiny_epochs_share_a_checkpoint(config, tmp_path, monkeypatch):
    written = []
    write = Checkpoints.write
    monkeypatch.setattr(
        Checkpoints, "write", lambda self, last, best: (written.append(last["clock"]["step"]), write(self, last, best))
    )
    train(tmp_path / "a", config("trainer.epochs=5", "trainer.checkpoint_gap=60"))
    assert written == [20]
    written.clear()
    train(tmp_path / "b", config("trainer.epochs=5"))
    assert written == [4, 8, 12, 16, 20]


def test_a_step_is_a_pure_function_of_components_seed_and_clock(session):
    made = session("model.dropout=0.5", "optimizer=sgd", "data.augment.noise=0.1")
    task, clock = made.task, Clock(3, 2, 4, step=5, epoch=1, batch=1)
    reseed, parts = Reseeder(CPU), snapshot({k: p.state_dict() for k, p in made.task.components.items()})
    found = []
    for noise in (1, 999):
        for name, part in task.components.items():
            part.load_state_dict(snapshot(parts[name]))
        torch.rand(noise), torch.manual_seed(noise)
        batch = next(iter(task.batches(made.data, clock)))
        torch.randn(noise)
        reseed(clock.seed, clock.step)
        metrics = task.step(batch, clock)
        found.append(snapshot({"metrics": metrics, **{k: p.state_dict() for k, p in task.components.items()}}))
    assert same(*found)


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(config, tmp_path):
    with pytest.raises(Diverged, match="in epoch 2, step 6 "):
        train(tmp_path, config(), nan_at=(5,))
    assert state(tmp_path)["clock"]["step"] == 4 and all_finite(state(tmp_path)["components"])
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "diverged"
    with pytest.raises(Diverged):
        train(tmp_path, config(), resumed=True, nan_at=(5,))
    train(tmp_path, config(), resumed=True)
    assert state(tmp_path)["clock"]["step"] == 8
