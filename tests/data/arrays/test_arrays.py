"""Arrays of samples: what their shapes say, how they are split and scaled, what is predicted, and what is refused."""

import json
import zipfile
from pathlib import Path
from signal import SIGTERM

import numpy as np
import pytest
import torch
from finished_runs import trained
from runs import assert_same, compose, train
from toys import CPU, make_task, section

from dlrun.config.build import build
from dlrun.data.arrays.arrays import ArraySet
from dlrun.data.arrays.file import read_npy, read_npz
from dlrun.errors import UserError
from dlrun.runs.cli import main

RANDOM = np.random.RandomState(0)
ROWS, CLASSES = RANDOM.randn(60, 4) * 3 + 100, RANDOM.randint(3, size=60)
BYTES = RANDOM.randint(256, size=(60, 8, 6)).astype(np.uint8)


def make(**keys) -> ArraySet:
    return build(section("data", "arrays") | {"batch_size": 64} | keys)


def loaded(**arrays) -> ArraySet:
    data = make(arrays=arrays)
    data.load(CPU)
    return data


@pytest.mark.parametrize(("x", "y", "spec"), [
    (ROWS, CLASSES, "Table(features=4, classes=3)"),
    (ROWS[:, 0], CLASSES, "Table(features=1, classes=3)"),
    (ROWS, ROWS[:, 0], "Table(features=4, targets=1)"),
    (ROWS, ROWS[:, :2], "Table(features=4, targets=2)"),
    (ROWS, np.eye(3)[CLASSES], "Table(features=4, classes=3)"),
    (ROWS, np.array(["no", "yes"])[CLASSES % 2], "Table(features=4, classes=2)"),
    (BYTES, CLASSES[:, None], "Image(shape=1x8x6, classes=3)"),
    (BYTES, None, "Image(shape=1x8x6, classes=None)"),
    (RANDOM.rand(60, 8, 6, 3), CLASSES, "Image(shape=3x8x6, classes=3)"),
    (RANDOM.rand(60, 3, 8, 6), CLASSES, "Image(shape=3x8x6, classes=3)"),
    (RANDOM.rand(60, 8, 6), CLASSES, "Series(length=8, features=6, classes=3)"),
])  # fmt: skip
def test_the_kind_of_data_follows_from_the_shape(x, y, spec):
    data = loaded(x=x) if y is None else loaded(x=x, y=y)
    assert str(data.spec) == spec
    assert [data.size(split) for split in ("train", "val", "test")] == pytest.approx([36, 12, 12], abs=1)
    inputs, targets = next(data.batches("test"))
    assert inputs.shape[1:] == data.spec.shape and inputs.dtype == torch.float32
    assert targets.dtype == (torch.float32 if data.spec.classes is None and y is not None else torch.int64)


def test_each_sample_keeps_its_target_and_train_sets_the_scale():
    x = np.arange(60, dtype=np.float64)[:, None] * [1.0, 10.0] + 5
    data = loaded(x=x, y=np.arange(60, dtype=np.float64))
    rows = data.resident.rows["train"].numpy()
    mean, std = x[rows].mean(0), x[rows].std(0)
    for split in ("train", "val", "test"):
        for inputs, targets in data.batches(split):
            assert np.allclose(inputs.numpy() * std + mean, targets.numpy() * [1.0, 10.0] + 5, atol=1e-3)
    assert data.spec.target_means == pytest.approx((rows.mean(),)) and data.spec.target_stds == pytest.approx(
        (rows.std(),)
    )
    changed = x.copy()
    changed[data.resident.rows["test"].numpy()] = 1e6
    assert loaded(x=changed, y=np.arange(60.0)).fitted() == data.fitted()


