"""A run's folder: its files, the order in which they are written, and damaged lines of metrics."""

import json
import math

import pytest
from runs import STRAIGHT, assert_same, rows, train

from dlrun.errors import UserError
from dlrun.output.run_folder import RunFolder


def test_a_finished_run_has_all_its_files(config, tmp_path):
    train(tmp_path, config("trainer.histograms=true"), finish=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished" and summary["stopped_by"] == "finished" and summary["steps"] == 8
    assert summary["best"]["metric"] == "val/acc" and summary["samples_per_second"] > 0
    assert summary["peak_memory_mb"]["host"] > 0 and summary["parameters"] == 784 * 16 + 16 + 16 * 10 + 10
    assert sum(map(sum, summary["test"]["confusion_matrix"])) == 20
    assert {p.name for p in (tmp_path / "plots").iterdir()} >= {"loss.png", "acc.png", "confusion_matrix.png"}
    assert {p.name for p in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "previous.ckpt", "best.ckpt"}
    assert list((tmp_path / "tensorboard").iterdir())


def test_results_are_written_before_anything_is_drawn(config, tmp_path, monkeypatch):
    """An exception while drawing costs one line; the run ends as usual."""
    drawn = []

    def fails(*args: object) -> object:
        drawn.append(json.loads((tmp_path / "summary.json").read_text()))
        raise RuntimeError("no ink")

    monkeypatch.setattr("dlrun.tasks.report.confusion_matrix", fails)
    train(tmp_path, config(), finish=True)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished" and drawn[0] == summary | {"status": "running"}
    assert "no plots/confusion_matrix.png: no ink" in (tmp_path / "run.log").read_text()
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots - {"top5.png"} == {"loss.png", "acc.png", "calibration.png"}


def test_numbers_that_are_not_finite_are_null_in_metrics(tmp_path):
    run = RunFolder(tmp_path, {})
    run.log({"step": 1, "epoch": 1, "train/loss": float("nan"), "val/acc": 0.5}, 1)
    run.close()
    assert rows(tmp_path) == [{"step": 1, "epoch": 1, "train/loss": None, "val/acc": 0.5}]
    assert math.isnan(run.rows[0]["train/loss"])
    again = RunFolder(tmp_path, {})
    again.read_back(1)
    again.rewind(1, is_mid_epoch=False)
    again.close()
    assert math.isnan(again.rows[0]["train/loss"])


@pytest.mark.parametrize("line", [b'{"step": 4, ', b"[1]", b'{"epoch": 1}', b"\xff\xfe"])
def test_a_damaged_line_of_metrics_is_reported(line, stopped, config):
    path = stopped / "metrics.jsonl"
    damaged = b"\n".join([line, *path.read_bytes().split(b"\n")[1:]])
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="metrics.jsonl is damaged or was changed"):
        train(stopped, config(*STRAIGHT), resumed=True)
    assert path.read_bytes() == damaged


@pytest.mark.parametrize("tail", [b'{"step": 7, "epo', b'{"step": 6, "epoch": 2}\n{"step"', b"\n"])
def test_an_incomplete_last_line_of_metrics_is_dropped(tail, stopped, config, straight):
    with open(stopped / "metrics.jsonl", "ab") as file:
        file.write(tail)
    train(stopped, config(*STRAIGHT), resumed=True)
    assert_same(straight, stopped)


def test_truncated_metrics_are_refused(stopped, config):
    (stopped / "metrics.jsonl").write_bytes((stopped / "metrics.jsonl").read_bytes()[:-3])
    with pytest.raises(UserError, match="was changed after the checkpoint: it has 3 of 3 lines"):
        train(stopped, config(*STRAIGHT), resumed=True)
