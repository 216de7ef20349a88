"""Texts: words as Keras splits them, ids, padding, the cache, all sources, and errors."""

import hashlib
import json
import os
import tarfile
from hashlib import md5
from pathlib import Path

import numpy as np
import pytest
import torch
from reviews import write_reviews
from toys import CPU, composed

from dlrun.config.build import build
from dlrun.config.check import check
from dlrun.data.readers import texts as text_readers
from dlrun.data.splits import split_rows
from dlrun.data.texts import corpus
from dlrun.data.texts.corpus import Text, encode, pad, vocabulary, words_of
from dlrun.data.texts.words import join_tokens, split_text
from dlrun.errors import ConfigError, DataError, UserError


def texts(*contents: str, tests: int = 0) -> corpus.Corpus:
    train = len(contents) - tests
    return encode((Text(i >= train, i % 2, content.encode()) for i, content in enumerate(contents)), "keras")


def load(root, *overrides: str, data: str = "imdb", read: bool = True):
    config = composed("model=lstm", f"data={data}", f"data_dir={root}", "data.length=6", "data.vocab=40", *overrides)
    check(config)
    made = build(config["data"])
    if read:
        made.load(CPU)
    return made


@pytest.fixture
def root(tmp_path):
    return write_reviews(tmp_path)


# Words and ids


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("It's GOOD,good.", ["it's", "good", "good"]),
        ("a<br /><br />b", ["a", "br", "br", "b"]),
        ("x-y_z\tw\nv [10/10]", ["x", "y", "z", "w", "v", "10", "10"]),
        ("caf\u00e9\u2026 a\u0085b", ["caf\u00e9\u2026", "a\u0085b"]),
        ("  !?  ", []),
        ("a film\r\n\r\nGood\r\n", ["a", "film", "good"]),
    ],
)
def test_words_are_those_of_keras(text, words):
    assert split_text(text, "keras") == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("So good, isn't it?", ["so", "good", "isn't", "it"]),
        ("no\u00a0break\u3000here\u2026\u00abl\u2019\u00e9t\u00e9\u00bb", ["no", "break", "here", "l'\u00e9t\u00e9"]),
        ("\u6211\u7231\u5317\u4eac\u3002GPU\u597d", ["\u6211", "\u7231", "\u5317", "\u4eac", "gpu", "\u597d"]),
        ("\u0e27\u0e31\u0e2a", ["\u0e27\u0e31", "\u0e2a"]),  # a letter with its mark
        (
            "\u0939\u093f\u0928\u094d\u0926\u0940 \u092e\u0947\u0902",
            ["\u0939\u093f\u0928\u094d\u0926\u0940", "\u092e\u0947\u0902"],
        ),
        ("nai\u0308ve\u2764\ufe0f\u2764", ["na\u00efve", "\u2764", "\u2764"]),
        ("a\x0bb\x0cc", ["a", "b", "c"]),
    ],
)
def test_words_of_any_script(text, words):
    assert split_text(text, "words") == words
    assert split_text(" ".join(words), "words") == words


def test_texts_are_split_into_characters():
    assert split_text(" A\t b\u0301", "characters") == ["a", " ", "b", "\u0301"]
    assert join_tokens(split_text("ab c", "characters"), "characters") == "ab c"


def test_unknown_words_are_reported(tmp_path):
    rows = [f"{'我爱北京天安门'[i % 7]}{chr(0x4E00 + i)},{'cd'[i % 2]}" for i in range(40)]
    (tmp_path / "own.csv").write_text("text,label\n" + "\n".join(rows))
    keys = ["data.root=own.csv", "data.vocab=9"]
    description = load(tmp_path, *keys, data="text_folder").describe()
    assert "of the test split's words unknown (warning: more than 30%; expected a larger data.vocab, or" in description
    keys = ["data.root=own.csv", "data.tokens=characters"]
    data = load(tmp_path, *keys, data="text_folder")
    assert "characters unknown (warning: more than 30%; expected a larger data.vocab)" in data.describe()
    assert data.encode(["我爱"]).tolist()[0][-2:] == [4 + data.spec.words().index(word) for word in "我爱"]