def test_splits_in_a_file_are_used(tmp_path):
    """Names as in published files; what is lacking is cut from train; layouts of channels give the same images."""
    colours = RANDOM.randint(256, size=(60, 8, 6, 3)).astype(np.uint8)
    path = tmp_path / "a.npz"
    np.savez(
        path,
        train_images=colours[:40],
        train_labels=CLASSES[:40, None],
        test_images=colours[40:],
        test_labels=CLASSES[40:],
    )
    data = make(file=str(path))
    data.load(CPU)
    assert [data.size(split) for split in ("train", "val", "test")] == [30, 10, 20]
    x, y = next(data.batches("test"))
    assert y.tolist() == CLASSES[40:].tolist()
    mean, std = (torch.tensor(data.fitted()[name])[:, None, None] for name in ("mean", "std"))
    assert torch.equal(((x * std + mean) * 255).round(), torch.tensor(colours[40:]).movedim(3, 1).float())
    first = loaded(
        x_train=np.moveaxis(colours[:40], 3, 1),
        y_train=CLASSES[:40],
        x_test=np.moveaxis(colours[40:], 3, 1),
        y_test=CLASSES[40:],
    )
    assert torch.equal(next(first.batches("test"))[0], x)


def test_other_arrays_are_prepared_and_scored_like_those_of_the_run():
    named = np.array(["a", "b", "c"])[CLASSES]
    data, other = loaded(x=ROWS, y=named), make(arrays={"x": ROWS[:9], "y": named[:9]})
    other.load_like(data.fitted(), CPU)
    x, y = next(other.batches("all"))
    assert torch.equal(x, data.encode(ROWS[:9])) and y.tolist() == CLASSES[:9].tolist()
    assert [other.size(split) for split in ("train", "test", "all")] == [0, 9, 9]
    with pytest.raises(UserError, match="y has classes that the run does not know: d\n  expected a, b, c"):
        make(arrays={"x": ROWS[:2], "y": np.array(["a", "d"])}).load_like(data.fitted(), CPU)


@pytest.mark.parametrize("y, few, wanted", [
    (np.arange(60) * 0.5, [1.5], [[1.5]]),
    (np.arange(60) * 0.5, [2, 2], [[2.0], [2.0]]),
    (CLASSES + 1, [3], [2]),
    (CLASSES + 1, [3.0, 1.0], [2, 0]),
    (None, None, [0, 0]),
])  # fmt: skip
def test_a_few_arrays_are_scored_with_the_targets_of_the_run(y, few, wanted):
    """One sample, or targets that are all the same; without targets if the run had none."""
    images = RANDOM.randint(256, size=(60, 4, 4)).astype(np.uint8)
    data = loaded(x=images) if y is None else loaded(x=ROWS, y=y)
    x = (images if y is None else ROWS)[: len(wanted)]
    other = make(arrays={"x": x} if few is None else {"x": x, "y": np.array(few)})
    other.load_like(data.fitted(), CPU)
    assert next(other.batches("all"))[1].tolist() == wanted


@pytest.mark.parametrize(("y", "other"), [
    (CLASSES % 2 == 0, CLASSES % 2 == 0),
    (CLASSES % 2 == 0, (CLASSES + 1) % 2 * 1.0),
    (CLASSES % 2, CLASSES % 2 == 1),
    (CLASSES + 1, (CLASSES + 1) * 1.0),
    (2.0 * CLASSES, 2 * CLASSES),
    (np.eye(3)[CLASSES], np.eye(3, dtype=int)[CLASSES]),
    (np.array(["a", "b", "c"])[CLASSES], np.array([b"a", b"b", b"c"])[CLASSES]),
])  # fmt: skip
def test_classes_of_other_arrays_are_read_as_in_the_run(y, other):
    data, again = make(arrays={"x": ROWS, "y": y}, learn="classification"), make(arrays={"x": ROWS, "y": other})
    data.load(CPU)
    again.load_like(data.fitted(), CPU)
    own: dict[int, int] = {}
    for split in ("train", "val", "test"):
        own |= zip(data.origins(split), data.targets(split).tolist(), strict=True)
    assert again.targets("test").tolist() == [own[row] for row in range(60)]


@pytest.mark.parametrize(("y", "other", "message"), [
    (CLASSES + 1, CLASSES, "y has classes that the run does not know: 0\n  expected 1, 2, 3"),
    (np.array(["a", "b", "c"])[CLASSES], CLASSES, "y has classes that the run does not know: 0, 1, 2\n  expected a, b"),
    (CLASSES, RANDOM.rand(60, 4), r"y has the shape \(60, 4\)\n  expected one class for each sample, \(60,\), or rows"),
    (CLASSES, np.eye(4)[CLASSES + 1], "y has classes that the run does not know: 3\n  expected 0, 1, 2"),
    (ROWS[:, 0], np.array(["a", "b", "c"])[CLASSES], "and the type <U1\n  expected targets as those of the run"),
    (ROWS[:, 0], ROWS[:, :2], "y has 2 targets for each sample\n  expected 1, as the run"),
])  # fmt: skip
def test_other_classes_than_the_runs_are_refused(y, other, message):
    with pytest.raises(UserError, match=message):
        make(arrays={"x": ROWS, "y": other}).load_like(loaded(x=ROWS, y=y).fitted(), CPU)


