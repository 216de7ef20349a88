"""Small generated data in the layout of each data set that the configs read from files."""

import json
from pathlib import Path

import numpy as np
from PIL import Image as Picture
from reviews import write_reviews
from runs import write_mnist


def write_data(root: Path) -> Path:
    """Write all data sets under `root`. Returns `root`."""
    rng = np.random.default_rng(0)
    write_mnist(root)
    write_mnist(root / "fashion", train=60)
    (root / "fashion" / "MNIST").rename(root / "FashionMNIST")
    write_reviews(root)
    write_keras_reviews(root, rng)
    for folder, label_bytes, names in (
        ("cifar-10-batches-bin", 1, [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]),
        ("cifar-100-binary", 2, ["train", "test"]),
    ):
        write_cifar(root / folder, label_bytes, names, rng)
    for name in ("bulbasaur", "charmander", "mewtwo", "pikachu", "squirtle"):
        write_images(root / "pokemon" / name, 6, rng)
    for name in ("cat", "dog"):
        write_images(root / "pictures" / name, 20, rng)
        texts = root / "texts" / name
        texts.mkdir(parents=True)
        for i in range(20):
            (texts / f"{i}.txt").write_text(f"{name} number {i}")
    write_images(root / "anime_faces", 40, rng)
    write_images(root / "segmentation" / "images", 20, rng)
    write_images(root / "segmentation" / "masks", 20, rng, most=2)
    cars = [f'{10 + i}.0 8 307.0 {100 + i}.0 3504. 12.0 70 {1 + i % 3}\t"car {i}"' for i in range(60)]
    (root / "auto_mpg").mkdir()
    (root / "auto_mpg" / "auto-mpg.data").write_text("\n".join(cars))
    rows = [f"{i / 10},{'abc'[i % 3]},2026-0{1 + i % 9}-01,{i % 7 or ''},{'xy'[i % 2]}" for i in range(60)]
    (root / "table.csv").write_text("\n".join(["size,colour,day,count,kind", *rows]))
    np.savez(root / "samples.npz", x=rng.normal(size=(60, 5)), y=np.arange(60) % 3)
    (root / "boston_housing").mkdir()
    np.savez(root / "boston_housing" / "boston_housing.npz", x=rng.normal(size=(60, 13)), y=rng.uniform(5, 50, 60))
    return root


def write_cifar(folder: Path, label_bytes: int, names: list[str], rng: np.random.Generator) -> None:
    """Write binary files of 20 images each: a row is the labels and the pixels."""
    folder.mkdir()
    for name in names:
        rows = rng.integers(0, 256, (20, label_bytes + 3072), dtype=np.uint8)
        rows[:, :label_bytes] = np.arange(20)[:, None] % 10
        (folder / f"{name}.bin").write_bytes(rows.tobytes())


def write_images(folder: Path, count: int, rng: np.random.Generator, most: int = 256) -> None:
    """Grey images of 32x32, noise from 0 to below `most`."""
    folder.mkdir(parents=True)
    for i in range(count):
        Picture.fromarray(rng.integers(0, most, (32, 32), dtype=np.uint8)).save(folder / f"{i}.png")


def write_keras_reviews(root: Path, rng: np.random.Generator) -> None:
    """Write imdb.npz, as NumPy writes arrays of lists, and imdb_word_index.json."""
    (root / "imdb_word_index.json").write_text(json.dumps({f"word{i}": i for i in range(1, 30)}))
    x = np.empty(60, object)
    x[:] = [rng.integers(1, 30, rng.integers(1, 20)).tolist() for _ in range(60)]
    y = np.arange(60) % 2
    np.savez(root / "imdb.npz", x_train=x, y_train=y, x_test=x[:20], y_test=y[:20])


SKEWED = ["data=table", "data.target=kind", "trainer.device=cpu", "trainer.epochs=4", "model=mlp", "model.hidden=[8]"]
SKEWED += ["data.batch_size=16", "trainer.checkpoint_gap=0", "trainer.log_every=0"]


def write_skewed(folder: Path) -> Path:
    """Write a table with 15 rows of one class to one of the other; return its path."""
    random = np.random.default_rng(0)
    y = np.arange(480) % 16 == 0
    x = random.normal(size=(480, 2)) + 1.2 * y[:, None]
    lines = [f"{a:.4f},{b:.4f},{'sick' if c else 'healthy'}" for (a, b), c in zip(x, y, strict=True)]
    path = folder / "skewed.csv"
    path.write_text("\n".join(["a,b,kind", *lines]))
    return path
