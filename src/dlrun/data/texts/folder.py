"""Your own texts: a folder of .txt files for each class, or a list (CSV, JSON) of texts and labels."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np

from dlrun.data.classes import number_classes
from dlrun.data.csv_rows import LABELS, TEXTS, Column, columns_of, place, read_rows
from dlrun.data.json_rows import is_json
from dlrun.data.texts.corpus import CACHE, Corpus, Text, cached, safe_name
from dlrun.data.texts.files import below, stamps, text_files
from dlrun.data.texts.texts import Texts
from dlrun.data.walk import described, folders, read_bytes, split_folders
from dlrun.errors import DataError, UserError, counted, printable
from dlrun.paths import find
from dlrun.spec import Tokens
from dlrun.types import Count, DataPath, Fraction, Index, Name, Range, Sampler, Seed, Size, Tokenization

Row = tuple[str, str, Path | bytes]  # the split or "", the class, the text or its file


class TextFolder(Texts):
    """A data set of your own texts: ROOT/CLASS/*.txt, ROOT/{train,val,test}/CLASS/*.txt, or a CSV of texts and labels.

    root: absolute, in the working folder, or under data_dir. header: whether a CSV's first line names its columns; else
    they are text and label. text_column, label_column: their names, None for known ones. test_fraction: share of the
    texts that are test if there is no test folder. stratify: whether val and test are cut from each class separately.
    """

    def __init__(
        self,
        *,
        spec: Tokens,
        data_dir: str,
        root: DataPath,
        header: bool,
        text_column: Name | None,
        label_column: Name | None,
        test_fraction: Fraction,
        random_state: Seed,
        length: Size,
        vocab: Annotated[int, Range(5, 10**7)],
        tokens: Tokenization,
        pad: Literal["pre", "post"],
        truncate: Literal["pre", "post"],
        start: bool,
        batch_size: Count,
        eval_batch_size: Count,
        val_fraction: Fraction,
        folds: Index,
        fold: Index,
        sampler: Sampler,
        stratify: bool,
    ) -> None:
        self.data_dir, self.root = Path(os.path.expanduser(data_dir)), root
        self.csv_columns = (header, text_column, label_column)
        self.test_config = (test_fraction, random_state)
        super().__init__(
            spec=spec, source=self._corpus, length=length, vocab=vocab, tokens=tokens, pad=pad, truncate=truncate,
            start=start, batch_size=batch_size, eval_batch_size=eval_batch_size, val_fraction=val_fraction,
            folds=folds, fold=fold, sampler=sampler, stratify=stratify,
        )  # fmt: skip

    def _corpus(self) -> Corpus:
        """Read all texts, sorted by split: train, val, test."""
        kind = "a folder with a folder of .txt files per class, or a .csv"
        source = find(self.root, self.data_dir, "data.root", kind)
        if source.is_file():
            rows, split_note = _csv_texts(source, *self.csv_columns), ""
            contents: list[object] = ["csv", *self.csv_columns, str(source.resolve()), stamps([source])]
        else:
            rows, contents, split_note = _folder_texts(source)
        spec, (fraction, state) = self.config_spec, self.test_config
        numbers, names = number_classes(source, [name for _, name, _ in rows], spec.labels, spec.classes)
        classes_of = numbers if self.stratify else np.zeros_like(numbers)
        is_test = _is_test([split for split, _, _ in rows], classes_of, fraction, state)

        is_val = [split == "val" for split, _, _ in rows]
        order = sorted(range(len(rows)), key=lambda i: (is_test[i], is_val[i]))  # train, then val, then test

        def texts() -> Iterator[Text]:
            for i in order:
                content = rows[i][2]
                yield Text(is_test[i], int(numbers[i]), read_bytes(content) if isinstance(content, Path) else content)

        contents += [fraction, state, list(names), self.stratify]
        corpus = cached(self.data_dir / CACHE, contents, texts, len(rows), safe_name(source.stem), self.tokens)
        files = tuple(_origin(source, i + 1, rows[i][2]) for i in order)
        return corpus._replace(names=names, files=files, num_val=sum(is_val), split_note=split_note)


def _origin(source: Path, number: int, content: Path | str | bytes) -> str:
    """The origin of a text: its file below the folder `source`, or its number in the table `source`."""
    return below(content, source) if isinstance(content, Path) else f"{source.name}, text {number}"


def _is_test(splits: list[str], classes: np.ndarray, test_fraction: float, random_state: int) -> list[bool]:
    """Return which texts are test: those of the test folder or, without one, a random share of each class."""
    is_test = [split == "test" for split in splits]
    if not any(is_test):
        pool = np.flatnonzero([split != "val" for split in splits])
        order = np.random.RandomState(random_state).permutation(len(pool))
        shares = np.empty(len(pool))  # of its class that come before a text
        for each in np.unique(classes):
            of_class = classes[pool[order]] == each
            shares[of_class] = (np.arange(of_class.sum()) + 0.5) / max(1, of_class.sum())
        chosen = order[np.argsort(shares, kind="stable")][: round(len(pool) * test_fraction)]
        is_test = np.isin(np.arange(len(splits)), pool[chosen]).tolist()
    if not 0 < sum(is_test) < len(splits):
        texts = counted(len(splits), "text")
        raise DataError(f"data.test_fraction={test_fraction} of {texts} leaves a split empty")
    return is_test


def _folder_texts(root: Path) -> tuple[list[Row], list[object], str]:
    """List (split, class, file) of each text, the names, sizes and times of the files, and describe the splits."""
    folder_of = split_folders(root, folders(root), "or rename the folders if they are classes")
    rows: list[Row] = []
    contents: list[object] = ["folder", str(root)]
    for split, folder in folder_of.items() or [("", "")]:
        for name in folders(root / folder):
            files = text_files(root / folder / name)
            rows += [(split, name, path) for path in files]
            contents.append([split, name, stamps(files)])
    if not rows:
        raise DataError(
            f"{root} has no class folders\n"
            "  expected a folder of .txt files per class, or train, val and test with these"
        )
    return rows, contents, described(folder_of)


def _csv_texts(path: Path, header: bool, text_column: str | None, label_column: str | None) -> list[Row]:
    """Read ("", class, content) of each row."""
    text = Column("data.text_column", text_column, TEXTS)
    label = Column("data.label_column", label_column, LABELS)
    header = header or is_json(path)
    if not header and (text_column or label_column):
        raise UserError("data.header=false: the columns have no names\n  expected data.header=true")
    rows = read_rows(path, "surrogateescape")
    if header and text_column is None and label_column is None and rows:
        _check_header(path, [cell.strip().lower() for cell in rows[0][1]])
    pairs = columns_of(path, rows, [text, label], header) if rows else []
    if not pairs:
        raise DataError(f"{path} has no texts\n  expected a line of names, such as text,label, and lines of values")
    if line := next((line for line, (_, name) in pairs if not name.strip()), None):
        raise DataError(f"{path}, {place(path, line)}: it has no label\n  expected a label for every text")
    return [("", name.strip(), content.encode("utf-8", "surrogateescape")) for _, (content, name) in pairs]


def _check_header(path: Path, names: list[str]) -> None:
    """Raise DataError unless the first line of a CSV names the label: it may be a text."""
    if not set(names) & set(LABELS):
        raise DataError(
            f"{path}: its first line names no label: {printable(', '.join(names)[:60])!r}\n"
            f"  expected columns named text and {' or '.join(LABELS)}; or data.text_column=... and "
            "data.label_column=...\n  data.header=false if the first line is a text already"
        )
