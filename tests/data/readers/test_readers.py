"""Readers of whole, damaged and hostile files; generated data and splits are exactly those of the book."""

import gzip
import hashlib
import os
import pickle
import struct
import tarfile
from importlib import import_module

import numpy as np
import pytest
from omegaconf import OmegaConf
from runs import CONFIGS

from dlrun.errors import DataError

DATA = CONFIGS / "data"


def read(name, root, **changes):
    """What configs/data/NAME.yaml reads under `root`; nothing is downloaded."""
    source = OmegaConf.to_container(OmegaConf.load(DATA / f"{name}.yaml").source, resolve=False)
    module, _, function = source.pop("_target_").rpartition(".")
    reader = getattr(import_module(module), function)
    asked = {"data_dir": str(root), "download": False} if "data_dir" in source else {}
    return reader(**source | asked | changes)


def idx_bytes(array):
    dims = (0x800 + array.ndim, *array.shape)
    return struct.pack(f">{len(dims)}I", *dims) + array.astype(np.uint8).tobytes()


def make_idx(folder, packed=False):
    folder.mkdir(parents=True)
    x = np.arange(5 * 28 * 28).reshape(5, 28, 28) % 251
    for part, n in (("train", 5), ("t10k", 2)):
        for kind, array in (("images-idx3", x[:n]), ("labels-idx1", np.arange(n))):
            path = folder / f"{part}-{kind}-ubyte{'.gz' if packed else ''}"
            path.write_bytes(gzip.compress(idx_bytes(array)) if packed else idx_bytes(array))
    return x


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["FashionMNIST/raw", "fashion_mnist", "fashion-mnist", "fashionmnist/raw"])
def test_idx_files_are_read(tmp_path, place, packed):
    x = make_idx(tmp_path / place, packed)
    arrays = read("fashion_mnist", tmp_path)
    assert arrays.x_train.dtype == np.uint8 and np.array_equal(arrays.x_train, x[:, None])
    assert arrays.y_train.dtype == np.int64 and arrays.y_train.tolist() == [0, 1, 2, 3, 4]
    assert arrays.x_test.shape == (2, 1, 28, 28) and arrays.y_test.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("file", "harm", "text"),
    [
        ("train-images-idx3-ubyte", lambda b: b[:-10], "3,910 bytes.*\n  expected 3,920"),
        ("train-images-idx3-ubyte", lambda b: b + b"x", "and more"),
        ("train-images-idx3-ubyte", lambda b: b[:7], "7 bytes in all"),
        ("train-images-idx3-ubyte", lambda b: b[:1], "1 byte in all"),
        ("train-labels-idx1-ubyte", lambda b: b"<html>" + b, "magic number 1013478509\n  expected 2049"),
        ("t10k-labels-idx1-ubyte", lambda b: idx_bytes(np.arange(3)), "3 labels\n  expected 2"),
        ("t10k-images-idx3-ubyte", lambda b: b[:4] + b"\xff" * 12, "bytes\n  expected"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx_files_are_refused(tmp_path, file, harm, text, packed):
    make_idx(tmp_path / "MNIST" / "raw", packed)
    path = tmp_path / "MNIST" / "raw" / (file + ".gz" if packed else file)
    content = path.read_bytes()
    path.write_bytes(gzip.compress(harm(gzip.decompress(content))) if packed else harm(content))
    with pytest.raises(DataError, match=f"{path.name} is damaged: (.|\n)*{'' if packed else text}(.|\n)*delete it"):
        read("mnist", tmp_path)


def test_truncated_gzip_files_are_refused(tmp_path):
    make_idx(tmp_path / "MNIST" / "raw", packed=True)
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz is damaged"):
        read("mnist", tmp_path)


def test_missing_mnist_names_every_file(tmp_path):
    with pytest.raises(DataError) as caught:
        read("mnist", tmp_path)
    for part in ("train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", str(tmp_path / "MNIST" / "raw"), "ossci"):
        assert part in str(caught.value)


# ---- CIFAR

PIXELS = (np.arange(3 * 3072).reshape(3, 3072) * 7 % 256).astype(np.uint8)


def cifar_files(root, kind, classes, labels=(1, 9, 0)):
    """Three images in every file of one published layout; returns the folder."""
    folders = {("bin", 10): "cifar-10-batches-bin", ("py", 10): "cifar-10-batches-py"}
    folder = root / folders.get((kind, classes), "cifar-100-binary" if kind == "bin" else "cifar-100-python")
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"] if classes == 10 else ["train", "test"]
    for name in names:
        if kind == "bin":
            coarse = [np.zeros(3, np.uint8)] if classes == 100 else []
            rows = np.column_stack([*coarse, np.array(labels, np.uint8), PIXELS])
            (folder / f"{name}.bin").write_bytes(rows.tobytes())
        else:
            key = "labels" if classes == 10 else "fine_labels"
            batch = {b"data": PIXELS, key.encode(): list(labels), b"filenames": ["a", "b", "c"]}
            (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return folder


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("kind", ["bin", "py"])
def test_cifar_is_read_in_both_formats(tmp_path, kind, classes):
    cifar_files(tmp_path, kind, classes)
    arrays = read(f"cifar{classes}", tmp_path)
    files = 5 if classes == 10 else 1
    assert np.array_equal(arrays.x_train, np.tile(PIXELS.reshape(3, 3, 32, 32), (files, 1, 1, 1)))
    assert arrays.y_train.tolist() == [1, 9, 0] * files and arrays.y_train.dtype == np.int64
    assert np.array_equal(arrays.x_test, PIXELS.reshape(3, 3, 32, 32)) and arrays.y_test.tolist() == [1, 9, 0]


@pytest.mark.parametrize(("kind", "label"), [("bin", 10), ("py", 10), ("py", -1)])
def test_a_cifar_label_out_of_range_is_refused(tmp_path, kind, label):
    cifar_files(tmp_path, kind, 10, labels=(1, label, 0))
    with pytest.raises(DataError, match=rf"data_batch_1.* is damaged: label {label}\n  expected 0 to 9"):
        read("cifar10", tmp_path)


def test_truncated_or_incomplete_cifar_is_refused(tmp_path):
    folder = cifar_files(tmp_path, "bin", 10)
    path = folder / "data_batch_4.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"9,218 bytes\n  expected a multiple of 3,073"):
        read("cifar10", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"has no data_batch_4\.bin"):
        read("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["binary", "python"])
def test_cifar_is_unpacked_from_an_archive_that_is_already_there(tmp_path, name):
    folder = cifar_files(tmp_path, name[:3].replace("pyt", "py"), 10)
    archive = tmp_path / f"cifar-10-{name}.tar.gz"
    with tarfile.open(archive, "w:gz") as pack:
        pack.add(folder, folder.name)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    checksums = {archive.name: "md5:" + hashlib.md5(archive.read_bytes()).hexdigest()}
    assert len(read("cifar10", tmp_path, checksums=checksums).x_train) == 15
    assert folder.is_dir() and archive.exists()


def test_missing_cifar_names_the_archive(tmp_path):
    with pytest.raises(DataError, match=r"kriz/cifar-100-binary.tar.gz(.|\n)*put cifar-100-binary.tar.gz into"):
        read("cifar100", tmp_path)


class Evil:
    def __init__(self, call, *args):
        self.call = (call, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("inside", [False, True])
def test_a_hostile_pickle_runs_nothing(tmp_path, inside):
    folder, trace = cifar_files(tmp_path, "py", 10), tmp_path / "ran"
    evil = Evil(os.system, f"touch {trace}")
    (folder / "data_batch_1").write_bytes(pickle.dumps({b"data": evil} if inside else evil))
    with pytest.raises(DataError, match=r"data_batch_1 is refused: its pickle asks for (posix|nt)\.system"):
        read("cifar10", tmp_path)
    assert not trace.exists()


RECONSTRUCT = np.empty(0).__reduce__()[0]
UNWRITTEN = {
    "called": Evil(np.ndarray, (3, 3072), "u1"),
    "without values": Evil(RECONSTRUCT, np.ndarray, (3, 3072), b"b"),
    "of another class": Evil(RECONSTRUCT, np.dtype, (3, 3072), b"b"),
    "with objects in fields": np.zeros(3, [("a", "O"), ("b", "u1", 3064)]),
    "of floats": np.zeros((3, 3072)),
}


@pytest.mark.parametrize("kind", UNWRITTEN)
def test_a_pickle_cannot_ask_for_uninitialised_memory(tmp_path, kind):
    """NumPy can unpickle arrays without values: a batch of uninitialised memory would be read."""
    folder = cifar_files(tmp_path, "py", 10)
    batch = {b"data": UNWRITTEN[kind], b"labels": [1, 9, 0]}
    (folder / "data_batch_1").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(DataError, match="data_batch_1 is (damaged|refused)"):
        read("cifar10", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x02]", pickle.dumps([1]), pickle.dumps({"data": [1], "labels": [1]})])
def test_a_damaged_pickle_is_refused(tmp_path, content):
    (cifar_files(tmp_path, "py", 10) / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match="data_batch_1 is damaged"):
        read("cifar10", tmp_path)


# ---- tables and made data


def test_digits():
    arrays = read("digits", None)
    assert [len(part) for part in arrays] == [1438, 1438, 359, 359]
    assert arrays.x_train.shape[1:] == (1, 8, 8) and arrays.x_train.dtype == np.uint8 and arrays.x_train.max() == 255
    assert np.bincount(arrays.y_test).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    assert np.array_equal(read("digits", None).x_test, arrays.x_test)


@pytest.mark.parametrize(("samples", "noise", "share", "sizes"), [(1000, 0.25, 0.25, (750, 250)), (7, 0, 0.3, (4, 3))])
def test_moons_are_scikit_learns(samples, noise, share, sizes):
    from sklearn.datasets import make_moons
    from sklearn.model_selection import train_test_split

    x, y = make_moons(n_samples=samples, noise=noise, random_state=100)
    x_train, x_test, y_train, y_test = train_test_split(x, y, test_size=share, random_state=42)
    arrays = read("moons", None, samples=samples, noise=noise, test_fraction=share)
    assert (len(arrays.x_train), len(arrays.x_test)) == sizes
    for ours, theirs in zip(arrays, (x_train.astype("f4"), y_train, x_test.astype("f4"), y_test), strict=True):
        assert np.array_equal(ours, theirs)


def test_an_empty_split_is_refused():
    with pytest.raises(DataError, match="test_fraction=1 of 1,000 rows leaves nothing"):
        read("moons", None, test_fraction=1)


def test_linear():
    arrays = read("linear", None)
    x, y = arrays.x_train, arrays.y_train
    assert x.shape == y.shape == (100, 1) and x.dtype == y.dtype == np.float32 and len(arrays.x_test) == 100
    assert np.abs(y - (1.477 * x + 0.089)).max() < 0.05 and -10 <= x.min() < -9 < 9 < x.max() < 10
    with pytest.raises(DataError, match="low=3 data.source.high=3: expected low < high"):
        read("linear", None, low=3, high=3)


CAR = '18.0   8   307.0      130.0      3504.      12.0   70  1\t"chevrolet chevelle malibu"\n'


def test_auto_mpg_rows(tmp_path):
    (tmp_path / "auto-mpg.data").write_text(CAR * 5 + CAR.replace("130.0", "?") + "\n" + CAR.replace("1\t", "3\t"))
    frames = read("auto_mpg", tmp_path)
    assert (len(frames["train"]), len(frames["test"])) == (5, 1)  # 6 of 7: a ? drops its row
    found = sorted(frames["train"].rows() + frames["test"].rows())
    assert found[0] == (18, 8, 307, 130, 3504, 12, 70, "Japan") and found[1] == (18, 8, 307, 130, 3504, 12, 70, "USA")


@pytest.mark.parametrize("bad", [CAR.replace("8 ", ""), CAR.replace("130.0", "abc"), CAR.replace("1\t", "4\t"),
                                 CAR.replace("130.0", "nan"), "<html>\n"])  # fmt: skip
def test_malformed_auto_mpg_is_refused(tmp_path, bad):
    (tmp_path / "auto_mpg").mkdir()
    (tmp_path / "auto_mpg" / "auto-mpg.data").write_text(CAR + bad)
    with pytest.raises(DataError, match=r"auto-mpg\.data is damaged: line 2: "):
        read("auto_mpg", tmp_path)


# ---- the published files

REAL = os.environ.get("DL_RUN_DATA_DIR")


PUBLISHED = [("mnist", 60_000, (1, 28, 28)), ("fashion_mnist", 60_000, (1, 28, 28)), ("cifar10", 50_000, (3, 32, 32))]


@pytest.mark.skipif(not REAL, reason="needs the data under DL_RUN_DATA_DIR")
@pytest.mark.parametrize(("name", "num", "shape"), PUBLISHED)
def test_published_images(name, num, shape):
    arrays = read(name, REAL)
    assert arrays.x_train.shape == (num, *shape) and arrays.x_test.shape == (10_000, *shape)
    counts = np.bincount(arrays.y_test).tolist()
    assert counts == ([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009] if name == "mnist" else [1000] * 10)
    config = OmegaConf.load(DATA / f"{name}.yaml")
    assert arrays.x_train.mean((0, 2, 3)) / 255 == pytest.approx(list(config.mean), abs=2e-4)


@pytest.mark.skipif(not REAL, reason="needs the data under DL_RUN_DATA_DIR")
def test_published_auto_mpg():
    frames = read("auto_mpg", REAL)
    assert frames["train"].shape == (314, 8) and frames["test"].shape == (78, 8)
    # The first rows of pandas' dropna().sample(frac=0.8, random_state=0), and of what that leaves.
    assert frames["train"]["MPG"][:3].to_list() == pytest.approx([28.0, 22.3, 12.0])  # rows 144, 280, 68
    assert frames["train"]["Weight"][:3].to_list() == [2125, 2890, 4456]
    assert frames["test"]["MPG"][:3].to_list() == [15, 10, 9]  # rows 9, 25, 28


PACKAGED = {  # rows, columns with the target, and the counts of the classes or the mean of the target
    "iris": (150, 5, {"setosa": 50, "versicolor": 50, "virginica": 50}),
    "wine": (178, 14, {"class_0": 59, "class_1": 71, "class_2": 48}),
    "breast_cancer": (569, 31, {"malignant": 212, "benign": 357}),
    "diabetes": (442, 11, 152.133),
}


@pytest.mark.parametrize("name", PACKAGED)
def test_tables_of_scikit_learn(name):
    config = OmegaConf.load(DATA / f"{name}.yaml")
    frame = read(name, None)["all"]
    rows, columns, wanted = PACKAGED[name]
    assert frame.shape == (rows, columns) and not sum(frame.null_count().row(0))
    target = frame[config.target]
    assert (
        dict(target.value_counts().rows()) == wanted
        if isinstance(wanted, dict)
        else target.mean() == pytest.approx(wanted, abs=1e-3)
    )


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("dlrun.data.readers.frames.find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --no-deps palmerpenguins"):
        read("penguins", None)


def test_boston_is_shuffled_as_by_keras(tmp_path):
    x, y = np.arange(20.0 * 13).reshape(20, 13), np.arange(20.0)
    np.savez(tmp_path / "boston_housing.npz", x=x, y=y)
    frames = read("boston", tmp_path)
    order = np.arange(20)
    np.random.RandomState(113).shuffle(order)
    assert (
        frames["train"]["MEDV"].to_list() == order[:16].tolist()
        and frames["test"]["MEDV"].to_list() == order[16:].tolist()
    )
    assert frames["test"]["LSTAT"].to_list() == x[order[16:], 12].tolist()
    np.savez(tmp_path / "boston_housing.npz", x=x[:, :3], y=y)
    with pytest.raises(DataError, match="rows of 13 numbers"):
        read("boston", tmp_path)
