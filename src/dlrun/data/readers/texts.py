"""Readers of texts: the IMDB reviews as published or as Keras's arrays; your own texts without labels."""

import os
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from dlrun.data.readers.keras_reviews import keras_reviews
from dlrun.data.sources.fetch import fetch
from dlrun.data.texts.corpus import CACHE, Corpus, Text, cached, safe_name
from dlrun.data.texts.files import below, stamps, text_files
from dlrun.data.walk import read_bytes
from dlrun.errors import DataError
from dlrun.paths import find
from dlrun.types import DataPath, Name, Tokenization

_REVIEWS = [(split, label, name) for split in ("train", "test") for label, name in enumerate(("neg", "pos"))]


def imdb(
    *, data_dir: str, download: bool, mirrors: list[str], checksums: dict[str, str], tokens: Tokenization
) -> Corpus:
    """Read 50,000 movie reviews (Maas et al. 2011, ai.stanford.edu/~amaas/data/sentiment): 0 is negative, 1 positive.

    They are read from the folder aclImdb if it exists, else from the published archive, which is not unpacked.
    """
    root = Path(os.path.expanduser(data_dir))
    folder, archive = root / "aclImdb", root / "aclImdb_v1.tar.gz"
    if (folder / "train").is_dir():
        files = {review: text_files(folder / review[0] / review[2]) for review in _REVIEWS}
        contents = [[review[0], review[2], stamps(paths)] for review, paths in files.items()]
        texts = tuple(below(path, folder) for paths in files.values() for path in paths)
        corpus = cached(root / CACHE, contents, lambda: _from_files(files), len(texts), "imdb", tokens)
        return corpus._replace(files=texts)
    if archive.name not in checksums:
        raise DataError(f"data.source.checksums has no {archive.name!r}; it has {', '.join(checksums) or 'nothing'}")
    checksum = checksums[archive.name]
    fetch([m.rstrip("/") + "/" + archive.name for m in mirrors], archive, checksum, download=download)
    return cached(root / CACHE, [archive.name, checksum.lower()], lambda: _from_archive(archive), None, "imdb", tokens)


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


def plain(*, data_dir: str, root: DataPath, tokens: Tokenization) -> Corpus:
    """Read texts without labels: all .txt files below a folder, a text each, or the lines of one file.

    All of them are training texts.
    """
    source = find(root, Path(os.path.expanduser(data_dir)), "data.source.root", "a folder of .txt files, or a file")
    files = [source] if source.is_file() else text_files(source)
    contents = ["plain", str(source.resolve()), source.is_file(), stamps(files)]
    return cached(Path(os.path.expanduser(data_dir)) / CACHE, contents, lambda: _unlabelled(source, files), None,
                  safe_name(source.stem), tokens)  # fmt: skip


def _unlabelled(source: Path, files: list[Path]) -> Iterator[Text]:
    for path in files:
        content = read_bytes(path)
        for text in content.splitlines() if path == source else [content]:
            yield Text(False, 0, text)


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
    contents = ["keras", str(arrays.parent.resolve()), stamps([arrays, index])]
    return cached(root / CACHE, contents, lambda: keras_reviews(arrays, index), None, "imdb_keras", tokens)