def test_numbers_of_classes_that_the_config_names_are_those_classes():
    data = make(arrays={"x": ROWS, "y": CLASSES}, labels=["a", "b", "c"])
    data.load(CPU)
    again = make(arrays={"x": ROWS, "y": CLASSES}, labels=["a", "b", "c"])
    again.load_like(data.fitted(), CPU)
    assert again.targets("test").tolist() == CLASSES.tolist()


def test_a_rare_class_is_drawn_as_often():
    y = (np.arange(60) % 6 == 0).astype(int)
    data = make(arrays={"x": ROWS, "y": y}, sampler="balanced")
    data.load(CPU)
    orders = [torch.cat([y for _, y in data.batches("train", 0, epoch)]) for epoch in (1, 1, 2)]
    assert torch.bincount(orders[0]).tolist() == [18, 18]
    assert torch.equal(orders[0], orders[1]) and not torch.equal(orders[0], orders[2])


def test_a_train_split_with_nothing_to_learn_is_refused():
    """Although the test split differs."""
    for y, message in (
        (np.full(60, 1.5), "y is always 1.5 in the train split"),
        (np.zeros(60, int), "has one class, 0:"),
    ):
        other = np.arange(60) % 2 + (0.25 if y.dtype == float else 0)
        data = make(arrays={"x_train": ROWS, "y_train": y, "x_test": ROWS, "y_test": other.astype(y.dtype)})
        with pytest.raises(UserError, match=message):
            data.load(CPU)
            make_task(torch.nn.Linear(4, 1), data.spec).prepare(data)


def test_folds_divide_all_samples_that_are_not_test():
    """Also those of a val split that is given."""
    given = {f"{name}_{split}": rows[part] for split, part in (("train", slice(30)), ("val", slice(30, 45)),
             ("test", slice(45, 60))) for name, rows in (("x", ROWS), ("y", CLASSES))}  # fmt: skip
    held = []
    for fold in range(4):
        data = make(arrays=given, folds=4, fold=fold)
        data.load(CPU)
        assert not set(data.origins("val")) & set(data.origins("train")) and data.origins("test") == list(range(45, 60))
        held += data.origins("val")
    assert sorted(held) == list(range(45))


