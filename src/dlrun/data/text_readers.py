"""Where texts come from: the IMDB reviews as published, class folders, a table with two columns, Keras's arrays."""

import csv
import os
import tarfile
import zlib
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from dlrun.data.corpus import Corpus, Text, cached, safe_name
from dlrun.data.keras_reviews import keras_reviews
from dlrun.data.sources import fetch, find
from dlrun.errors import DataError
from dlrun.types import Fraction, Name, Seed

CACHE = "dl-run-words"  # under data_dir
_REVIEWS = [(part, label, name) for part in ("train", "test") for label, name in enumerate(("neg", "pos"))]


def imdb(*, data_dir: str, download: bool, mirrors: list[str], checksums: dict[str, str]) -> Corpus:
    """50,000 film reviews (Maas et al. 2011, ai.stanford.edu/~amaas/data/sentiment): 0 is negative, 1 positive.

    From the folder aclImdb where it lies unpacked, else out of the published archive, which is not unpacked for it.
    """
    root = Path(os.path.expanduser(data_dir))
    folder, archive = root / "aclImdb", root / "aclImdb_v1.tar.gz"
    if (folder / "train").is_dir():
        files = {place: _text_files(folder / place[0] / place[2]) for place in _REVIEWS}
        made_of = [[place[0], place[2], _marks(found)] for place, found in files.items()]
        total = sum(map(len, files.values()))
        return cached(root / CACHE, made_of, lambda: _from_files(files), total, "imdb")
    if archive.name not in checksums:
        raise DataError(f"data.source.checksums has no {archive.name!r}; it has {', '.join(checksums) or 'nothing'}")
    checksum = checksums[archive.name]
    fetch([m.rstrip("/") + "/" + archive.name for m in mirrors], archive, checksum, download=download)
    return cached(root / CACHE, [archive.name, checksum.lower()], lambda: _from_archive(archive), None, "imdb")


def text_folder(
    *, data_dir: str, path: Name, test_fraction: Fraction, random_state: Seed, labels: list[str], header: bool
) -> Corpus:
    """Your own texts: PATH/CLASS/*.txt, PATH/{train,test}/CLASS/*.txt, or a CSV with the columns text and label.

    path: absolute, or under data_dir, or under the folder one is in. labels: the classes in order; [] is all that there
    are, sorted. header: whether a CSV's first line is one; it may then name its columns in either order. test_fraction:
    for where there is no test folder.
    """
    root = Path(os.path.expanduser(data_dir))
    source = find(path, root, "data.source.path", "a folder with a folder of .txt files per class, or a .csv")
    if source.is_file():
        found, made_of = _csv_texts(source, header), ["csv", header, str(source.resolve()), _marks([source])]
    else:
        found, made_of = _folder_texts(source)
    if empty := next((i for i, (_, name, _) in enumerate(found, 1) if not name), None):
        raise DataError(f"{source}, text {empty}: it has no label\n  expected one for every text")
    names = sorted({name for _, name, _ in found})
    if len(names) < 2:
        raise DataError(f"{source} has {'one class, ' if names else 'no class'}{''.join(names)}: expected two or more")
    if labels and sorted(labels) != names:
        raise DataError(
            f"data.spec.labels={labels}: {source} has the classes {', '.join(names)}; expected the same, or []"
        )
    order = {name: place for place, name in enumerate(labels or names)}
    is_test = [part == "test" for part, _, _ in found]
    if not any(is_test):
        chosen = np.random.RandomState(random_state).permutation(len(found))[: round(len(found) * test_fraction)]
        is_test = np.isin(np.arange(len(found)), chosen).tolist()
    if not 0 < sum(is_test) < len(found):
        raise DataError(f"data.source.test_fraction={test_fraction} of {len(found)} texts leaves a part empty")

    def texts() -> Iterator[Text]:
        for wanted in (False, True):
            for (_, name, content), test in zip(found, is_test, strict=True):
                if test == wanted:
                    yield Text(test, order[name], content if isinstance(content, bytes) else _content(content))

    made_of += [test_fraction, random_state, list(order)]
    corpus = cached(root / CACHE, made_of, texts, len(found), safe_name(source.stem))
    return corpus._replace(names=tuple(order))


