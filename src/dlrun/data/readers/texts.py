"""Readers of texts: the IMDB reviews as published or as Keras's arrays, class folders, a CSV with two columns."""

import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dlrun.data.classes import number_classes
from dlrun.data.corpus import Corpus, Text, cached, safe_name
from dlrun.data.csv_rows import LABELS, TEXTS, Column, columns_of, read_rows
from dlrun.data.readers.keras_reviews import keras_reviews
from dlrun.data.sources.fetch import fetch
from dlrun.data.walk import TEXT_SUFFIXES, described, folders, read_bytes, split_folders, walk
from dlrun.errors import DataError, UserError, counted, printable
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
    text_column: Name | None,
    label_column: Name | None,
    tokens: Tokenization,
    stratify: bool,
) -> Corpus:
    """Read your own texts: PATH/CLASS/*.txt, PATH/{train,val,test}/CLASS/*.txt, or a CSV of texts and labels.

    path: absolute, in the working folder, or under data_dir. labels: the classes in order; [] for all classes, sorted.
    classes: the number of classes, None for any. header: whether a CSV's first line names its columns; else they are
    text and label. text_column, label_column: their names, None for known ones. test_fraction: share of the texts that
    are test if there is no test folder. stratify: whether they are cut from each class separately.
    """
    root = Path(os.path.expanduser(data_dir))
    source = find(path, root, "data.source.path", "a folder with a folder of .txt files per class, or a .csv")
    if source.is_file():
        rows, about = _csv_texts(source, header, text_column, label_column), ""
        contents: list[object] = ["csv", header, text_column, label_column, str(source.resolve()), _stamps([source])]
    else:
        rows, contents, about = _folder_texts(source)
    numbers, names = number_classes(source, [name for _, name, _ in rows], tuple(labels), classes)
    classes_of = numbers if stratify else np.zeros_like(numbers)
    is_test = _is_test([split for split, _, _ in rows], classes_of, test_fraction, random_state)

    is_val = [split == "val" for split, _, _ in rows]
    order = sorted(range(len(rows)), key=lambda i: (is_test[i], is_val[i]))  # train, then val, then test

    def texts() -> Iterator[Text]:
        for i in order:
            content = rows[i][2]
            yield Text(is_test[i], int(numbers[i]), read_bytes(content) if isinstance(content, Path) else content)

    contents += [test_fraction, random_state, list(names), stratify]
    corpus = cached(root / CACHE, contents, texts, len(rows), safe_name(source.stem), tokens)
    files = tuple(_origin(source, i + 1, rows[i][2]) for i in order)
    return corpus._replace(names=names, files=files, num_val=sum(is_val), about=about)


def _origin(source: Path, number: int, content: Path | str | bytes) -> str:
    """The origin of a text: its file below the folder `source`, or its number in the table `source`."""
    return _below(content, source) if isinstance(content, Path) else f"{source.name}, text {number}"


def _below(path: Path, folder: Path) -> str:
    return str(path)[len(str(folder)) + 1 :]


def _is_test(splits: list[str], classes: np.ndarray, test_fraction: float, random_state: int) -> list[bool]:
    """Return which texts are test: those of the test folder or, without one, a random share of each class."""
    is_test = [split == "test" for split in splits]
    if not any(is_test):
        pool = np.flatnonzero([split != "val" for split in splits])
        order = np.random.RandomState(random_state).permutation(len(pool))
        shares = np.empty(len(pool))  # of its class that come before a text
        for each in np.unique(classes):
            own = classes[pool[order]] == each
            shares[own] = (np.arange(own.sum()) + 0.5) / max(1, own.sum())
        chosen = order[np.argsort(shares, kind="stable")][: round(len(pool) * test_fraction)]
        is_test = np.isin(np.arange(len(splits)), pool[chosen]).tolist()
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


def _folder_texts(root: Path) -> tuple[list[Row], list[object], str]:
    """List (split, class, file) of each text, the names, sizes and times of the files, and describe the splits."""
    found = split_folders(root, folders(root), "or rename the folders if they are classes")
    rows: list[Row] = []
    contents: list[object] = ["folder", str(root)]
    for split, folder in found.items() or [("", "")]:
        for name in folders(root / folder):
            files = _text_files(root / folder / name)
            rows += [(split, name, path) for path in files]
            contents.append([split, name, _stamps(files)])
    if not rows:
        raise DataError(
            f"{root} has no class folders\n"
            "  expected a folder of .txt files per class, or train, val and test with these"
        )
    return rows, contents, described(found)


def _csv_texts(path: Path, header: bool, text_column: str | None, label_column: str | None) -> list[Row]:
    """Read ("", class, content) of each row."""
    text = Column("data.source.text_column", text_column, TEXTS)
    label = Column("data.source.label_column", label_column, LABELS)
    if not header and (text_column or label_column):
        raise UserError("data.source.header=false: the columns have no names\n  expected data.source.header=true")
    rows = read_rows(path, "surrogateescape")
    if header and text_column is None and label_column is None and rows:
        _check_header(path, [cell.strip().lower() for cell in rows[0][1]])
    pairs = columns_of(path, rows, [text, label], header) if rows else []
    if not pairs:
        raise DataError(f"{path} has no texts\n  expected a line of names, such as text,label, and lines of values")
    if line := next((line for line, (_, name) in pairs if not name.strip()), None):
        raise DataError(f"{path}, line {line}: it has no label\n  expected a label for every text")
    return [("", name.strip(), content.encode("utf-8", "surrogateescape")) for _, (content, name) in pairs]


def _check_header(path: Path, names: list[str]) -> None:
    """Raise DataError unless the first line of a CSV names the label: it may be a text."""
    if not set(names) & set(LABELS):
        raise DataError(
            f"{path}: its first line names no label: {printable(', '.join(names)[:60])!r}\n"
            f"  expected columns named text and {' or '.join(LABELS)}; or data.source.text_column=... and "
            "data.source.label_column=...\n  data.source.header=false if the first line is a text already"
        )


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
