"""Labels of images from their names and from JSON: as from class folders; what cannot be read is refused in words."""

import json
from pathlib import Path

import pytest
from test_image_folder import CLASSES, make, parts, write_folder

from dlrun.data.csv_rows import read_rows
from dlrun.data.images.folder import ImageFolder
from dlrun.errors import DataError, UserError

PATTERN = r"(?P<label>[a-z]+)_\d+"


def names_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root / "images").as_posix() for path in (root / "images").rglob("*.*"))


def renamed(root: Path) -> Path:
    """All images in one folder, with the class in the name: ant_000.bmp."""
    write_folder(root)
    for name in names_of(root):
        (root / "images" / name).rename(root / "images" / name.replace("/", "_"))
    for name in CLASSES:
        (root / "images" / name).rmdir()
    return root


def labels_by_file(data: ImageFolder) -> dict[str, str]:
    """The class of each image by its number, the end of its name."""
    return {
        Path(name).stem[-3:]: CLASSES[label]
        for part in ("train", "val", "test")
        for name, label in zip(data.files(part), data.targets(part).tolist(), strict=True)
    }


def written(root: Path, content: object, name: str = "labels.json") -> str:
    text = content if isinstance(content, str) else json.dumps(content)
    (root / "images" / name).write_text(text, encoding="utf-8")
    return name


@pytest.mark.parametrize("pattern", [PATTERN, r"^([^_]+)_", r"(?P<label>[^_]+)_(\d+)"])
def test_labels_from_names_are_those_of_the_folders(tmp_path, pattern):
    write_folder(tmp_path / "folders")
    data = make(renamed(tmp_path / "names"), label_pattern=pattern)
    assert data.spec.labels == CLASSES
    assert labels_by_file(data) == labels_by_file(make(tmp_path / "folders"))
    assert [data.size(part) for part in ("train", "val", "test")] == [24, 8, 8]


def test_labels_from_names_keep_the_folders_of_splits(tmp_path):
    """The pattern sees the name alone; folders other than those of splits say nothing."""
    for split in ("train", "test"):
        (renamed(tmp_path / split) / "images").rename(tmp_path / f"{split}_images")
    (tmp_path / "images").mkdir()
    for split in ("train", "test"):
        (tmp_path / f"{split}_images").rename(tmp_path / "images" / split)
    data = make(tmp_path, label_pattern=PATTERN)
    assert data.size("test") == 40 and data.size("train") + data.size("val") == 40
    assert data.header_lines["splits"].startswith("the folders train/, test/")


def test_names_can_be_written_as_the_books_csv(tmp_path):
    data = make(renamed(tmp_path), label_pattern=PATTERN, write_csv=True)
    assert parts(make(tmp_path)) == parts(data), "then images.csv is read, in the same order"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", r"data.label_pattern=\(: this is no regular expression: .*position 0\n  expected one such as"),
        ("[a-z]+", "it has 0 groups: which is the label\\?\n  expected a group of that name"),
        (r"([a-z]+)_(\d+)", "it has 2 groups: which is the label"),
        (r"(?P<label>[a-z]+)-\d+", "finds no label in 40 names of 40: ant_000.bmp, .* and .* more\n  expected a match"),
        (r"(?P<label>[a-c]\w*)_\d+", "finds no label in 10 names of 40: dog_003"),
    ],
)
def test_patterns_without_a_label_are_refused(tmp_path, pattern, message):
    with pytest.raises(UserError, match=message):
        make(renamed(tmp_path), label_pattern=pattern)


@pytest.mark.parametrize("keys", [{"layout": "flat"}, {"layout": "csv"}, {"label_file": "a.json"}])
def test_a_pattern_is_the_only_source_of_labels(tmp_path, keys):
    with pytest.raises(UserError, match="expected one source of labels\n  set data.layout=auto"):
        make(renamed(tmp_path), label_pattern=PATTERN, **keys)


