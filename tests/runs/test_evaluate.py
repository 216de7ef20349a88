"""dl-runs evaluate on other files: read, split and encoded as the run's own."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from finished_runs import command, trained
from PIL import Image

from dlrun.train.finished import FinishedRun

SMALL = ["model=mlp", "model.hidden=[8]", "trainer.epochs=2"]
RANDOM = np.random.RandomState(0)


def metrics(monkeypatch, capsys, *arguments: object) -> dict[str, float]:
    code, out, err = command(monkeypatch, capsys, "evaluate", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)["metrics"]


def write(path: Path, rows: list[list], names: str = "t,x,y") -> Path:
    path.write_text("\n".join([names, *(",".join(map(str, row)) for row in rows)]) + "\n")
    return path


def steps(count: int, shift: float = 0.0) -> list[list]:
    return [[i, round(RANDOM.randn() + shift, 4), round(np.sin(i / 3) * 2 + shift + 0.01, 4)] for i in range(count)]


@pytest.fixture(scope="module")
def of_series(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("series")
    file = write(folder / "a.csv", steps(120))
    keys = ["data=series", f"data.file={file}", "data.target=y", "data.time=t", "data.window=5", "data.horizon=2"]
    return trained(folder / "run", [*keys, "model=linear", "trainer.epochs=3"])


def test_the_test_part_of_another_series_is_encoded_as_in_the_run(of_series, tmp_path, monkeypatch, capsys):
    """Its last fifth, by the run's means: the same figures as those of a file with these rows alone."""
    rows = steps(100, shift=5)
    whole, last = write(tmp_path / "whole.csv", rows), write(tmp_path / "last.csv", rows[80:])
    found = metrics(monkeypatch, capsys, of_series, f"data.file={whole}", "split=test")
    assert found == pytest.approx(metrics(monkeypatch, capsys, of_series, "--on", last), rel=1e-5)
    code, out, _ = command(monkeypatch, capsys, "evaluate", of_series, f"data.file={whole}", "split=val")
    assert code == 0 and "val split, 14 samples" in out and "last value" in out


def table(count: int, shift: float = 0.0) -> list[list]:
    return [[i % 7, round(RANDOM.randn() + shift, 4), "no" if i % 3 else "yes"] for i in range(count)]