def _text_files(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            found = sorted((e for e in entries if e.name.endswith(".txt") and e.is_file()), key=lambda e: e.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}\n  expected a folder of .txt files") from None
    if not found:
        raise DataError(f"{folder} has no texts: expected files named *.txt")
    return found


def _marks(files: list) -> list[list]:
    """What tells whether a file changed."""
    stats = [(Path(f).name, f.stat()) for f in files]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def _from_files(files: dict[tuple, list[os.DirEntry]]) -> Iterator[Text]:
    for (part, label, _), entries in files.items():
        for entry in entries:
            yield Text(part == "test", label, _content(Path(entry.path)))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}\n  expected a text") from None


def _from_archive(archive: Path) -> Iterator[Text]:
    """The reviews in the order that the folders would give them: the archive's own is another."""
    wanted = {f"aclImdb/{part}/{name}": (part, label) for part, label, name in _REVIEWS}
    found: dict[str, list[tuple[str, bytes]]] = {folder: [] for folder in wanted}
    try:
        with tarfile.open(archive, "r|*") as pack:
            for member in pack:
                folder, _, name = member.name.removeprefix("./").rpartition("/")
                if folder in wanted and member.isreg() and name.endswith(".txt"):
                    found[folder].append((name, pack.extractfile(member).read()))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{archive} is damaged: {error}\n  delete it, so that it is fetched again") from None
    for folder, (part, label) in wanted.items():
        if not found[folder]:
            raise DataError(f"{archive} has no texts in {folder}: expected the reviews as published")
        for _, content in sorted(found[folder]):
            yield Text(part == "test", label, content)


def _folder_texts(root: Path) -> tuple[list[tuple[str, str, Path]], list]:
    parts = [p for p in ("train", "test") if (root / p).is_dir()]
    if len(parts) == 1:
        raise DataError(f"{root} has {parts[0]} only: expected both train and test, or neither")
    found, made_of = [], ["folder", str(root)]
    for part in parts or [""]:
        for folder in sorted(p for p in (root / part).iterdir() if p.is_dir() and not p.name.startswith(".")):
            entries = _text_files(folder)
            found += [(part, folder.name, Path(entry.path)) for entry in entries]
            made_of.append([part, folder.name, _marks(entries)])
    return found, made_of


def _csv_texts(path: Path, header: bool) -> list[tuple[str, str, bytes]]:
    text, label, found = 0, 1, []
    csv.field_size_limit(2**31 - 1)  # a text may be longer than 128 KB
    with open(path, "rb") as raw, TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="") as file:
        try:
            for row in csv.reader(file):
                if header:
                    text, label = _columns(path, row)
                    header = False
                elif len(row) == 2:
                    found.append(("", row[label].strip(), row[text].encode("utf-8", "surrogateescape")))
                elif row:
                    where = f"{path}, text {len(found) + 1}"
                    raise DataError(f"{where}: {len(row)} columns; expected two, a text and its label")
        except csv.Error as error:
            raise DataError(f"{path}, text {len(found) + 1}: {error}; expected a CSV with two columns") from None
    return found


def _columns(path: Path, heading: list[str]) -> tuple[int, int]:
    """Which column is the text, and which the label."""
    names = [name.strip().lower() for name in heading]
    label = next((i for i, name in enumerate(names) if name in ("label", "sentiment", "class", "category")), None)
    if len(names) != 2 or label is None:
        raise DataError(
            f"{path}: its first line names no label: {', '.join(heading)[:60]!r}\n"
            "  expected text,label or label,text (sentiment, class or category for label)\n"
            "  data.source.header=false where it is a text already"
        )
    return 1 - label, label


def imdb_keras(*, data_dir: str, folder: Name) -> Corpus:
    """The same reviews as Keras has them: imdb.npz and imdb_word_index.json in `folder`, which is under data_dir."""
    root = Path(os.path.expanduser(data_dir))
    arrays, index = (root / Path(os.path.expanduser(folder)) / name for name in ("imdb.npz", "imdb_word_index.json"))
    missing = [path.name for path in (arrays, index) if not path.is_file()]
    if missing:
        raise DataError(
            f"{' and '.join(missing)} not in {arrays.parent}\n  expected both of Keras's files there; "
            "or take data=imdb, which reads the reviews as published"
        )
    made_of = ["keras", str(arrays.parent.resolve()), _marks([arrays, index])]
    return cached(root / CACHE, made_of, lambda: keras_reviews(arrays, index), None, "imdb_keras")
