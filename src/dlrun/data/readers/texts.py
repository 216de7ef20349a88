"""Readers of texts: the IMDB reviews as published or as Keras's arrays, class folders, a CSV with two columns."""

import csv
import os
import tarfile
import zlib
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np

from dlrun.data.classes import number_classes
from dlrun.data.corpus import Corpus, Text, cached, safe_name
from dlrun.data.readers.keras_reviews import keras_reviews
from dlrun.data.sources.fetch import fetch
from dlrun.data.walk import TEXT_SUFFIXES, folders, read_bytes, refuse_splits, walk
from dlrun.errors import DataError, counted, printable, some
from dlrun.paths import find
from dlrun.types import Count, DataPath, Fraction, Name, Seed, Tokenization

CACHE = "dl-run-words"  # under data_dir
_REVIEWS = [(split, label, name) for split in ("train", "test") for label, name in enumerate(("neg", "pos"))]
Row = tuple[str, str, Path | bytes]  # the split or "", the class, the text or its file


def imdb(
    *, data_dir: str, download: bool, mirrors: list[str], checksums: dict[str, str], tokens: Tokenization
) -> Corpus:
    """Read 50,000 movie reviews (Maas et al. 2011, ai.stanford.edu/~amaas/data/sentiment): 0 is negative, 1 positive.

    They are read from the folder aclImdb if it exists, else from the published archive, which is not unpacked.
    """
    root = Path(os.path.expanduser(data_dir))
    folder, archive = root / "aclImdb", root / "aclImdb_v1.tar.gz"
    if (folder / "train").is_dir():
        files = {review: _text_files(folder / review[0] / review[2]) for review in _REVIEWS}
        contents = [[review[0], review[2], _stamps(paths)] for review, paths in files.items()]
        texts = tuple(_below(path, folder) for paths in files.values() for path in paths)
        corpus = cached(root / CACHE, contents, lambda: _from_files(files), len(texts), "imdb", tokens)
        return corpus._replace(files=texts)
    if archive.name not in checksums:
        raise DataError(f"data.source.checksums has no {archive.name!r}; it has {', '.join(checksums) or 'nothing'}")
    checksum = checksums[archive.name]
    fetch([m.rstrip("/") + "/" + archive.name for m in mirrors], archive, checksum, download=download)
    return cached(root / CACHE, [archive.name, checksum.lower()], lambda: _from_archive(archive), None, "imdb", tokens)


def text_folder(
    *,
    data_dir: str,
    path: DataPath,
    test_fraction: Fraction,
    random_state: Seed,
    labels: list[str],
    classes: Count | None,
    header: bool,
    tokens: Tokenization,
) -> Corpus:
    """Read your own texts: PATH/CLASS/*.txt, PATH/{train,test}/CLASS/*.txt, or a CSV with the columns text and label.

    path: absolute, in the working folder, or under data_dir. labels: the classes in order; [] for all classes, sorted.
    classes: the number of classes, None for any. header: whether a CSV's first line names its columns, in either order.
    test_fraction: share of the texts that are test if there is no test folder.
    """
    root = Path(os.path.expanduser(data_dir))
    source = find(path, root, "data.source.path", "a folder with a folder of .txt files per class, or a .csv")
    if source.is_file():
        rows, contents = _csv_texts(source, header), ["csv", header, str(source.resolve()), _stamps([source])]
    else:
        rows, contents = _folder_texts(source)
    if empty := next((i for i, (_, name, _) in enumerate(rows, 1) if not name), None):
        raise DataError(f"{source}, text {empty}: it has no label\n  expected a label for every text")
    numbers, names = number_classes(source, [name for _, name, _ in rows], tuple(labels), classes)
    is_test = _is_test([split for split, _, _ in rows], test_fraction, random_state)

    order = sorted(range(len(rows)), key=is_test.__getitem__)  # the training texts first

    def texts() -> Iterator[Text]:
        for i in order:
            content = rows[i][2]
            yield Text(is_test[i], int(numbers[i]), read_bytes(content) if isinstance(content, Path) else content)

    contents += [test_fraction, random_state, list(names)]
    corpus = cached(root / CACHE, contents, texts, len(rows), safe_name(source.stem), tokens)
    return corpus._replace(names=names, files=tuple(_origin(source, i + 1, rows[i][2]) for i in order))


def _origin(source: Path, number: int, content: Path | str | bytes) -> str:
    """Where a text comes from: its file below the folder `source`, or its number in the table `source`."""
    return _below(content, source) if isinstance(content, Path) else f"{source.name}, text {number}"


def _below(path: Path, folder: Path) -> str:
    return str(path)[len(str(folder)) + 1 :]


def _is_test(splits: list[str], test_fraction: float, random_state: int) -> list[bool]:
    """Return which texts are in the test split: those of the test folder or, without one, a random share."""
    is_test = [split == "test" for split in splits]
    if not any(is_test):
        chosen = np.random.RandomState(random_state).permutation(len(splits))[: round(len(splits) * test_fraction)]
        is_test = np.isin(np.arange(len(splits)), chosen).tolist()
    if not 0 < sum(is_test) < len(splits):
        texts = counted(len(splits), "text")
        raise DataError(f"data.source.test_fraction={test_fraction} of {texts} leaves a split empty")
    return is_test


