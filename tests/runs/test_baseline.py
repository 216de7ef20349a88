"""dl-runs baseline: what the simple models learn from, and their figures beside the run's own."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from finished_runs import trained

from dlrun.runs.cli import main

SMALL = ["model=mlp", "model.hidden=[8]"]


def baseline(monkeypatch, capsys, folder: Path) -> dict:
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["dl-runs", "baseline", str(folder), "--json"])
    main()
    return json.loads(capsys.readouterr().out)


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(["x,w,y", *lines]) + "\n")
    return path


def test_a_linear_run_has_a_row_of_its_own(tmp_path, monkeypatch, capsys):
    run = trained(tmp_path / "run", ["data=iris", "model=linear"])
    found = baseline(monkeypatch, capsys, run)["test"]
    summary = json.loads((run / "summary.json").read_text())["test"]
    assert list(found) == ["this run", "gradient boosting", "linear", "trivial"]
    assert found["this run"] == {name: summary[f"test/{name}"] for name in ("loss", "acc")} != found["linear"]


@pytest.mark.parametrize(
    ("keys", "share"),
    [(["data.sampler=none"], 0.1), (["data.sampler=balanced"], 0.1), (["data.weights=w"], 0.5)],
)
def test_the_trivial_model_knows_the_shares_of_the_weighted_train_rows(keys, share, tmp_path, monkeypatch, capsys):
    """Each row counts once, by its weight, whatever the run's sampler draws."""
    lines = [f"{i % 17 / 4},{9 if i % 10 == 0 else 1},{'rare' if i % 10 == 0 else 'usual'}" for i in range(200)]
    file = write(tmp_path / "a.csv", lines)
    run = trained(tmp_path / "run", ["data=table", f"data.file={file}", "data.target=y", *SMALL, *keys])
    found = baseline(monkeypatch, capsys, run)["test"]["trivial"]
    assert found["loss"] == pytest.approx(-0.1 * np.log(share) - 0.9 * np.log(1 - share), rel=0.02)


def test_weights_of_real_targets_count_in_the_trivial_model(tmp_path, monkeypatch, capsys):
    file = write(
        tmp_path / "a.csv",
        [f"{i % 17 / 4},{9 if i % 10 == 0 else 1},{10.5 if i % 10 == 0 else 0.5}" for i in range(200)],
    )
    keys = ["data=table", f"data.file={file}", "data.target=y", "data.weights=w", *SMALL]
    found = baseline(monkeypatch, capsys, trained(tmp_path / "run", keys))["test"]["trivial"]
    assert found["mae"] == pytest.approx(5, abs=1)  # around 5.5, the weighted mean; 1.8 around the plain one


def test_a_class_without_train_rows_is_named_and_left_out_of_the_simple_loss(tmp_path, monkeypatch, capsys):
    """In val and in test. The run's header names it, too."""
    parts = {"train": "ab", "val": "abc", "test": "abd"}
    files = {
        name: write(tmp_path / f"{name}.csv", [f"{i % 7 / 3},1,{letters[i % len(letters)]}" for i in range(60)])
        for name, letters in parts.items()
    }
    given = [f"data.{name}={file}" for name, file in files.items()]
    run = trained(tmp_path / "run", ["data=table", *given, "data.target=y", "data.drop=[w]", *SMALL])
    assert "warning: no train samples of c, d" in (run / "run.log").read_text()
    found = baseline(monkeypatch, capsys, run)
    assert found["notes"][0].startswith("note: 20 test rows of a class that no train row has")
    assert found["test"]["trivial"] == pytest.approx({"loss": np.log(2), "acc": 1 / 3})