def test_ids_follow_frequency_in_the_train_rows_only():
    found = texts("b a a", "c c c c", "a b d", "c c c c c c c", tests=1)
    ids = vocabulary(found, np.array([0, 2]), 100)
    assert words_of(found, ids) == ("a", "b", "d")  # a 3, b 2, d 1; c is only in the val and test splits
    assert dict(zip(found.words, ids.tolist(), strict=True)) == {"b": 5, "a": 4, "c": 2, "d": 6}
    assert words_of(found, vocabulary(found, np.array([0, 2]), 6)) == ("a", "b")
    assert words_of(found, vocabulary(found, np.arange(3), 5)) == ("c",)


@pytest.mark.parametrize(
    ("before", "end", "start", "rows"),
    [
        (True, True, True, [[0, 0, 1, 4], [5, 6, 7, 8], [0, 0, 0, 1]]),
        (True, False, True, [[0, 0, 1, 4], [1, 4, 5, 6], [0, 0, 0, 1]]),
        (False, True, True, [[1, 4, 0, 0], [5, 6, 7, 8], [1, 0, 0, 0]]),
        (False, False, False, [[4, 0, 0, 0], [4, 5, 6, 7], [0, 0, 0, 0]]),
        (True, True, False, [[0, 0, 0, 4], [5, 6, 7, 8], [0, 0, 0, 0]]),
    ],
)
def test_padding_and_truncation_work_on_either_side(before, end, start, rows):
    found = texts("a", "a b c d e", "")
    ids = np.arange(4, 9, dtype=np.int32)
    assert pad(found, ids, np.arange(3), 4, before, end, start).tolist() == rows


def test_blocks_of_padding_make_no_difference():
    random = np.random.default_rng(0)
    found = texts(*(" ".join(random.choice(list("abcdefg"), random.integers(0, 9))) for _ in range(2500)))
    ids = vocabulary(found, np.arange(2500), 9)
    whole = pad(found, ids, np.arange(2500), 5, True, True, True)
    one_by_one = [pad(found, ids, np.array([i]), 5, True, True, True)[0] for i in range(2500)]
    assert np.array_equal(whole, one_by_one)


# The data set


def test_the_batches_are_the_reviews(root):
    data = load(root)
    assert (data.size("train"), data.size("val"), data.size("test")) == (65, 7, 20)
    x, y = next(data.batches("test"))
    assert (x.shape, x.dtype, y.dtype) == ((20, 6), torch.int32, torch.int64)
    assert y.tolist() == [0] * 10 + [1] * 10
    words = data.spec.words()
    last = [words[i - 4] for i in x[:, -1].tolist()]
    assert set(last[:10]) <= {"bad", "awful", "dull"} and set(last[10:]) <= {"good", "great", "lovely"}
    assert all(words[i - 4] == "so" for i in x[:, -2].tolist())


def test_new_texts_are_encoded_like_those_of_the_data_set(root):
    data = load(root)
    x, _ = next(data.batches("test"))
    files = [p for name in ("neg", "pos") for p in sorted((root / "aclImdb" / "test" / name).iterdir())]
    assert torch.equal(data.encode([path.read_text() for path in files]), x)
    good = 4 + data.spec.words().index("good")
    odd = ["Unheard-of, but GOOD!", "", "good\udcff"]
    assert data.encode(odd).tolist() == [[0, 1, 2, 2, 2, good], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 1, good]]
    other = build(composed("model=lstm", "data=imdb", "data_dir=/nowhere", "data.length=6", "data.vocab=40")["data"])
    other.restore(data.fitted(), CPU)
    assert torch.equal(other.encode(odd), data.encode(odd)), "without the data, by what the run kept"


def test_an_epoch_resumes_in_the_middle(root):
    data = load(root, "data.batch_size=16")
    whole = list(data.batches("train", 3, 1))
    for (x, y), (x2, y2) in zip(whole[2:], data.batches("train", 3, 1, 2), strict=True):
        assert torch.equal(x, x2) and torch.equal(y, y2)


