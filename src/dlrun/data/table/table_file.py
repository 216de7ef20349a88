"""Tables with columns of any kind, from the user's own files or from a source: one encoded row per sample.

Nothing is read before `load`, or before a network is built, which needs the number of columns.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import polars as pl
import torch
from torch import Tensor

from dlrun.data.base import Arrays
from dlrun.data.resident import Resident
from dlrun.data.table.columns import RowName, as_texts, check_kinds
from dlrun.data.table.encode import decode, encode, names, unseen_levels
from dlrun.data.table.encoded import Encoded
from dlrun.data.table.joined import texts_of
from dlrun.data.table.like import cleaned, form_like
from dlrun.data.table.prepare import NamedFrame, Prepared, TableSettings, check_columns, prepare, prepare_like
from dlrun.data.table.read import Origin, read_table
from dlrun.data.table.targets import described
from dlrun.data.table.text import Format, TableText, check_format
from dlrun.errors import DataError, UserError, first_line
from dlrun.output.as_json import as_json
from dlrun.output.report import Report
from dlrun.paths import find
from dlrun.spec import Columns
from dlrun.types import Count, DataPath, Fraction, FrameReader, Index, Name, Sampler

EXPECTED = "a CSV, TSV or Parquet file: absolute, or a name under data_dir or in the working folder"


class TableFile(Encoded):
    """A data set of a table's rows.

    The rows come from `file`, from `train` (and `val`, `test`), or from `source`, which returns the splits that it has.
    target: the column to learn, or several. All other keys: see configs/data/table.yaml.
    Batches: x float (B, columns); y int64 (B,) or float (B, targets). With data.weights those of train have a third
    column, weights float (B,) with mean 1 over the split.
    """

    def __init__(
        self,
        *,
        spec: Columns,
        source: FrameReader | None,
        data_dir: str,
        file: DataPath | None,
        train: DataPath | None,
        val: DataPath | None,
        test: DataPath | None,
        separator: Name | None,
        encoding: Name,
        header: bool,
        missing: list[str],
        target: Name | list[Name] | None,
        learn: Literal["auto", "classification", "regression"],
        positive: Name | None,
        unit: str,
        drop: list[Name],
        types: dict[str, Name],
        numbers: Literal["standardise", "quantile"],
        categories: Literal["embed", "one_hot"],
        weights: Name | None,
        split: tuple[Fraction, Fraction, Fraction],
        stratify: bool,
        group: Name | None,
        time: Name | None,
        folds: Index,
        fold: Index,
        sampler: Sampler,
        batch_size: Count,
        eval_batch_size: Count,
    ) -> None:
        self.paths = {"all": file} if file else {"train": train, "val": val, "test": test}
        _check({"file": file, "source": source, "train": train, "val": val, "test": test})
        check_kinds(types)
        self.source: Callable[[], Mapping[str, pl.DataFrame]] | None = source
        self.data_dir = Path(os.path.expanduser(data_dir))
        self.missing = tuple(missing)
        self.form = check_format(Format(separator, encoding, header, self.missing))
        targets = (target,) if isinstance(target, str) else tuple(target or ())
        by_quantiles, shares = numbers == "quantile", (split[0], split[1], split[2])
        self.settings = TableSettings(
            targets, learn, tuple(drop), types, by_quantiles, shares, stratify, group, time, weights, folds, fold,
            positive=positive,
        )  # fmt: skip
        self.batch_size, self.eval_batch_size, self.unit = batch_size, eval_batch_size, unit
        self.categories, self.sampler = categories, sampler
        self.folds = folds
        self.prepared: Prepared | None = None  # from when the spec is needed until `load`
        self.header_lines: dict[str, str] = {}

    @property
    def spec(self) -> Columns:
        """The spec that the table gives. Reads it unless the encoding is known."""
        encoding = self.encoding or self._prepare().encoding
        targets = encoding["targets"]
        labels = tuple(targets[0].get("labels", ()))
        real = [] if labels else targets
        return Columns(
            numbers=len(encoding["numbers"]),
            levels=tuple(len(category["levels"]) for category in encoding["categories"]),
            classes=len(labels) or None,
            targets=len(real),
            target_means=tuple(target["mean"] for target in real),
            target_stds=tuple(target["std"] for target in real),
            names=tuple(names(encoding)),
            labels=labels,
            target_names=tuple(target["column"] for target in targets),
            unit=self.unit,
            categories=self.categories,
        )

    def load_like(self, fitted: dict, device: torch.device) -> None:
        """Read the table as rows of a run whose data has learned `fitted`, as `Encoded` does."""
        self.form = form_like(self.form, fitted)
        super().load_like(fitted, device)

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the table and put it on the device."""
        prepared, self.prepared = self._prepare(), None
        x, y, weights, splits, self.encoding, header_lines, self.rows = prepared
        self.device, self.sizes = device, {name: len(rows) for name, rows in splits.items()}
        self.resident = Resident(Arrays(x, y, x[:0], y[:0]), splits, device, lambda x, random: x, weights)
        self.header_lines = {"learns": self._learns()} | header_lines

    def origins(self, split: str) -> list[int]:
        """Return the samples' rows in the table, from 0, in the order of `targets`. Rows without a target count."""
        return self.rows[self.resident.rows[split].cpu().numpy()].tolist()

    def encode(self, rows: pl.DataFrame | Tensor) -> Tensor:
        """Encode rows of a table, float32 (rows, numbers + categories). A tensor is encoded already."""
        if isinstance(rows, Tensor):
            return rows.to(self.device)
        return torch.from_numpy(encode(rows, self.fitted())).to(self.device)

    def read(self, path: Path, content: bytes | None = None) -> tuple[pl.DataFrame, Tensor, dict[str, str]]:
        """Read rows to predict: all values as they are written, the encoded rows, and notes on levels not in train.

        content: of the file, if it is not stored at `path`. Raises DataError for a lacking column or another kind of
        value.
        """
        frame, origin = read_table(path, form_like(self.form, self.fitted()), "*", content, has_empty_rows=True)
        x, notes = self.encoded(self._file_as_learned(frame, origin), origin.row_name)
        return frame.select(_shown(column) for column in frame), x, notes

    def as_learned(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Return rows in memory as the run's own table was read: as they are, or with the texts of a file's rows."""
        return frame if self.source is not None else cleaned(frame, self.fitted(), self.missing)

    def _file_as_learned(self, frame: pl.DataFrame, origin: Origin) -> pl.DataFrame:
        """Return rows of a file as the run's own table was read."""
        if not isinstance(origin, TableText):
            return self.as_learned(frame)
        is_clean = origin.form.missing == self.missing  # no text that means "no value" is a level of the run
        return frame if is_clean else cleaned(frame, self.fitted(), self.missing)

    def encoded(self, frame: pl.DataFrame, row_name: RowName) -> tuple[Tensor, dict[str, str]]:
        """Encode rows to predict, and describe levels not in train, by column. Columns of no use are ignored.

        Raises DataError for a lacking column or another kind of value.
        """
        encoding = self.fitted()
        check_columns(frame.columns, list(encoding["columns"]), row_name)
        try:
            x = encode(frame, encoding, row_name)
        except pl.exceptions.PolarsError as error:  # of a type without values to learn from, such as a list
            raise DataError(f"{row_name(0)}: {first_line(error)}\n  expected values as the run's") from None
        return torch.from_numpy(x).to(self.device), unseen_levels(frame, x, encoding)

    def decode(self, x: Tensor) -> list[dict[str, float | str]]:
        """Turn encoded rows into values by column, for people to read."""
        return decode(x.cpu().numpy(), self.fitted())

    def report(self) -> Report:
        """Return the encoding as a file for the run's folder."""
        return Report(files={"encoding.json": as_json(self.encoding, indent=1) + "\n"})

    def _learns(self) -> str:
        spec, target = self.spec, ", ".join(self.spec.target_names)
        if spec.classes:
            return f"{target}: classification, {spec.classes} classes: {', '.join(spec.labels[:10])}"
        means = ", ".join(map(described, spec.target_means, spec.target_stds))
        return f"{target}: regression{f' in {self.unit}' if self.unit else ''}; mean and deviation {means}"

    def _prepare(self) -> Prepared:
        if self.prepared is None:
            self._check_folds()
            parts, where = self._read()
            if self.is_like:
                self.prepared = prepare_like(parts, self.settings, self.fitted(), self.keeps_splits)
            else:
                self.prepared = prepare(parts, self.settings, where)
        return self.prepared

    def _check_folds(self) -> None:
        """Raise UserError for a file of val beside folds, unless all rows are scored alike."""
        if self.folds and self.paths.get("val") and (self.keeps_splits or not self.is_like):
            raise UserError(
                f"data.val={self.paths['val']} data.folds={self.folds}: each fold is val once, so val has no file\n"
                "  expected data.folds=0; or no data.val, and a data.train with all rows to divide into folds"
            )

    def _read(self) -> tuple[dict[str, NamedFrame], str]:
        """Return the parts of the table and its name."""
        if self.source is not None:
            frames = self.source()
            plain = {
                name: frame.cast({pl.Enum: pl.Categorical}) for name, frame in frames.items()
            }  # no texts of a file
            return {name: NamedFrame(frame, partial(_row_of, name)) for name, frame in plain.items()}, "the table"
        parts, where, as_text = {}, "", self.columns_of_texts()
        for name, file in self.paths.items():
            if file:
                path = find(file, self.data_dir, "data.file" if name == "all" else f"data.{name}", EXPECTED)
                frame, origin = read_table(path, self.form, as_text)
                frame = self._file_as_learned(frame, origin) if self.is_like else frame
                parts[name] = NamedFrame(frame, origin.row_name)
                where = where or str(path)
                as_text = [*as_text, *texts_of(frame)]  # what is text in data.train is text in the other files
        return parts, where


def _shown(column: pl.Series) -> pl.Series:
    """Return a column as texts, for people to read."""
    try:
        return as_texts(column)
    except pl.exceptions.PolarsError:  # of a type that polars does not write, such as a list
        return pl.Series(column.name, [None if value is None else str(value) for value in column], pl.String)


def _row_of(name: str, row: int) -> str:
    return f"the table, row {row + 1}" + ("" if name == "all" else f" of {name}")


def _check(places: Mapping[str, object]) -> None:
    """Raise UserError unless the rows come from one place; files for val and test stand beside the one for train."""
    given = [f"data.{name}" for name, value in places.items() if value is not None]
    held = [key for key in given if key in ("data.val", "data.test")]
    if len(given) - len(held) != 1 or held and "data.train" not in given:
        wrong = " and ".join(given) + (" without data.train" if given == held else " do not go together")
        raise UserError(
            f"{wrong if given else 'no file of rows is given'}\n  expected one file of all rows, data.file=table.csv, "
            "or one per split: data.train=train.csv and data.val, data.test or both"
        )