@pytest.fixture(scope="module")
def npz(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("arrays") / "a.npz"
    np.savez(path, x=ROWS + 4 * CLASSES[:, None], y=CLASSES)
    return path


def test_a_run_on_arrays_resumes_to_the_bit(npz, tmp_path):
    keys = [
        "trainer.epochs=2",
        "trainer.device=cpu",
        "trainer.checkpoint_gap=0",
        "data.batch_size=8",
        "model.hidden=[8]",
    ]
    config = compose("data=arrays", f"data.file={npz}", *keys)
    train(tmp_path / "a", config, finish=True)
    for step in (2, 7):
        train(tmp_path / "b", config, resumed=step > 2, signals={step: SIGTERM})
    train(tmp_path / "b", config, resumed=True, finish=True)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_a_run_predicts_arrays_and_rows(npz, tmp_path, monkeypatch, capsys):
    run = trained(tmp_path / "run", ["data=arrays", f"data.file={npz}", "model.hidden=[8]"])
    np.save(tmp_path / "new.npy", np.load(npz)["x"][:5])
    np.savetxt(tmp_path / "new.csv", np.load(npz)["x"][:5], delimiter=",")
    message = []
    capsys.readouterr()
    for name in ("new.npy", "new.csv"):
        monkeypatch.setattr("sys.argv", ["dl-runs", "predict", str(run), str(tmp_path / name)])
        main()
        message.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
    assert [row["input"] for row in message[0]] == [f"{tmp_path}/new.npy[{i}]" for i in range(5)]
    for one, other in zip(*message, strict=True):
        assert one["label"] == other["label"] and one["probability"] == pytest.approx(other["probability"], rel=1e-4)
    np.save(tmp_path / "new.npy", ROWS[:, :2])
    monkeypatch.setattr("sys.argv", ["dl-runs", "predict", str(run), str(tmp_path / "new.npy")])
    with pytest.raises(SystemExit):
        main()
    assert "x has samples of shape [2]\n  expected [4], as in the run" in capsys.readouterr().err


@pytest.mark.parametrize(("arrays", "message"), [
    (dict(x=ROWS, y=CLASSES[:50]), r"shapes \(60, 4\) \(inputs\) and \(50,\) \(targets\)\n  expected the same"),
    (dict(x=np.where(ROWS == ROWS[7, 2], np.nan, ROWS), y=CLASSES), r"x\[7, 2\] is nan\n  expected finite numbers"),
    (dict(x=np.where(ROWS == ROWS[7, 2], 1e300, ROWS), y=CLASSES), r"x\[7, 2\] is 1e\+300\n.* the largest of float32"),
    (dict(x=np.array([{}, 1], object), y=CLASSES[:2]), "x holds values of type object\n  expected real numbers"),
    (dict(x=RANDOM.rand(60, 8, 6, 5), y=CLASSES), r"x has the shape \(60, 8, 6, 5\)\n  expected images: "),
    (dict(x=ROWS, y=np.zeros(60, int)), "y has one class, 0: expected two or more"),
    (dict(x=ROWS, y=np.zeros(60)), "y is always 0: there is nothing to learn"),
    (dict(x_train=ROWS, y_train=CLASSES, x_test=ROWS[:, :3], y_test=CLASSES), "inputs have the shapes"),
    (dict(x_test=ROWS, y_test=CLASSES), "the arrays are x_test, y_test\n  expected an .npz with x and y"),
    (dict(x_train=ROWS, y_train=CLASSES, x_test=ROWS, y_test=CLASSES.astype(str)), "y holds texts in some splits and"),
    (dict(x_train=ROWS, y_train=CLASSES, x_val=ROWS), "some splits have targets and some have none"),
])  # fmt: skip
def test_bad_arrays_are_refused(arrays, message):
    with pytest.raises(UserError, match="(?s)" + message):
        loaded(**arrays)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (100000000000000000000000, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (True, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,",
        "if 1:\n    3\n  4",
    ],
)
def test_false_headers_are_refused(header, tmp_path):
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY\1\0" + len(header).to_bytes(2, "little") + header.encode())
    with pytest.raises(UserError, match="is not an intact array file"):
        read_npy(tmp_path / "x.npy")


def test_damaged_zips_are_refused(tmp_path):
    """Whatever byte is wrong, and nothing else is raised."""
    path, refused = tmp_path / "x.npz", 0
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(path, "w", method) as file, file.open("x.npy", "w") as member:
            np.save(member, ROWS)
        whole = path.read_bytes()
        for place in range(0, len(whole), len(whole) // 60):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 9]) + whole[place + 1 :])
            try:
                read_npz(path)
            except UserError:
                refused += 1
    assert refused > 60


def test_files_that_hold_no_arrays_are_refused(tmp_path):
    """Objects are never unpickled: a file that would run code when it is, does not."""
    path, trap = tmp_path / "a.npz", tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return Path.touch, (trap,)

    np.savez(path, x=np.array([Evil()], object), y=np.zeros(1))
    with pytest.raises(UserError, match="holds Python objects; they are never loaded"):
        make(file=str(path)).load(CPU)
    assert not trap.exists()
    np.save(tmp_path / "b.npy", np.array([Evil()], object))
    with pytest.raises(UserError, match="they are never loaded"):
        make(x=str(tmp_path / "b.npy"), y=str(tmp_path / "b.npy")).load(CPU)
    assert not trap.exists()
    path.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(UserError, match="is not an intact array file"):
        make(file=str(path)).load(CPU)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", "no array")
    with pytest.raises(UserError, match="x is not an array"):
        make(file=str(path)).load(CPU)
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(UserError, match="has the arrays weights: no inputs\n  expected an .npz with x and y"):
        make(file=str(path)).load(CPU)