def test_the_archive_gives_what_the_folder_gives(root, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    with tarfile.open(other / "aclImdb_v1.tar.gz", "w:gz") as pack:
        for path in sorted((root / "aclImdb").rglob("*.txt"), reverse=True):
            pack.add(path, path.relative_to(root))
        pack.addfile(tarfile.TarInfo("aclImdb/train/unsup/0_0.txt"))
        link = tarfile.TarInfo("aclImdb/test/pos/link.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        pack.addfile(link)
    checksum = "md5:" + md5((other / "aclImdb_v1.tar.gz").read_bytes()).hexdigest()
    a, b = load(root), by_checksum(other, checksum)
    assert a.spec.words() == b.spec.words()
    for part in ("train", "val", "test"):
        for (x, y), (x2, y2) in zip(a.batches(part), b.batches(part), strict=True):
            assert torch.equal(x, x2) and torch.equal(y, y2)
    assert not (other / "aclImdb").exists(), "it was read without being unpacked"


def by_checksum(root, checksum):
    config = composed("model=lstm", "data=imdb", f"data_dir={root}", "data.length=6", "data.vocab=40")
    source = config["data"]["source"] | {"checksums": {"aclImdb_v1.tar.gz": checksum}}
    made = build(config["data"] | {"source": source})
    made.load(CPU)
    return made


def test_a_damaged_archive_is_refused(tmp_path):
    (tmp_path / "aclImdb_v1.tar.gz").write_bytes(b"no archive")
    with pytest.raises(DataError, match="damaged or not the published file"):
        load(tmp_path)
    with pytest.raises(DataError, match="is damaged: .*\n  delete it"):
        by_checksum(tmp_path, "md5:" + md5(b"no archive").hexdigest())
    assert not [p for p in (tmp_path / text_readers.CACHE).iterdir() if p.is_dir()], "nothing half-written"


def test_missing_data_is_reported_with_what_to_do(tmp_path):
    with pytest.raises(DataError, match="aclImdb_v1.tar.gz does not exist and was not downloaded"):
        load(tmp_path, "data.source.download=false")


# The cache


def test_the_cache_is_written_once_and_again_when_the_texts_change(root, monkeypatch):
    first = load(root)
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_make", lambda *args: pytest.fail("made twice"))
        again = load(root, "data.length=9", "data.vocab=20", "data.folds=3")
    assert len(first.spec.words()) > len(again.spec.words()) == 16
    (root / "aclImdb" / "train" / "pos" / "0_9.txt").write_text("something else entirely")
    load(root)
    assert len(list((root / text_readers.CACHE).iterdir())) == 2


def test_an_unfinished_cache_leaves_nothing(root, monkeypatch):
    def fail(*args, **keys):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(corpus.os, "fsync", fail)
        with pytest.raises(DataError, match="cannot write the words' cache"):
            load(root)
    assert not [p for p in (root / text_readers.CACHE).iterdir() if p.is_dir()]
    load(root)


@pytest.mark.parametrize("file", ["tokens.npy", "labels.npy", "words.json", "facts.json"])
@pytest.mark.parametrize("change", [lambda b: b[: len(b) // 2], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda _: b"[]"])
def test_a_damaged_cache_is_named(root, file, change):
    """Truncated, one bit changed, other content: nothing of it is used."""
    load(root)
    (cache,) = (p for p in (root / text_readers.CACHE).iterdir() if p.is_dir())
    (cache / file).write_bytes(change((cache / file).read_bytes()))
    with pytest.raises(DataError, match="the words' cache .* is damaged"):
        load(root)


def test_a_cache_with_objects_is_refused(root, tmp_path):
    """Even if its hash is right, nothing is unpickled."""

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    load(root)
    (cache,) = (p for p in (root / text_readers.CACHE).iterdir() if p.is_dir())
    np.save(cache / "tokens.npy", np.array([Evil()], object), allow_pickle=True)
    facts = json.loads((cache / "facts.json").read_text())
    facts["sha256"]["tokens.npy"] = hashlib.sha256((cache / "tokens.npy").read_bytes()).hexdigest()
    (cache / "facts.json").write_text(json.dumps(facts))
    with pytest.raises(DataError, match="the words' cache .* is damaged"):
        load(root)
    assert not (tmp_path / "ran").exists()


def test_two_tables_of_one_name_are_two_corpora(tmp_path):
    for place, word in (("a", "good"), ("b", "evil")):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mail.csv").write_text("text,label\n" + f"{word} film,x\nother film,y\n" * 9)
        os.utime(tmp_path / place / "mail.csv", (1e9, 1e9))
        assert word in load(tmp_path, f"data.root={place}/mail.csv", data="text_folder").spec.words()


# A user's own texts


def write_classes(root, *parts: str, classes=("cats", "dogs")):
    for part in parts or ("",):
        for name in classes:
            folder = root / "texts" / part / name
            folder.mkdir(parents=True)
            for i in range(10):
                (folder / f"{i}.txt").write_text(f"{name} number {i}")


@pytest.mark.parametrize("parts", [(), ("train", "test")])
def test_texts_are_read_from_class_folders(tmp_path, parts):
    write_classes(tmp_path, *parts)
    data = load(tmp_path, data="text_folder")
    assert (data.size("train"), data.size("val"), data.size("test")) == ((18, 2, 20) if parts else (14, 2, 4))
    for part in ("train", "test"):
        x, y = next(data.batches(part))
        words = data.spec.words()
        assert all(words[row[3] - 4] == ("cats", "dogs")[label] for row, label in zip(x.tolist(), y, strict=True))
    files = data.files("test")
    assert [Path(name).parts[-2:-1] for name in files] == [(("cats", "dogs")[label],) for label in y]
    assert all((tmp_path / "texts" / name).is_file() for part in ("val", "test") for name in data.files(part))
    swapped = next(load(tmp_path, "data.spec.labels=[dogs,cats]", data="text_folder").batches("test"))
    assert torch.equal(swapped[1], 1 - y)


@pytest.mark.parametrize("folders", [("train", "valid", "test"), ("Train", "dev")])
def test_folders_are_the_splits(tmp_path, folders):
    write_classes(tmp_path, *folders)
    data = load(tmp_path, data="text_folder")
    place = {"train": folders[0], "val": folders[1], "test": folders[2] if len(folders) > 2 else folders[0]}
    for split in ("val", "test"):
        assert {name.partition("/")[0] for name in data.files(split)} == {place[split]}
    assert data.size("val") == 20 and data.size("test") == (20 if len(folders) > 2 else 4)
    cut = "" if len(folders) > 2 else "; test: cut from Train/"
    assert data.header_lines == {"splits": f"the folders {', '.join(f'{name}/' for name in folders)}{cut}"}


def test_splits_are_stratified(tmp_path):
    """Every class has its share of val and test, also a rare one; without, the split is the one of older runs."""
    lines = [f"word{i} text,{'rare' if i % 10 == 0 else 'often'}" for i in range(200)]
    (tmp_path / "mail.csv").write_text("text,label\n" + "\n".join(lines))
    keys = ["data.root=mail.csv", "data.val_fraction=0.25"]
    data = load(tmp_path, *keys, data="text_folder")
    counts = {split: data.targets(split).bincount().tolist() for split in ("train", "val", "test")}
    assert counts == {"train": [108, 12], "val": [36, 4], "test": [36, 4]}
    held = [
        load(tmp_path, *keys, "data.folds=4", f"data.fold={i}", data="text_folder").targets("val") for i in range(4)
    ]
    assert [y.bincount().tolist() for y in held] == [[36, 4]] * 4
    plain = load(tmp_path, *keys, "data.stratify=false", data="text_folder")
    chosen = np.random.RandomState(0).permutation(200)[:40] + 1  # texts are counted from 1
    assert set(plain.files("test")) == {f"mail.csv, text {i}" for i in chosen}
    assert plain.files("val") == [plain.sources[i] for i in split_rows(160, 0.25, 0, 0)["val"]]
    few = [f"a {i},{i // 2}" for i in range(20)]  # ten classes of two texts: a fifth of all, not none of each
    (tmp_path / "few.csv").write_text("text,label\n" + "\n".join(few))
    assert load(tmp_path, "data.root=few.csv", data="text_folder").size("test") == 4


def test_columns_by_name_in_any_order(tmp_path):
    """Further columns are ignored, and TSV works; a missing column is named."""
    rows = [f"{i}\t{'cd'[i % 2]}\t{('cats', 'dogs')[i % 2]}, {i}\tx" for i in range(20)]
    (tmp_path / "own.tsv").write_text("id\tkind\tbody\tnote\n" + "\n".join(rows))
    keys = ["data.root=own.tsv", "data.text_column=body", "data.label_column=kind"]
    data = load(tmp_path, *keys, data="text_folder")
    assert data.spec.labels == ("c", "d") and {"cats", "dogs"} <= set(data.spec.words()) and "x" not in data.words
    with pytest.raises(UserError, match="label_column=kinds: .* has no such column; did you mean 'kind'"):
        load(tmp_path, *keys[:2], "data.label_column=kinds", data="text_folder")


@pytest.mark.parametrize("header", ["true", "false"])
def test_texts_in_json_are_those_of_the_same_csv(tmp_path, header):
    """A list of objects, and a mapping of text to label; both name their columns, whatever data.header says."""
    pairs = {f"{('cats', 'dogs')[i % 2]}, {i}": "cd"[i % 2] for i in range(20)}
    rows = "".join(f'"{text}",{label}\n' for text, label in pairs.items())
    (tmp_path / "own.csv").write_text("text,label\n" + rows)
    (tmp_path / "a.json").write_text(json.dumps([{"label": label, "text": text} for text, label in pairs.items()]))
    (tmp_path / "b.json").write_text(json.dumps(pairs))
    csv = load(tmp_path, "data.root=own.csv", data="text_folder")
    for name in ("a.json", "b.json"):
        data = load(tmp_path, f"data.root={name}", f"data.header={header}", data="text_folder")
        assert data.digest() == csv.digest() and data.words == csv.words and data.spec.labels == ("c", "d")


@pytest.mark.parametrize("header", ["text,label\n", "label,text\n", ""])
def test_a_csv_with_two_columns(tmp_path, header):
    rows = [(f'"cats, and ""more"" {i}"', "c") for i in range(10)] + [(f"dogs {i}", "d") for i in range(10)]
    turned = header.startswith("label")
    lines = [",".join(reversed(row) if turned else row) for row in rows]
    (tmp_path / "own.csv").write_text(header + "\n".join(lines))
    keys = ["data.root=own.csv", f"data.header={str(bool(header)).lower()}"]
    data = load(tmp_path, *keys, data="text_folder")
    assert data.size("train") + data.size("val") + data.size("test") == 20
    assert {"cats", "more", "dogs"} <= set(data.spec.words())


def test_a_csv_in_the_working_folder(tmp_path, monkeypatch):
    """A bare name is looked for under data_dir first, a path in the working folder first."""
    (tmp_path / "here" / "sub").mkdir(parents=True)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def words(path: str) -> set[str]:
        data = load(tmp_path, f"data.root={path}", data="text_folder")
        return {"here", "there"} & set(data.spec.words())

    for folder, word in ((tmp_path / "here", "here"), (tmp_path, "there")):
        rows = [f"cats {word} {i},c\ndogs {word} {i},d" for i in range(10)]
        for name in ("mail.csv", "sub/mail.csv"):
            (folder / name).write_text("text,label\n" + "\n".join(rows))
    assert words("mail.csv") == {"there"}
    assert words("./mail.csv") == words("sub/mail.csv") == words("../here/mail.csv") == {"here"}
    assert words("../mail.csv") == {"there"}
    (tmp_path / "here" / "sub" / "mail.csv").unlink()
    assert words("sub/mail.csv") == {"there"}
    with pytest.raises(DataError) as error:
        load(tmp_path, "data.root=../here/none.csv", data="text_folder")
    assert str(error.value) == (
        f"data.root=../here/none.csv: there is no {tmp_path}/here/../here/none.csv\n"
        "  expected a folder with a folder of .txt files per class, or a .csv"
    )


@pytest.mark.parametrize(
    ("make", "keys", "message"),
    [
        (lambda root: None, [], "data.root=texts: there is no .*/texts and no .*/texts\n  expected a fold"),
        (lambda root: write_classes(root, classes=("cats",)), [], "has one class, cats: expected two or more"),
        (lambda root: (root / "texts").mkdir(), [], "has no class folders\n  expected a folder of .txt"),
        (
            lambda root: [write_classes(root), (root / "texts" / "none").mkdir()],
            [],
            "none has no texts: expected files",
        ),
        (lambda root: write_classes(root, "test"), [], "has the folders test, but none for train\n  expected train"),
        (
            lambda root: write_classes(root, classes="abc"),
            ["data.spec.classes=2"],
            r"has 3 classes \(a, b, c\), data.spec.classes=2\n  expected the same number; data.spec.classes=null",
        ),
        (
            write_classes,
            ["data.spec.labels=[cats,cows]"],
            "has the classes cats, dogs\n  expected data.spec.labels: cats, cows",
        ),
        (write_classes, ["data.test_fraction=0.0"], "test_fraction=0.0 of 20 texts leaves a split empty"),
        (
            lambda root: (root / "texts").write_text("text,label\na,b\nc,d,e\n"),
            [],
            "texts, line 3: 3 columns\n  expected 2: text, label",
        ),
        (
            lambda root: (root / "texts").write_text("good film,pos\nbad,neg\n"),
            [],
            "names no label: 'good film",
        ),
        (
            lambda root: (root / "texts").write_text("a,Sentiment\ngood,pos\nbad,\n"),
            [],
            "texts, line 3: it has no label",
        ),
    ],
)
def test_bad_texts_are_named(tmp_path, make, keys, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load(tmp_path, *keys, data="text_folder")
    assert not list((tmp_path / text_readers.CACHE).glob(".*part")), "nothing half-written"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda root: write_classes(root, "train", "test", "cats"),
            "has cats beside test and train: are these splits or classes?",
        ),
        (
            lambda root: write_classes(root, "train", "training", "test"),
            "has the folders train and training: both would be the train split",
        ),
        (lambda root: write_classes(root, classes=("pos", "Pos")), "names differ by case or blanks only: 'Pos', 'pos'"),
        (
            lambda root: (root / "texts").write_text("text,label\n" + "good,pos\nbad,Pos\n" * 5),
            "names differ by case or blanks only: 'Pos', 'pos'",
        ),
        (
            lambda root: (root / "texts").write_bytes(b"text,label\n" + b"good,caf\xe9\nbad,tea\n" * 5),
            r"has classes whose names are not UTF-8: caf\\xe9\n",
        ),
        (
            lambda root: [
                write_classes(root),
                (root / "texts/cats/0.txt").unlink(),
                os.mkfifo(root / "texts/cats/0.txt"),
            ],
            "cats/0.txt cannot be read: a FIFO\n",
        ),
        (lambda root: os.mkfifo(root / "texts"), "data.root=texts: .* is a FIFO\n"),
        (lambda root: (root / "texts").symlink_to(os.devnull), "data.root=texts: .* is a device\n"),
        (
            lambda root: [write_classes(root), (root / "texts/cats/x.txt").symlink_to(root / "nothing")],
            "cats/x.txt cannot be read: No such file",
        ),
    ],
)
def test_invalid_sets_of_texts_are_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load(tmp_path, data="text_folder")


def test_an_unreadable_csv_is_reported(tmp_path, monkeypatch):
    (tmp_path / "mail.csv").write_text("text,label\na,b\nc,d\n")

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(tmp_path), "read_bytes", refuse)  # the tests' user may read everything
    with pytest.raises(DataError, match="mail.csv cannot be read: Permission denied\n  expected a regular file"):
        load(tmp_path, "data.root=mail.csv", data="text_folder")


def test_classes_are_found_and_numbers_are_in_their_order(tmp_path):
    write_classes(tmp_path, classes=("10", "2", "1", "\u00b2"))
    data = load(tmp_path, data="text_folder")
    assert data.spec.labels == ("\u00b2", "1", "2", "10") and data.spec.classes == 4
    again = load(tmp_path, data="text_folder", read=False)
    again.restore(data.fitted(), CPU)
    assert again.spec.labels == data.spec.labels and again.spec.classes == 4


def test_files_that_systems_leave_in_a_folder_are_no_texts(tmp_path):
    write_classes(tmp_path)
    plain = load(tmp_path, data="text_folder")
    texts = tmp_path / "texts"
    for name in ("cats/._0.txt", "cats/.DS_Store", "cats/Thumbs.db", ".ipynb_checkpoints/a.txt", "__MACOSX/cats/0.txt"):
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        (texts / name).write_text("noise")
    (texts / "dogs" / "0.txt").rename(texts / "dogs" / "0.TXT")
    data = load(tmp_path, data="text_folder")
    assert sorted(data.spec.words()) == sorted(plain.spec.words())
    assert [data.size(part) for part in ("train", "val", "test")] == [14, 2, 4]


def test_odd_texts_are_counted_and_reported(root):
    folder = root / "aclImdb" / "train" / "pos"
    (folder / "0_9.txt").write_bytes(b"")
    (folder / "1_9.txt").write_bytes(b" ... ")
    (folder / "2_9.txt").write_bytes(b"good\xff film\xc3")
    description = load(root, "data.vocab=1000").describe()
    assert "texts without a word: 2" in description
    assert "texts with bytes that are not UTF-8 (left out): 1" in description
    assert "data.vocab=1000, but the train split has 31 words: 965 ids are not used" in description
    assert "text" not in load(write_reviews(root / "clean")).describe()


def test_texts_that_are_all_empty_are_refused(tmp_path):
    write_classes(tmp_path)
    for path in (tmp_path / "texts").rglob("*.txt"):
        path.write_text("")
    with pytest.raises(DataError, match="all 20 texts are empty: expected words"):
        load(tmp_path, data="text_folder")


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("data.length=0", "data.length=0: expected an integer >= 1"),
        ("data.vocab=4", "data.vocab=4: expected an integer >= 5"),
        ("data.pad=left", "data.pad=left: expected one of pre, post"),
    ],
)
def test_bad_keys_are_named(key, message):
    with pytest.raises(ConfigError, match=message):
        check(composed("model=lstm", key))


