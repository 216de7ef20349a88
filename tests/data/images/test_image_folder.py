"""Folders of images: what is in them, how it is split, decoded, cached, read ahead; and what is wrong with them."""

import json
import os
import socket
import struct
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from signal import SIGTERM

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image as PILImage
from runs import assert_same, compose, train
from toys import CPU, section

from dlrun.cli import main
from dlrun.config.build import build
from dlrun.config.older import update_config
from dlrun.data import resident
from dlrun.data.images import cache as image_cache
from dlrun.data.images import decode, streamed
from dlrun.data.images.folder import ImageFolder
from dlrun.data.images.label_file import ListFormat, by_file
from dlrun.data.images.lists import Classes, Listing, split
from dlrun.errors import DataError, PairingError, UserError
from dlrun.spec import Image

CLASSES = ("ant", "bee", "cat", "dog")


def write_folder(root: Path, count: int = 40, side: int = 12, classes: tuple[str, ...] = CLASSES) -> Path:
    """Noise of several kinds of files, `count` in all; the red of the first pixel names the image."""
    rng = np.random.RandomState(0)
    kinds = [("RGB", "bmp"), ("RGBA", "png"), ("P", "gif"), ("L", "PNG")]
    for i in range(count):
        mode, suffix = kinds[i % len(kinds)]
        folder = root / "images" / classes[i % len(classes)]
        folder.mkdir(parents=True, exist_ok=True)
        image = PILImage.fromarray(rng.randint(0, 256, (side, side, 3), dtype=np.uint8))
        image.convert(mode).save(folder / f"{i:03d}.{suffix}")
    return root


def make(data_dir: Path, load: bool = True, **keys) -> ImageFolder:
    """The data set `images` under `data_dir`, 8x8 in batches of 4."""
    defaults = dict(data_dir=str(data_dir), batch_size=4, eval_batch_size=5, spec=Image((3, 8, 8)))
    given = {key: value for key, value in section("data", "image_folder").items() if key not in ("_target_", "augment")}
    augment = build(section("data", "image_folder")["augment"] | keys.pop("augment", {}))
    data = ImageFolder(**given | defaults | keys, augment=augment)
    if load:
        data.load(CPU)
    return data


def decode_with(monkeypatch: pytest.MonkeyPatch, cores: int, chunk: int = 8) -> None:
    """Decode images in this many processes from the first on, `chunk` at a time."""
    monkeypatch.setattr(image_cache, "cpus", lambda: cores)
    monkeypatch.setattr(decode, "CHUNK", chunk)
    monkeypatch.setattr(decode, "START", -1)


def parts(data: ImageFolder) -> dict[str, list[bytes]]:
    """Every split's images and labels, in order."""
    return {
        part: [x.numpy().tobytes() + bytes([y]) for xs, ys in data.batches(part) for x, y in zip(xs, ys, strict=True)]
        for part in ("train", "val", "test")
    }


def caches(root: Path) -> list[Path]:
    return sorted((root / "cache").glob("*.npy"))


# What is there