def _text_files(folder: Path) -> list[Path]:
    names = walk(folder, TEXT_SUFFIXES)
    if not names:
        raise DataError(f"{folder} has no texts: expected files named *.txt")
    return [folder / name for name in names]


def _stamps(files: list[Path]) -> list[list]:
    """Return name, size and time of each file, to detect changes."""
    try:
        stats = [(path.name, os.stat(path)) for path in files]
    except OSError as error:
        raise DataError(f"{printable(error.filename)} cannot be read: {error.strerror}\n  expected a text") from None
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _from_files(files: dict[tuple, list[Path]]) -> Iterator[Text]:
    for (split, label, _), paths in files.items():
        for path in paths:
            yield Text(split == "test", label, read_bytes(path))


def _from_archive(archive: Path) -> Iterator[Text]:
    """Yield the archive's reviews in the order of the unpacked folders, which is not the archive's order."""
    wanted = {f"aclImdb/{split}/{name}": (split, label) for split, label, name in _REVIEWS}
    reviews: dict[str, list[tuple[str, bytes]]] = {folder: [] for folder in wanted}
    try:
        with tarfile.open(archive, "r|*") as pack:
            for member in pack:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                is_review = folder in wanted and member.isreg() and name.endswith(".txt")
                if is_review and (file := pack.extractfile(member)):
                    reviews[folder].append((name, file.read()))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{archive} is damaged: {error}\n  delete it, so that it is fetched again") from None
    for folder, (split, label) in wanted.items():
        if not reviews[folder]:
            raise DataError(f"{archive} has no texts in {folder}: expected the reviews as published")
        for _, content in sorted(reviews[folder]):
            yield Text(split == "test", label, content)


def _folder_texts(root: Path) -> tuple[list[Row], list[object]]:
    """List (split, class, file) of each text, and the names, sizes and times of the files."""
    names = folders(root)
    splits = [split for split in ("train", "test") if split in names]
    if len(splits) == 1 and len(names) == 1:
        raise DataError(f"{root} has {splits[0]} only: expected both train and test, or neither")
    if len(splits) == 2 and len(names) > 2:
        others = some([name for name in names if name not in splits])
        raise DataError(
            f"{root} has {others} beside train and test\n  expected these two alone: data.val_fraction takes val out "
            "of train, so move other texts into train"
        )
    if len(splits) < 2:
        refuse_splits(root, names, "rename the folders to train and test; data.val_fraction takes val out of train")
    rows: list[Row] = []
    contents: list[object] = ["folder", str(root)]
    for split in splits if len(splits) == 2 else [""]:
        for name in folders(root / split):
            files = _text_files(root / split / name)
            rows += [(split, name, path) for path in files]
            contents.append([split, name, _stamps(files)])
    return rows, contents


def _csv_texts(path: Path, header: bool) -> list[Row]:
    """Read ("", class, content) of each row."""
    text, label = 0, 1
    rows: list[Row] = []
    csv.field_size_limit(2**31 - 1)  # a text may be longer than 128 KB
    content = BytesIO(read_bytes(path))
    with TextIOWrapper(content, "utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            for row in csv.reader(file):
                if header:
                    text, label = _columns(path, row)
                    header = False
                elif len(row) == 2:
                    rows.append(("", row[label].strip(), row[text].encode("utf-8", "surrogateescape")))
                elif row:
                    where = f"{path}, text {len(rows) + 1}"
                    raise DataError(f"{where}: {counted(len(row), 'column')}; expected two, a text and its label")
        except csv.Error as error:
            raise DataError(f"{path}, text {len(rows) + 1}: {error}; expected a CSV with two columns") from None
    return rows


def _columns(path: Path, heading: list[str]) -> tuple[int, int]:
    """Return the indices of the text's and the label's column. Raises DataError if the heading names no label."""
    names = [name.strip().lower() for name in heading]
    label = next((i for i, name in enumerate(names) if name in ("label", "sentiment", "class", "category")), None)
    if len(names) != 2 or label is None:
        raise DataError(
            f"{path}: its first line names no label: {', '.join(heading)[:60]!r}\n"
            "  expected text,label or label,text (sentiment, class or category for label)\n"
            "  data.source.header=false if the first line is a text already"
        )
    return 1 - label, label


def imdb_keras(*, data_dir: str, folder: Name, tokens: Tokenization) -> Corpus:
    """Read the IMDB reviews from Keras's imdb.npz and imdb_word_index.json in `folder`, absolute or under data_dir."""
    root = Path(os.path.expanduser(data_dir))
    arrays, index = (root / Path(os.path.expanduser(folder)) / name for name in ("imdb.npz", "imdb_word_index.json"))
    missing = [path.name for path in (arrays, index) if not path.is_file()]
    if missing:
        raise DataError(
            f"{' and '.join(missing)} not in {arrays.parent}\n  expected both of Keras's files there; "
            "or use data=imdb, which reads the reviews as published"
        )
    contents = ["keras", str(arrays.parent.resolve()), _stamps([arrays, index])]
    return cached(root / CACHE, contents, lambda: keras_reviews(arrays, index), None, "imdb_keras", tokens)