def test_setting_the_spec_is_refused():
    with pytest.raises(UserError, match="data.spec.length=5 .*: expected data.length=80 .* the spec follows"):
        build(composed("model=lstm", "data.spec.length=5")["data"])


# Keras's files


def write_keras(root, train=None, labels=(0, 1)):
    """As NumPy writes arrays of lists: pickled."""
    index = {"the": 1, "good": 2, "bad": 3}
    (root / "imdb_word_index.json").write_text(json.dumps(index))
    x = np.empty(10, object)
    x[:] = [[1, 2 + i % 2] for i in range(10)] if train is None else train
    y = np.array(list(labels) * 5)
    np.savez(root / "imdb.npz", x_train=x, y_train=y, x_test=x[:4], y_test=y[:4])


def test_keras_files_are_read(tmp_path):
    write_keras(tmp_path)
    data = load(tmp_path, data="imdb_keras")
    x, y = next(data.batches("test"))
    words = data.spec.words()
    assert [[words[i - 4] for i in row if i > 3] for row in x.tolist()] == [["the", "good"], ["the", "bad"]] * 2
    assert y.tolist() == [0, 1, 0, 1]


class Hostile:
    def __reduce__(self):
        return (eval, ("1/0",))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "imdb.npz and imdb_word_index.json not in .*\n  expected both"),
        (lambda root: write_keras(root, [[9]] * 10), "a review with a word that is not in the index"),
        (lambda root: write_keras(root, [Hostile()] * 10), "its pickle asks for builtins.eval"),
        (lambda root: [write_keras(root), (root / "imdb.npz").write_bytes(b"PK cut")], "imdb.npz is damaged"),
        (lambda root: write_keras(root, labels=[-1, 1]), "y_train of int64 with other values\n  expected one row of"),
        (lambda root: write_keras(root, labels=[0.5, 1.5]), "y_train of float64 with other values"),
        (lambda root: [write_keras(root), (root / "imdb_word_index.json").write_text("[]")], "index.json is damaged"),
    ],
)
def test_bad_keras_files_are_named(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(DataError, match=message):
        load(tmp_path, data="imdb_keras")