def test_labels_from_json_are_those_of_the_same_csv(tmp_path):
    """A list of objects, a mapping, and an object per line; further keys are ignored, in any order."""
    write_folder(tmp_path)
    pairs = [(name, name.partition("/")[0]) for name in names_of(tmp_path)]
    csv = make(tmp_path, label_file=written(tmp_path, "".join(f"{a},{b}\n" for a, b in pairs), "labels.csv"))
    objects = [{"id": i, "box": [1, 2], "label": b, "file": a} for i, (a, b) in enumerate(pairs)]
    lines = "\n\n".join(json.dumps(each) for each in objects)
    for content, name in (
        (objects, "a.json"),
        (dict(pairs), "b.JSON"),
        (lines, "c.jsonl"),
        ("\ufeff" + lines, "d.ndjson"),
    ):
        data = make(tmp_path, label_file=written(tmp_path, content, name), path_column="file" if "a" in name else None)
        assert parts(data) == parts(csv) and data.spec.labels == CLASSES, name


def test_labels_in_json_may_be_numbers(tmp_path):
    write_folder(tmp_path)
    numbers = {name: CLASSES.index(name.partition("/")[0]) for name in names_of(tmp_path)}
    assert make(tmp_path, label_file=written(tmp_path, numbers)).spec.labels == CLASSES, "those of their folders"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[", r"a.json, line 1: Expecting value \(column 2\)\n  expected a list of objects such as"),
        ("a.json", '{"a": 1, "a": 2}', "a.json: 'a' is there twice"),
        ("a.json", "3", "a.json is neither list nor mapping"),
        ("a.json", '{"images": [], "annotations": []}', "a.json is an object with lists or objects in it"),
        ("a.json", '["ant/000.bmp"]', 'a.json, entry 1: it is no object: "ant/000.bmp"'),
        ("a.json", "[" * 100_000, "a.json: .*recursion"),
        ("a.json", "[]", "a.json names no images"),
        ("a.json", "{}", "a.json names no images"),
        ("a.json", '[{"path": "ant/000.bmp", "label": ""}]', "a.json, entry 1: it has no label"),
        ("a.json", '[{"path": "ant/000.bmp", "label": "a"}, {"path": "bee/001.png"}]', "entry 2: it has no label"),
        ("a.json", '[{"path": "ant/000.bmp", "label": {"name": "a"}}]', "its columns are 'path': which is the label?"),
        ("a.json", '{"ant/nothing.bmp": "a"}', "names 1 image that cannot be found: ant/nothing.bmp"),
        ("a.json", '[{"path": "ant/000.bmp", "label": "a"}, {"path": "./ant/000.bmp", "label": "b"}]',
         "twice, in entry 1 and entry 2"),
        ("a.jsonl", '{"path": "ant/000.bmp", "label": "a"}\n\n{"path"\n', "a.jsonl, line 3: Expecting ':'"),
        ("a.jsonl", '[1]\n', r"a.jsonl, line 1: it is no object: \[1\]"),
        ("a.json", b"\x89PNG", "a.json is an image, not a table of text"),
        ("a.json", b"\xff{}", "expected rows of CSV, TSV or JSON, UTF-8 text"),
    ],
)  # fmt: skip
def test_json_without_labels_is_refused(tmp_path, name, text, message):
    write_folder(tmp_path)
    (tmp_path / "images" / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DataError, match=message):
        make(tmp_path, label_file=name)


def test_json_is_read_but_not_written(tmp_path):
    write_folder(tmp_path)
    with pytest.raises(UserError, match="data.label_file=new.json: expected a name that ends in .csv"):
        make(tmp_path, label_file="new.json", write_csv=True)


def test_the_rows_of_json_are_those_of_a_table(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a \\u00e9", "n": 1.5, "ok": true}, {"n": null, "text": ""}]', "utf-8")
    expected = [(0, ["text", "n", "ok"]), (1, ["a é", "1.5", "true"]), (2, ["", "", ""])]
    assert read_rows(tmp_path / "a.json") == expected