def test_class_folders_are_found_split_and_decoded_once(tmp_path):
    write_folder(tmp_path)
    data = make(tmp_path)
    assert data.spec == Image((3, 8, 8), 4, CLASSES)
    assert [data.size(part) for part in ("train", "val", "test")] == [24, 8, 8]
    for part in ("train", "val", "test"):  # stratified
        y = torch.cat([y for _, y in data.batches(part)])
        assert torch.bincount(y).tolist() == [data.size(part) // 4] * 4
    found = parts(data)
    assert len({*found["train"], *found["val"], *found["test"]}) == 40
    (cache,) = caches(tmp_path)
    made = cache.stat().st_mtime_ns
    assert parts(make(tmp_path)) == found and cache.stat().st_mtime_ns == made
    assert make(tmp_path, spec=Image((1, 8, 8))).spec == Image((1, 8, 8), 4, CLASSES)
    assert len(caches(tmp_path)) == 2 and {p.suffix for p in cache.parent.iterdir()} == {".npy", ".json"}


def test_labels_are_those_of_the_folders(tmp_path):
    for k, name in enumerate(CLASSES):
        (tmp_path / "images" / name / "deeper").mkdir(parents=True)
        for i in range(3):
            PILImage.new("L", (5, 9), 60 * k).save(tmp_path / "images" / name / ("deeper" if i else "") / f"{i}.png")
    (tmp_path / "images" / ".hidden").mkdir()
    PILImage.new("L", (5, 9), 255).save(tmp_path / "images" / ".hidden" / "x.png")
    (tmp_path / "images" / "ant" / "loop").symlink_to(tmp_path / "images")
    for labels in (CLASSES, CLASSES[::-1]):
        data = make(tmp_path, spec=Image((1, 8, 8), labels=labels), mean=[0.0], std=[1.0])
        assert data.spec.labels == labels
        for x, y in data.batches("train"):
            assert [60 * CLASSES.index(labels[k]) for k in y] == (x[:, 0, 0, 0] * 255).round().tolist()


def test_a_number_of_classes_keeps_their_names(tmp_path):
    write_folder(tmp_path)
    data = make(tmp_path, spec=Image((3, 8, 8), 4))
    assert data.spec == make(tmp_path).spec and len(set(data.spec.labels)) == 4
    again = make(tmp_path, spec=Image((3, 8, 8), 4), load=False)
    assert again.spec == Image((3, 8, 8), 4), "nothing is read before it is asked for"
    again.restore(data.fitted(), CPU)
    assert again.spec == data.spec


def test_flat_folders_have_no_classes(tmp_path):
    write_folder(tmp_path)
    assert make(tmp_path, layout="flat").spec.classes is None
    for folder in list((tmp_path / "images").iterdir()):
        for path in folder.iterdir():
            path.rename(tmp_path / "images" / path.name)
        folder.rmdir()
    data = make(tmp_path)
    assert data.spec == Image((3, 8, 8)) and data.size("train") == 24
    with pytest.raises(
        PairingError, match=r"gives Image\(shape=3x8x8, classes=None\), and mlp needs labels\n  models without labels"
    ):
        build(section("model", "mlp"))(data.spec)
    assert build(section("model", "vae"))(data.spec)


def test_a_csv_gives_the_split_of_the_folders_it_was_written_from(tmp_path):
    write_folder(tmp_path)
    (tmp_path / "images" / "cat" / "a, b.bmp").write_bytes((tmp_path / "images" / "ant" / "000.bmp").read_bytes())
    for stratify in (False, True):
        plain = make(tmp_path, stratify=stratify)
        written = make(tmp_path, stratify=stratify, write_csv=True)
        rows = (tmp_path / "images" / "images.csv").read_text().splitlines()
        assert len(rows) == 41 and {row.rpartition(",")[2] for row in rows} == set("0123")
        read = make(tmp_path, stratify=stratify, layout="csv")
        assert read.spec == plain.spec and parts(read) == parts(plain) == parts(written)
        (tmp_path / "images" / "images.csv").unlink()


def test_a_csv_that_is_named_is_read_or_refused(tmp_path):
    """Whatever folders there are; images.csv is read if it is there, and a run of before that named it by default."""
    write_folder(tmp_path)
    for keys in ({}, {"layout": "csv"}):
        for csv in ("images.csv", "labels.csv"):
            with pytest.raises(
                DataError, match=f"data.label_file={csv}: there is no file .*/images/{csv}\n  expected rows"
            ):
                make(tmp_path, label_file=csv, **keys)
    names = sorted(path.relative_to(tmp_path / "images").as_posix() for path in tmp_path.rglob("*.*"))
    (tmp_path / "images" / "labels.csv").write_text("".join(f"{n},{'xyz'[i % 3]}\n" for i, n in enumerate(names)))
    assert (
        make(tmp_path, label_file="labels.csv").spec.labels == ("x", "y", "z") and make(tmp_path).spec.labels == CLASSES
    )
    for layout in ("folders", "flat"):
        with pytest.raises(
            UserError, match=f"data.label_file=labels.csv data.layout={layout}: that layout reads no such file"
        ):
            make(tmp_path, label_file="labels.csv", layout=layout)
    make(tmp_path, label_file="new.csv", layout="folders", write_csv=True)
    assert (tmp_path / "images" / "new.csv").is_file()
    for keys, kept in (({}, None), ({"layout": "folders"}, None), ({"write_csv": True}, "images.csv")):
        older = {k: v for k, v in section("data", "image_folder").items() if k not in ("label_file", "label_pattern")}
        config = OmegaConf.create({"data": older | {"csv": "images.csv"} | keys})
        update_config(config)
        assert config["data"]["label_file"] == kept and config["data"]["label_pattern"] is None


def test_classes_that_are_numbers_keep_their_names_in_a_csv(tmp_path):
    write_folder(tmp_path, classes=("1", "2", "10", " 3"))
    plain = make(tmp_path)
    assert plain.spec.labels == (" 3", "1", "2", "10")
    assert not list(tmp_path.rglob("*.csv")), "a spec is asked for before the config is checked"
    written, read = make(tmp_path, write_csv=True), make(tmp_path, layout="csv")
    assert written.spec == read.spec == plain.spec and parts(written) == parts(read) == parts(plain)


def test_the_first_row_of_a_csv_is_an_image_whatever_its_suffix(tmp_path):
    write_folder(tmp_path, 9, classes=("a",))
    (tmp_path / "images" / "a" / "000.bmp").rename(tmp_path / "images" / "a" / "000.jfif")
    names = ["a/000.jfif", *(f"a/{p.name}" for p in sorted((tmp_path / "images" / "a").iterdir())[1:])]
    (tmp_path / "images" / "images.csv").write_text("".join(f"{n},{'xy'[i % 2]}\n" for i, n in enumerate(names)))
    assert sum(map(len, parts(make(tmp_path)).values())) == 9


def test_folders_that_look_alike_have_a_cache_each(tmp_path):
    """Names, sizes and times are the same, as archives leave them."""
    for name, shade in (("one", 10), ("two", 200)):
        for i in range(3):
            path = tmp_path / name / "images" / "a" / f"{i}.bmp"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = PILImage.new("RGB", (8, 8), (shade,) * 3)
            image.putpixel((0, 0), (9 if shade == 10 else 201,) * 3)
            image.save(path)
            os.utime(path, (0, 0))
    one, two = (make(tmp_path, root=f"{name}/images", layout="flat") for name in ("one", "two"))
    assert one.cache.pixels.max() == 10 and two.cache.pixels.min() == 200


def test_the_books_csv_is_read(tmp_path):
    """Paths begin with the root's name, with the separators of Windows; labels are numbers; splits follow the rows."""
    write_folder(tmp_path, 10, classes=("b", "a"))
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*"))[::-1]
    rows = [name.replace("/", "\\") + f",{int('/b/' in name)}\n" for name in names]
    (tmp_path / "images" / "images.csv").write_text("".join(rows))
    data = make(tmp_path, stratify=False)
    assert data.spec.labels == ("a", "b")
    assert [[int(y) for _, ys in data.batches(part) for y in ys] for part in ("val", "test")] == [[0, 0], [0, 0]]
    (tmp_path / "own.csv").write_text(
        "file,class\n" + "".join(f"{tmp_path / n},{i % 2}x\n" for i, n in enumerate(names))
    )
    other = make(tmp_path, label_file=str(tmp_path / "own.csv"))
    assert other.spec.labels == ("0x", "1x") and other.size("train") == 6


@pytest.mark.parametrize("stratify", [False, True])
def test_splits_are_a_partition_and_folds_cover_all_but_test(stratify):
    labels = np.random.RandomState(1).randint(0, 4, 1122)
    parts = split(labels, (0.6, 0.2, 0.2), stratify, 0, 0)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(1122))
    held = [split(labels, (0.6, 0.2, 0.2), stratify, 5, fold) for fold in range(5)]
    assert all(np.array_equal(found["test"], parts["test"]) for found in held)
    everything = np.sort(np.concatenate([found["val"] for found in held]))
    assert np.array_equal(everything, np.sort(np.concatenate([parts["train"], parts["val"]])))
    assert all(not set(found["train"]) & set(found["val"]) for found in held)