@pytest.fixture(scope="module")
def of_table(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("table")
    files = [f"data.{name}={write(folder / f'{name}.csv', table(60))}" for name in ("train", "test")]
    return trained(folder / "run", ["data=table", *files, "data.target=y", *SMALL])


def test_each_split_of_other_tables_is_its_own(of_table, tmp_path, monkeypatch, capsys):
    """data.test=FILE replaces the test rows, data.val=FILE those of val, and data.file=FILE all files.

    Only split=all takes every row for one.
    """
    new = write(tmp_path / "new.csv", table(50, shift=3))
    on = metrics(monkeypatch, capsys, of_table, "--on", new)
    assert metrics(monkeypatch, capsys, of_table, f"data.test={new}") == pytest.approx(on, rel=1e-6)
    assert metrics(monkeypatch, capsys, of_table, f"data.val={new}") == pytest.approx(on, rel=1e-6)
    assert metrics(monkeypatch, capsys, of_table, f"data.file={new}") == pytest.approx(on, rel=1e-6)
    sizes = {"all": 50, "test": 10, "val": 10}
    for split, size in sizes.items():
        _, out, _ = command(monkeypatch, capsys, "evaluate", of_table, f"data.file={new}", f"split={split}")
        assert f"{size} samples" in out.splitlines()[1]
    own = metrics(monkeypatch, capsys, of_table)
    assert metrics(monkeypatch, capsys, of_table, "data.eval_batch_size=7") == pytest.approx(own, rel=1e-5)


def test_a_file_that_would_not_be_read_and_another_target_are_refused(of_table, tmp_path, monkeypatch, capsys):
    """A run of one file has no data.test to replace; its target and its encoding are those that it has learned."""
    one, new = write(tmp_path / "one.csv", table(60)), write(tmp_path / "new.csv", table(50, shift=3))
    run = trained(tmp_path / "run", ["data=table", f"data.file={one}", "data.target=y", *SMALL])
    for key in ("test", "val"):
        code, _, err = command(monkeypatch, capsys, "evaluate", run, f"data.{key}={new}", f"split={key}")
        assert code == 2 and f"data.{key}={new}: the run learned from one table" in err and f"--on {new}" in err
    both = [f"data.train={one}", f"data.test={new}", "data.file=null", "split=test"]
    on = metrics(monkeypatch, capsys, run, "--on", new)
    assert metrics(monkeypatch, capsys, run, *both) == pytest.approx(on, rel=1e-6)
    for word in ("data.target=x", "data.drop=[x]", "data.types={x: category}"):
        code, _, err = command(monkeypatch, capsys, "evaluate", of_table, f"data.test={new}", word)
        assert code == 2 and f"{word}: the run has learned {word.partition('=')[0]}=" in err
    assert metrics(monkeypatch, capsys, of_table, f"data.test={new}", "data.target=y")


def test_a_split_beside_on_is_refused(of_table, tmp_path, monkeypatch, capsys):
    new = write(tmp_path / "new.csv", table(50))
    code, _, err = command(monkeypatch, capsys, "evaluate", of_table, "--on", new, "split=test")
    assert code == 2 and "split=test: --on evaluates all samples\n  expected no split, or data.file=FILE" in err
    assert command(monkeypatch, capsys, "evaluate", of_table, "--on", new, "split=all")[0] == 0


def test_a_split_of_other_arrays_has_the_classes_and_the_scale_of_the_run(tmp_path, monkeypatch, capsys):
    """Images of real numbers, too, whose own range would make others of them."""
    x, y = RANDOM.rand(60, 6, 6, 1), np.arange(60) % 3
    np.savez(tmp_path / "a.npz", x=x, y=np.array(["a", "b", "c"])[y])
    run = trained(tmp_path / "run", ["data=arrays", f"data.file={tmp_path}/a.npz", *SMALL])
    other = np.array(["c", "b", "a"])[y]
    np.savez(tmp_path / "b.npz", x_train=x, y_train=other, x_test=x[:20] * 3 - 1, y_test=other[:20])
    np.savez(tmp_path / "c.npz", x=x[:20] * 3 - 1, y=other[:20])
    one = metrics(monkeypatch, capsys, run, f"data.file={tmp_path}/b.npz", "split=test")
    assert one == pytest.approx(metrics(monkeypatch, capsys, run, "--on", tmp_path / "c.npz"), rel=1e-5)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", np.array(["a", "b", "c"])[y])
    both = metrics(monkeypatch, capsys, run, f"data.x={tmp_path}/x.npy", f"data.y={tmp_path}/y.npy", "data.file=null")
    assert both == pytest.approx(metrics(monkeypatch, capsys, run, "split=all"), rel=1e-5)


def test_columns_of_a_table_are_no_other_kind_of_data(of_table, monkeypatch, capsys):
    code, _, err = command(monkeypatch, capsys, "evaluate", of_table, "data=moons")
    assert code == 2 and "that data is of another kind" in err and "--on FILE, or data.file=FILE" in err
    assert isinstance(FinishedRun(of_table).data.encode(torch.zeros(1, 2)), torch.Tensor)


def write_images(root: Path, count: int, classes: str) -> list[str]:
    """Write noise, `count` images of each class, and return their paths under the root, sorted."""
    names = [f"{name}/{i}.png" for name in classes for i in range(count)]
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(RANDOM.randint(0, 256, (8, 8, 3), dtype=np.uint8)).save(root / name)
    return names


def test_another_csv_of_images_is_scored(tmp_path, monkeypatch, capsys):
    """In place of the class folders of the run; one that is not there is refused, and --on takes class folders."""
    names = write_images(tmp_path / "images", 6, "abc")
    (tmp_path / "images" / "few.csv").write_text("".join(f"{name},{name[0]}\n" for name in names[::2]))
    keys = ["data=image_folder", f"data_dir={tmp_path}", "data.spec.shape=[3,8,8]", "model=mlp", "model.hidden=[8]"]
    plain = trained(tmp_path / "plain", keys)
    listed = trained(tmp_path / "listed", [*keys, "data.label_file=few.csv"])
    write_images(tmp_path / "other", 4, "ab")
    for arguments, text in {
        (plain, "data.label_file=few.csv"): "9 samples",
        (plain, "data.label_file=none.csv"): "data.label_file=none.csv: there is no file",
        (listed, f"data.root={tmp_path}/other"): "data.label_file=few.csv: there is no file",
        (listed, "--on", tmp_path / "images"): "9 samples",
        (listed, "--on", tmp_path / "other"): "8 samples",
    }.items():
        _, out, err = command(monkeypatch, capsys, "evaluate", *arguments)
        assert text in out + err
