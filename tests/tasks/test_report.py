"""The report of a supervised task: what it computes for its figures."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from layouts import SKEWED, write_skewed
from runs import compose, train

from dlrun.tasks.report import AT_ONCE, _predict_at


def test_points_of_a_plane_are_predicted_in_parts_and_stay_in_order():
    sizes = []

    def predict(points):
        sizes.append(len(points))
        return points * 2

    data = SimpleNamespace(batches=lambda split: iter([(torch.zeros(1, 2), torch.zeros(1))]))
    points = np.arange(2 * (2 * AT_ONCE + 3), dtype=np.float32).reshape(-1, 2)
    assert np.array_equal(_predict_at(data, predict, points), points * 2)
    assert sizes == [AT_ONCE, AT_ONCE, 3]


@pytest.fixture(autouse=True)
def without_plots(monkeypatch):
    """They take most of a small run's time."""
    monkeypatch.setattr("dlrun.output.run_folder.RunFolder.write_plots", lambda *arguments: None)


@pytest.mark.parametrize("model", ["mlp", "tabular"])
def test_held_out_samples_are_predicted(tmp_path, model):
    """Each row outside test is in one fold. Rows without a target count in the positions of the other rows."""
    file, places = tmp_path / "rare.csv", []
    lines = write_skewed(tmp_path).read_text().splitlines()
    file.write_text("\n".join([lines[0], "0,0,", *lines[1:]]))
    for fold in range(3):
        keys = [f"data.file={file}", "data.folds=3", f"data.fold={fold}", f"model={model}", "trainer.epochs=1"]
        more = ["model.members=2"] if model == "tabular" else []
        train(tmp_path / str(fold), compose(*SKEWED, *keys, *more), finish=True)
        with open(tmp_path / str(fold) / "out_of_fold.csv", newline="") as text:
            found = list(csv.DictReader(text))
        places += [int(row["sample"]) for row in found]
        for row in found:
            assert lines[int(row["sample"])].endswith(row["target"]), "rows count from 0, and the first has no target"
            assert float(row["p healthy"]) + float(row["p sick"]) == pytest.approx(1)
    assert len(places) == len(set(places)) == 384


def test_held_out_real_targets_are_written_as_in_the_file(tmp_path):
    """With the shortest digits of float32."""
    values = [f"{5000 + i % 7 * 100 + 0.87:.2f}" for i in range(60)]
    (tmp_path / "a.csv").write_text("x,y\n" + "".join(f"{i % 5},{value}\n" for i, value in enumerate(values)))
    keys = [f"data.file={tmp_path}/a.csv", "data.target=y", "data.folds=3", "trainer.epochs=1", "model.hidden=[4]"]
    train(tmp_path / "run", compose("data=table", "model=mlp", *keys), finish=True)
    with open(tmp_path / "run" / "out_of_fold.csv", newline="") as text:
        found = list(csv.DictReader(text))
    assert found and [row["target y"] for row in found] == [values[int(row["sample"])] for row in found]