def test_a_plain_split_is_the_books_and_a_stratified_one_has_the_shares_in_every_class():
    labels, shares = np.random.RandomState(1).randint(0, 4, 1122), (0.6, 0.2, 0.2)
    plain, stratified = (split(labels, shares, stratify, 0, 0) for stratify in (False, True))
    assert [len(rows) for rows in plain.values()] == [673, 224, 225] and plain["test"][0] == 897
    for k in range(4):
        found = [(labels[rows] == k).sum() / (labels == k).sum() for rows in stratified.values()]
        assert np.allclose(found, shares, atol=0.01)


def write_splits(root: Path, folders: tuple[str, ...]) -> None:
    """Class folders below folders of splits: 16 images in the first one, fewer in each further one."""
    for i, folder in enumerate(folders):
        write_folder(root / "parts", 16 - 4 * i)
        (root / "images").mkdir(exist_ok=True)
        (root / "parts" / "images").rename(root / "images" / folder)


@pytest.mark.parametrize("folders", [("train", "valid", "test"), ("Train", "testing"), ("training", "val")])
def test_folders_are_the_splits(tmp_path, folders):
    write_splits(tmp_path, folders)
    data = make(tmp_path)
    assert data.spec.labels == CLASSES
    whole = {"train": "train", "Train": "train", "training": "train", "valid": "val", "val": "val", "testing": "test"}
    found = {whole.get(folder, folder): folder for folder in folders}
    for part in ("train", "val", "test"):
        assert {name.partition("/")[0] for name in data.files(part)} == {found.get(part, folders[0])}
    names = [name for part in ("train", "val", "test") for name in data.files(part)]
    assert len(names) == len(set(names)) == data.size("all")
    cut = "".join(f"; {part}: cut from {folders[0]}/" for part in ("val", "test") if part not in found)
    order = [found[part] for part in ("train", "val", "test") if part in found]
    assert data.header_lines == {"splits": f"the folders {', '.join(f'{name}/' for name in order)}{cut}"}
    assert make(tmp_path, layout="folders", load=False).spec.labels == tuple(sorted(folders))


@pytest.mark.parametrize(("folders", "message"), [
    (("train", "val", "cats"), "has cats beside train and val: are these splits or classes?"),
    (("val", "test"), "has the folders test, val, but none for train"),
    (("train", "val", "valid"), "has the folders val and valid: both would be the val split"),
])  # fmt: skip
def test_ambiguous_folders_are_refused(tmp_path, folders, message):
    write_splits(tmp_path, folders)
    with pytest.raises(DataError, match=message):
        make(tmp_path)


def test_columns_of_a_csv_by_name(tmp_path):
    """Any order, further columns, another separator, names without folder and suffix."""
    write_folder(tmp_path, 24)
    names = sorted(path.relative_to(tmp_path / "images").as_posix() for path in (tmp_path / "images" / "ant").iterdir())
    rows = [f"{i}\t{'xy'[i % 2]}\t{Path(name).stem}" for i, name in enumerate(names)]
    (tmp_path / "images" / "ant.tsv").write_text("weight\tbreed\tid\n" + "\n".join(rows))
    keys = dict(
        label_file="ant.tsv", label_column="breed", path_column="id", folder="ant", suffix=Path(names[0]).suffix
    )
    listed = listing(tmp_path / "images", **keys)
    assert listed.names == names and listed.classes == ("x", "y") and listed.labels.tolist() == [0, 1] * 3
    with pytest.raises(UserError, match="data.label_column=bred: .*ant.tsv has no such column; did you mean 'breed'"):
        listing(tmp_path / "images", **keys | {"label_column": "bred"})
    with pytest.raises(DataError, match="names 6 images that cannot be found: 000, 004, 008"):
        listing(tmp_path / "images", **keys | {"suffix": ".x"})


def listing(root: Path, label_file: str, **keys) -> Listing:
    return by_file(root, root / label_file, Classes(("x", "y"), None), ListFormat(**keys))


def test_other_images_are_scored_with_the_classes_of_the_run(tmp_path):
    """A folder with some of the classes, in splits: all of it is scored, and its labels are numbered as in the run."""
    write_folder(tmp_path)
    data, other = make(tmp_path), make(tmp_path / "other", load=False)
    for folder in ("train", "test"):
        write_folder(tmp_path / folder, 8)
        (tmp_path / "other" / "images" / folder).mkdir(parents=True)
        for name in ("bee", "dog"):
            (tmp_path / folder / "images" / name).rename(tmp_path / "other" / "images" / folder / name)
    other.load_like(data.fitted(), CPU)
    found = {CLASSES[label] for _, y in other.batches("all") for label in y}
    assert other.size("all") == other.size("test") == 8 and found == {"bee", "dog"}
    (tmp_path / "other" / "images" / "test" / "bee").rename(tmp_path / "other" / "images" / "test" / "wasp")
    with pytest.raises(DataError, match="has classes that the run does not know: wasp\n  expected ant, bee, cat, dog"):
        make(tmp_path / "other", load=False).load_like(data.fitted(), CPU)


def test_files_that_systems_leave_in_a_folder_are_no_images(tmp_path):
    write_folder(tmp_path)
    before, folder = parts(make(tmp_path)), tmp_path / "images"
    image = (folder / "ant" / "000.bmp").read_bytes()
    for name in ("ant/._000.bmp", ".ipynb_checkpoints/0.bmp", "bee/.ipynb_checkpoints/0.bmp", "__MACOSX/ant/0.bmp"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image)
    (folder / "ant" / "Thumbs.db").write_bytes(image)
    (folder / "ant" / "copies").symlink_to(folder / "bee")  # a folder that is read elsewhere, and one that leads back
    (folder / "cat" / "loop").symlink_to("loop")
    (folder / "dog").rename(tmp_path / "elsewhere")
    (folder / "dog").symlink_to(tmp_path / "elsewhere")
    assert parts(make(tmp_path)) == before


def test_only_regular_files_are_images_and_unreadable_folders_are_refused(tmp_path, monkeypatch):
    write_folder(tmp_path)
    os.mkfifo(tmp_path / "images" / "ant" / "x.png")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path / "images" / "bee")  # a socket's path is short
        server.bind("x.png")
        description = make(tmp_path).describe()
    assert "ant/x.png (it is a FIFO), bee/x.png (it is a socket)" in description
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match="the folder .*/images/cat cannot be read: Permission denied"):
        make(tmp_path)


def test_names_that_are_not_utf8_are_read(tmp_path):
    write_folder(tmp_path)
    folder = os.fsencode(tmp_path / "images")
    broken = folder + b"/ant/\xff.png"
    with open(broken, "wb") as file:
        file.write(b"no image")
    assert "ant/\\xff.png (cannot identify image file" in make(tmp_path).describe()
    os.unlink(broken)
    os.rename(folder + b"/cat", folder + b"/c\xe4t")
    with pytest.raises(DataError, match=r"has classes whose names are not UTF-8: c\\xe4t\n"):
        make(tmp_path)


# Decoding


DEEP = {
    "real numbers to 1": (lambda b: (b / 255).astype(np.float32), "tif", {"real": [0, 1]}),
    "real numbers from -1": (lambda b: (b / 127.5 - 1).astype(np.float32), "tif", {"real": [-1, 1]}),
    "bytes as real numbers": (lambda b: b.astype(np.float32), "tif", {"real": [0, 255]}),
    "bytes in 16 bits": (lambda b: b.astype(np.uint16), "png", {"whole": [0, 255]}),
    "bytes in 32 bits": (lambda b: b.astype(np.int32), "tif", {"whole": [0, 255]}),
    "12 bits in 16": (lambda b: b.astype(np.uint16) << 4, "tif", {"whole": [0, 4095]}),
    "16 bits": (lambda b: b.astype(np.uint16) << 8, "png", {"whole": [0, 65535]}),
    "below zero": (lambda b: b.astype(np.int32) - 1000, "tif", {"whole": [-1000, -745]}),
}


@pytest.mark.parametrize(
    ("kind", "cores"),
    [(kind, 1) for kind in DEEP]
    + [
        pytest.param(kind, 2, marks=pytest.mark.thorough)
        for kind in ("real numbers to 1", "bytes in 16 bits", "16 bits")
    ],
)
def test_images_keep_their_range(tmp_path, monkeypatch, kind, cores):
    """By the whole set: a dark image stays darker than a bright one."""
    convert, suffix, levels = DEEP[kind]
    decode_with(monkeypatch, cores, chunk=2)
    pixels = np.random.RandomState(0).randint(0, 256, (8, 8, 8), np.uint8)
    pixels[0, 0, :2], pixels[7] = (0, 255), pixels[7] // 16
    for name, own, ending in (("bytes", pixels, "png"), ("deep", convert(pixels), suffix)):
        (tmp_path / name).mkdir()
        for i, image in enumerate(own):
            PILImage.fromarray(image).save(tmp_path / name / f"{i}.{ending}")
    plain, deep = (make(tmp_path, root=name, spec=Image((1, 8, 8))) for name in ("bytes", "deep"))
    assert np.array_equal(plain.cache.pixels, deep.cache.pixels)
    assert "levels" not in plain.fitted() and "more than bytes" not in plain.describe()
    assert deep.fitted()["levels"] == levels and "were scaled to 0 .. 255" in deep.describe()
    again = make(tmp_path, load=False, spec=Image((1, 8, 8)))
    again.restore(deep.fitted(), CPU)
    dark = decode.read(tmp_path / "deep" / f"7.{suffix}", (1, 8, 8), "cover", levels=again.levels)
    assert np.array_equal(dark, plain.cache.pixels[7])


def test_declared_sizes_of_a_tiff_and_pixels_that_are_not_finite_are_checked(tmp_path):
    image = PILImage.fromarray(np.full((8, 8), 800, np.uint16))
    image.save(tmp_path / "a.tif", tiffinfo={281: 4095})
    assert (decode.read(tmp_path / "a.tif", (1, 8, 8), "cover") == 800 >> 4).all()
    PILImage.fromarray(np.full((8, 8), np.nan, np.float32)).save(tmp_path / "b.tif")
    assert "numbers that are not finite" in decode.read(tmp_path / "b.tif", (1, 8, 8), "cover")


def test_images_of_one_colour_are_refused(tmp_path):
    write_folder(tmp_path)
    for path in (tmp_path / "images").rglob("*.*"):
        PILImage.new("L", (9, 9), 7).save(path)
    with pytest.raises(DataError, match="images: all 40 images are of one colour, 7, 7, 7 of 255"):
        make(tmp_path)
    PILImage.new("L", (9, 9), 8).save(path)
    assert make(tmp_path).size("train") == 24


def test_larger_images_by_a_key(tmp_path):
    write_folder(tmp_path)
    before, large = PILImage.MAX_IMAGE_PIXELS, tmp_path / "images" / "ant" / "large.png"
    PILImage.new("L", (40, 40), 7).save(large)
    assert "ant/large.png (it has more pixels than data.max_pixels=500)" in make(tmp_path, max_pixels=500).describe()
    assert "large" not in make(tmp_path, max_pixels=1600).describe()
    assert PILImage.MAX_IMAGE_PIXELS == before  # Pillow's limit is that of the host program


def test_images_read_in_threads_leave_the_limit_and_the_filters_of_warnings(tmp_path):
    PILImage.new("L", (40, 40), 7).save(tmp_path / "large.png")
    before, shown, interval = PILImage.MAX_IMAGE_PIXELS, list(warnings.filters), sys.getswitchinterval()
    read = partial(decode.read, tmp_path / "large.png", (1, 8, 8), "cover")
    sys.setswitchinterval(1e-6)
    try:
        with decode.odd_files(), ThreadPoolExecutor(8) as pool:
            limits = [500, 900, 1599, 1600] * 250
            images = list(pool.map(read, limits))
    finally:
        sys.setswitchinterval(interval)
    assert [isinstance(image, str) for image in images] == [limit < 1600 for limit in limits]
    assert (PILImage.MAX_IMAGE_PIXELS, list(warnings.filters)) == (before, shown)


def test_images_of_all_kinds(tmp_path):
    """Transparent pixels are white; the middle is kept, or both sides are stretched; 16 bits keep the upper 8."""
    wide = PILImage.new("RGB", (24, 8), "black")
    wide.paste("red", (8, 0, 16, 8))
    turned = PILImage.new("RGB", (8, 24), "blue")
    turned.paste("black", (0, 0, 8, 12))
    exif = turned.getexif()
    exif[0x0112] = 6  # the camera was held upright
    palette = PILImage.new("P", (8, 8), 1)
    palette.putpalette([0, 0, 0, 10, 200, 30])
    files = {
        "clear.png": PILImage.new("RGBA", (8, 8), (9, 9, 9, 0)),
        "wide.png": wide,
        "deep.png": PILImage.fromarray(np.full((8, 8), 0x80FF, np.uint16)),
        "palette.png": palette,
        "grey.png": PILImage.new("LA", (8, 8), (70, 255)),
        "cmyk.tif": PILImage.new("CMYK", (8, 8), (0, 255, 255, 0)),
    }
    for name, image in files.items():
        image.save(tmp_path / name)
    turned.save(tmp_path / "turned.png", exif=exif)
    shape = (3, 8, 8)
    plain = {"clear.png": (255, 255, 255), "wide.png": (255, 0, 0), "deep.png": (128, 128, 128)}
    plain |= {"palette.png": (10, 200, 30), "grey.png": (70, 70, 70), "cmyk.tif": (255, 0, 0)}
    for name, colour in plain.items():
        assert (decode.read(tmp_path / name, shape, "cover") == np.array(colour, np.uint8)[:, None, None]).all(), name
    found = decode.read(tmp_path / "turned.png", (3, 8, 24), "stretch")
    assert (found[2, :, :11] == 255).all() and (found[2, :, 13:] == 0).all(), "turned by its EXIF entry"
    stretched = decode.read(tmp_path / "wide.png", (3, 8, 24), "stretch")
    assert (stretched[0, :, 8:16] == 255).all() and (stretched[0, :, :8] == 0).all()
    assert decode.read(tmp_path / "wide.png", (1, 8, 8), "cover").shape == (1, 8, 8)


def test_a_large_jpeg_decoded_at_a_fraction_is_nearly_the_same(tmp_path):
    ramp = np.linspace(0, 255, 800).astype(np.uint8)
    PILImage.fromarray(np.broadcast_to(ramp, (600, 800)).copy()).save(tmp_path / "a.jpg", quality=95)
    whole = np.asarray(PILImage.open(tmp_path / "a.jpg").resize((16, 12), PILImage.Resampling.BICUBIC), int)
    found = decode.read(tmp_path / "a.jpg", (1, 12, 16), "stretch").astype(int)
    assert abs(found[0] - whole).max() <= 2


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


@pytest.mark.thorough(but=["1"])
@pytest.mark.parametrize("cores", [1, 2])
def test_broken_images_and_bombs_are_left_out_and_named(tmp_path, monkeypatch, cores):
    decode_with(monkeypatch, cores)
    write_folder(tmp_path)
    before = parts(make(tmp_path, resident=False))
    folder = tmp_path / "images" / "ant"
    whole = (folder / "000.bmp").read_bytes()
    victim = next(p for p in sorted(folder.iterdir()) if p.name == "008.bmp")
    victim.write_bytes(whole[: len(whole) // 2])
    for name, content in {
        "zz broken.jpg": b"no image",
        "zz bomb.png": bomb(10_000),
        "zz huge.png": bomb(60_000),
    }.items():
        (tmp_path / "images" / "bee" / name).write_bytes(content)
    (tmp_path / "images" / "bee" / "zz link.png").symlink_to("/nowhere.png")
    for _ in range(2):  # decoded, and from the cache
        data = make(tmp_path)
        description = data.describe()
        assert "5 of 44 images cannot be read and are left out: " in description
        assert "ant/008.bmp (OSError: image file is truncated" in description
        assert "bee/zz link.png (No such file or directory)" in description
        assert all(
            f"bee/zz {name}.png (it has more pixels than data.max_pixels=" in description for name in ("bomb", "huge")
        )
        assert sum(len(rows) for rows in parts(data).values()) == 39
    (tmp_path / "images" / "bee" / "zz bomb.png").unlink()
    (tmp_path / "images" / "bee" / "zz huge.png").unlink()
    (tmp_path / "images" / "bee" / "zz broken.jpg").unlink()
    (tmp_path / "images" / "bee" / "zz link.png").unlink()
    after = parts(make(tmp_path))
    assert sum(len(set(before[part]) - set(after[part])) for part in after) == 1, "the others stay in their parts"


def test_several_processes_write_the_same_cache_as_one(tmp_path, monkeypatch):
    write_folder(tmp_path)
    found = []
    for cores in (1, 3):
        decode_with(monkeypatch, cores, chunk=7)
        make(tmp_path)
        (cache,) = caches(tmp_path)
        found.append(cache.read_bytes())
        cache.unlink()
    assert found[0] == found[1]


def test_few_images_are_decoded_without_processes(tmp_path, monkeypatch):
    write_folder(tmp_path)
    monkeypatch.setattr(image_cache, "cpus", lambda: 2)
    monkeypatch.setattr(decode, "Popen", lambda *a, **k: pytest.fail("a process was started"))
    assert make(tmp_path).size("train") == 24
    caches(tmp_path)[0].unlink()
    monkeypatch.setattr(decode, "CHUNK", 8)
    monkeypatch.setattr(decode, "START", 0)  # any more are worth it
    with pytest.raises(pytest.fail.Exception, match="a process was started"):
        make(tmp_path)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    write_folder(tmp_path)
    decode_with(monkeypatch, 2)
    with monkeypatch.context() as patch:
        patch.setattr(image_cache.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
        with pytest.raises(DataError, match=r"the cache of 40 images of 3x8x8 needs 0.0 GB, and .* has 0.0 GB free"):
            make(tmp_path)
    assert {path.suffix for path in (tmp_path / "cache").iterdir()} <= {".lock"}
    assert make(tmp_path).size("train") == 24


def test_a_read_only_data_folder_is_reported(tmp_path, monkeypatch):
    write_folder(tmp_path / "data")
    (tmp_path / "data" / "cache").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    data = make(tmp_path / "data")
    assert data.cache.path.parent == tmp_path / "home" / "dl-run" / "cache"
    assert f"cannot be written to, so the cache is {data.cache.path}" in data.describe()
    (tmp_path / "file").write_text("")
    data.cache.path.unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(DataError, match="cannot write to the data folder .*cache"):
        make(tmp_path / "data")


def test_a_damaged_cache_is_reported(tmp_path):
    write_folder(tmp_path)
    make(tmp_path)
    (cache,) = caches(tmp_path)
    whole = cache.read_bytes()
    for content in (whole[:500], whole[:20], np.lib.format.magic(1, 0)):
        cache.write_bytes(content)
        with pytest.raises(DataError, match=r"the image cache .*npy is damaged: [\s\S]*delete it"):
            make(tmp_path)
    cache.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    with pytest.raises(DataError, match="is damaged: its pixels are not those that were written"):
        make(tmp_path)
    cache.write_bytes(whole)
    cache.with_suffix(".json").write_text(json.dumps([1]))
    with pytest.raises(DataError, match=r"is damaged"):
        make(tmp_path)


# Batches


def test_classes_and_splits_are_saved_in_the_checkpoint(tmp_path):
    """A run whose folder is gone still knows its classes, and encodes images as before."""
    write_folder(tmp_path)
    data = make(tmp_path, resize=(10, 10))
    x = next(data.batches("val"))[0]
    spec, stored = data.spec, torch.from_numpy(np.array(data.cache.pixels[data.storage.rows["val"][:5]]))
    (tmp_path / "images").rename(tmp_path / "gone")
    other = make(tmp_path, load=False, resize=(10, 10))
    other.restore(data.fitted(), CPU)
    assert other.spec == spec and torch.equal(other.encode(stored), x)


@pytest.mark.parametrize("chunk", [1, 3 * 4 * 192, 2**19])
def test_batches_read_ahead_equal_those_held_on_the_device(tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(resident, "CHUNK_VALUES", chunk)
    write_folder(tmp_path)
    keys = dict(
        resize=(11, 10), augment=dict(flip="both", crop=2, noise=0.1), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7]
    )
    whole, ahead = (make(tmp_path, resident=resident, **keys) for resident in (True, False))
    assert whole.describe().startswith("resident on cpu") and ahead.describe().startswith("read ahead from its cache")
    for part in ("train", "val", "test"):
        for first in range(7 if part == "train" else 1):
            a, b = (list(data.batches(part, 3, 5, first)) for data in (whole, ahead))
            assert len(a) == len(b) == (6 - first if part == "train" else 2)
            assert all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(a, b, strict=True))
    batches = ahead.batches("train")
    next(batches)
    batches.close()  # in mid-epoch


def test_data_larger_than_memory_is_read_ahead(tmp_path, monkeypatch):
    write_folder(tmp_path)
    stored = 40 * 3 * 8 * 8
    for free, message in (
        (2 * stored, "resident on cpu"),
        (2 * stored - 1, "read ahead from its cache, 0.0 MB as uint8 (more"),
    ):
        monkeypatch.setattr("dlrun.data.images.folder.free_memory", lambda device, free=free: free)
        assert make(tmp_path).describe().startswith(message)
    assert streamed.free_memory(CPU) > 2**20


def test_images_larger_than_the_network_accepts_are_cropped(tmp_path):
    """At random where it trains, in the middle elsewhere; flips by their axes."""
    (tmp_path / "images").mkdir()
    grid = np.arange(100, dtype=np.uint8).reshape(10, 10)
    for i in range(10):
        PILImage.fromarray(grid).save(tmp_path / "images" / f"{i}.png")
    keys = dict(spec=Image((1, 8, 8)), resize=(10, 10), mean=[0.0], std=[1 / 255], split=(0.6, 0.2, 0.2))
    data = make(tmp_path, **keys)
    assert all((x == torch.tensor(grid[1:9, 1:9])).all() for part in ("val", "test") for x, _ in data.batches(part))
    seen = [x[0] for epoch in range(40) for xs, _ in data.batches("train", 0, epoch) for x in xs.round()]
    corners = {int(x[0, 0]) for x in seen}
    assert corners == {0, 1, 2, 10, 11, 12, 20, 21, 22}
    assert all((x - x[0, 0] == torch.tensor(grid[:8, :8])).all() for x in seen)
    for flip, signs in ((True, {(10, 1), (10, -1)}), ("vertical", {(10, 1), (-10, 1)}),
                        ("both", {(10, 1), (10, -1), (-10, 1), (-10, -1)})):  # fmt: skip
        flipped = make(tmp_path, augment=dict(flip=flip), **keys)
        xs = [x[0] for epoch in range(10) for xs, _ in flipped.batches("train", 0, epoch) for x in xs.round()]
        assert {(int(x[1, 0] - x[0, 0]), int(x[0, 1] - x[0, 0])) for x in xs} == signs


@pytest.mark.thorough(but=["true"])
@pytest.mark.parametrize("read", ["true", "false"])
def test_a_run_on_a_folder_resumes_to_the_bit(tmp_path, read):
    write_folder(tmp_path)
    keys = ["data.spec.shape=[3,8,8]", "data.resize=[10,10]", "data.augment.flip=true", "data.batch_size=4"]
    keys += ["trainer.epochs=2", "trainer.device=cpu", "trainer.checkpoint_gap=0", "model.hidden=[8]"]
    config = compose("data=image_folder", f"data_dir={tmp_path}", f"data.resident={read}", *keys)
    train(tmp_path / "a", config, finish=True)
    for step in (2, 7):
        train(tmp_path / "b", config, resumed=step > 2, signals={step: SIGTERM})
    assert train(tmp_path / "b", config, resumed=True, finish=True).reason == "finished"
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.thorough
def test_a_run_whose_data_moved_resumes_at_its_new_place(tmp_path, monkeypatch, capsys):
    """The place may change in a resumed run; other images there, and other keys of the data, are refused."""

    def dl_run(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["dl-run", *arguments])
        with suppress(SystemExit):
            main()
        return capsys.readouterr().err

    monkeypatch.chdir(write_folder(tmp_path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    keys = ["data.spec.shape=[3,8,8]", "data.batch_size=4", "model.hidden=[8]", "trainer.device=cpu", "run_dir=run"]
    dl_run("data=image_folder", "data.root=./images", "data_dir=cache", "trainer.epochs=1", *keys)
    (tmp_path / "images").rename(tmp_path / "moved")
    again = ["resume=run", "trainer.epochs=2"]
    assert "put it there, or name its place: dl-run resume=run data.root=<place>" in dl_run(*again)
    write_folder(tmp_path / "other", 32)
    assert "the data has changed" in dl_run(*again, "data.root=other/images")
    assert "data.fit=stretch cannot change in a resumed run" in dl_run(*again, "data.fit=stretch")
    dl_run(*again, "data.root=./moved")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["epochs"] == 2
    assert f"root: {tmp_path}/moved" in (tmp_path / "run" / ".hydra" / "config.yaml").read_text()


# What is wrong


def test_a_user_without_a_home(tmp_path, monkeypatch):
    """A container's: no HOME, and no entry in /etc/passwd."""

    def unknown(uid):
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    with pytest.raises(RuntimeError, match="home directory"):
        Path.home()
    assert make(write_folder(tmp_path)).size("train") == 24
    with pytest.raises(DataError, match="data.root=~/images: "):
        make(tmp_path, root="~/images")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "cache").write_text("a file, where the folder of the cache should be")
    with pytest.raises(DataError, match="cannot write to the data folder .*/b/cache"):
        make(tmp_path / "b", root=f"{tmp_path}/images")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "cache", "images"]


def test_bad_folders_are_reported(tmp_path):
    with pytest.raises(DataError, match=r"data.root=images: there is no /.* and no /.*\n  expected a folder of imag"):
        make(tmp_path)
    with pytest.raises(DataError, match=r"data.root=/nowhere: there is no /nowhere\n  expected a folder"):
        make(tmp_path, root="/nowhere")
    (tmp_path / "images" / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match=r"has no images\n  expected a folder of .bmp, .gif"):
        make(tmp_path)
    (tmp_path / "images" / "bee").mkdir()
    for i in range(6):
        (tmp_path / "images" / ("ant" if i < 3 else "bee") / f"{i}.png").write_bytes(b"")
    with pytest.raises(DataError, match="none of 6 images in .* can be read, such as ant/0.png"):
        make(tmp_path)
    write_folder(tmp_path / "b")
    loose = tmp_path / "b" / "images" / "loose.png"
    loose.write_bytes(b"")
    with pytest.raises(DataError, match="has 1 image beside its folders, such as loose.png"):
        make(tmp_path / "b")
    loose.unlink()
    (tmp_path / "b" / "images" / "eel").mkdir()
    one = tmp_path / "b" / "images" / "eel" / "1.png"
    one.write_bytes(b"")
    with pytest.raises(DataError, match=r"has classes of fewer than 3 images: eel \(1\)\n  expected at least one"):
        make(tmp_path / "b")
    one.unlink()
    for i in range(3):
        (one.parent / f"{i}.png").write_bytes(b"")
    message = r"some classes have fewer than 3 images that can be read: eel \(0\)\n  expected at least one image"
    with pytest.raises(DataError, match=message):
        make(tmp_path / "b")
    for i in range(3):
        (one.parent / f"{i}.png").write_bytes((tmp_path / "b" / "images" / "cat" / "022.gif").read_bytes())
    assert make(tmp_path / "b").size("train") == 25
    with pytest.raises(DataError, match=r"the train split has no image of .*eel\n  expected all classes"):
        make(tmp_path / "b", stratify=False, split=(0.05, 0.05, 0.9))
    (tmp_path / "b" / "images" / "eel").rename(tmp_path / "b" / "images" / "Dog ")
    with pytest.raises(DataError, match="names differ by case or blanks only: 'Dog ', 'dog'"):
        make(tmp_path / "b")


def test_one_class_is_refused(tmp_path):
    """A user one level too high would learn it to 100 %."""
    write_folder(tmp_path)
    message = r"has one class, images: expected two or more\n  its folders may be the classes \(ant, bee, cat, dog\): "
    for keys in ({}, {"spec": Image((3, 8, 8), 1)}):
        with pytest.raises(
            DataError, match=rf"{tmp_path} {message}data.root={tmp_path}/images\n  data.layout=flat takes"
        ):
            make(tmp_path, root=str(tmp_path), **keys)
    assert make(tmp_path, root=str(tmp_path), layout="flat").spec.classes is None
    write_folder(tmp_path / "b", classes=("ant",))
    with pytest.raises(DataError, match=r"images has one class, ant: expected two or more\n  data.layout=flat takes"):
        make(tmp_path / "b")
    (tmp_path / "images" / "images.csv").write_text("".join(f"ant/{i:03d}.bmp,x\n" for i in range(0, 40, 4)))
    with pytest.raises(DataError, match=r"images has one class, x: expected two or more\n  data.layout=flat takes"):
        make(tmp_path)


@pytest.mark.parametrize(("keys", "message"), [
    (dict(spec=Image((4, 8, 8))), r"data.spec.shape=\[4, 8, 8\]: expected channels \(1 or 3\)"),
    (dict(resize=(8, 7)), r"data.resize=\[8, 7\] is smaller than data.spec.shape=\[3, 8, 8\]"),
    (dict(spec=Image((3, 8, 8), None, ("ant", "ant"))), "data.spec.labels has 'ant' more than once"),
    (dict(spec=Image((3, 8, 8), 3, ("ant", "bee"))), "data.spec.labels has 2 names, data.spec.classes=3"),
    (dict(spec=Image((3, 8, 8), 5)), r"has 4 classes \(ant, bee, cat, dog\), data.spec.classes=5"),
    (dict(spec=Image((3, 8, 8), None, ("ant", "bee"))), "has the classes ant, bee, cat, dog\n  expected data.spec"),
    (dict(spec=Image((3, 8, 8), 4), layout="flat"), "data.layout=flat is for images without labels"),
    (dict(layout="csv"), r"data.label_file=images.csv: there is no file .*\n  expected rows of path and label"),
    (dict(split=(0.6, 0.3, 0.2)), r"data.split=\[0.6, 0.3, 0.2\]: expected three shares > 0"),
    (dict(folds=3, fold=3), "data.folds=3 data.fold=3"),
    (dict(folds=500), "data.folds=500: at most .* of every class are not test, so some folds would be empty"),
    (dict(mean=[0.1, 0.2]), r"data.mean=\[0.1, 0.2\] data.std=\[0.5\]"),
])  # fmt: skip
def test_bad_settings_are_reported(tmp_path, keys, message):
    write_folder(tmp_path)
    with pytest.raises(UserError, match=message):
        make(tmp_path, **keys)


@pytest.mark.parametrize(("text", "message"), [
    ("", "names no images"),
    ("ant/000.bmp\n", "line 1: 1 column\n  expected 2: path, label"),
    ("ant/000.bmp,0\nant/nothing.jpg,0\nbee/nothing.jpg,1\n",
     "names 2 images that cannot be found: ant/nothing.jpg, bee/nothing.jpg\n  expected paths relative to"),
    ("ant/000.bmp,ant\nbee/001.png,bee\nimages/ant/000.bmp,bee\n", "names images/ant/000.bmp twice, in line 1 and"),
    ("ant/000.bmp,ant\nbee/001.png,bee\n", r"has classes of fewer than 3 images: ant \(1\), bee \(1\)"),
    (b"\xff\xfea", "images.csv, line 1: .*expected rows of CSV, TSV or JSON, UTF-8 text"),
    (b"\xff\xfe\x00", "images.csv is not text: it holds zero bytes\n  expected a CSV, TSV or JSON file in UTF-8"),
    (b"\x89PNG\r\n", "images.csv is an image, not a table of text"),
    ("path,label,label\nant/000.bmp,a,b\n", "several columns are named 'label'"),
])  # fmt: skip
def test_bad_csvs_are_reported(tmp_path, text, message):
    write_folder(tmp_path)
    (tmp_path / "images" / "images.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match="(?s)" + message):
        make(tmp_path)


def test_an_empty_folder_of_a_split_is_refused(tmp_path):
    write_folder(tmp_path)
    root = tmp_path / "images"
    root.rename(tmp_path / "train")
    root.mkdir()
    (tmp_path / "train").rename(root / "train")
    for name in ("test", "val"):
        (root / name / "ant").mkdir(parents=True)
    with pytest.raises(DataError, match="(?s)images/(test|val) has no images\n  expected images in it"):
        make(tmp_path)


@pytest.mark.slow
def test_pokemon():
    data = build(section("data", "pokemon"))
    data.load(CPU)
    assert [data.size(part) for part in ("train", "val", "test")] == [700, 233, 234]
    x, _ = next(data.batches("train"))
    assert x.shape == (32, 3, 224, 224)
