"""Series from the user's own file or from a source: forecasts, or classes of windows or whole series.

Nothing is read before `load`, or before a network is built, which needs the number of columns.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor

from dlrun.data.series.naive import baselines
from dlrun.data.series.order import ordered
from dlrun.data.series.prepare import Prepared, WindowSettings, form_like, prepare, prepare_like
from dlrun.data.series.windows import ResidentWindows, Windowing
from dlrun.data.table.columns import RowName, check_kinds, kind_of
from dlrun.data.table.encode import encode, names
from dlrun.data.table.encoded import Encoded
from dlrun.data.table.prepare import NamedFrame, check_columns
from dlrun.data.table.read import read_table
from dlrun.data.table.settings import TableSettings
from dlrun.data.table.text import Format, check_format
from dlrun.errors import DataError, UserError, counted
from dlrun.output.as_json import as_json
from dlrun.output.report import Report
from dlrun.paths import find
from dlrun.spec import Series
from dlrun.types import Count, DataPath, Fraction, FrameReader, Index, Name, Sampler, Size

EXPECTED = "a CSV, TSV or Parquet file: absolute, or a name under data_dir or in the working folder"


class SeriesFile(Encoded):
    """A data set of windows of one or several series, whose steps are the rows of a table.

    The rows come from `file` or from `source`. target: the columns to forecast, or that of the class. All other keys:
    see configs/data/series.yaml. Batches: x float (B, window, columns); y int64 (B,) or float (B, horizon * targets).
    """

    def __init__(
        self,
        *,
        spec: Series,
        source: FrameReader | None,
        data_dir: str,
        file: DataPath | None,
        separator: Name | None,
        encoding: Name,
        header: bool,
        missing: list[str],
        target: Name | list[Name] | None,
        learn: Literal["auto", "classification", "regression"],
        unit: str,
        window: Size | None,
        horizon: Index | None,
        stride: Size,
        season: Index | None,
        relative: bool,
        time: Name | None,
        series: Name | None,
        gaps: Literal["split", "skip"],
        drop: list[Name],
        types: dict[str, Name],
        numbers: Literal["standardise", "quantile"],
        categories: Literal["embed", "one_hot"],
        split: tuple[Fraction, Fraction, Fraction],
        stratify: bool,
        folds: Index,
        fold: Index,
        sampler: Sampler,
        batch_size: Count,
        eval_batch_size: Count,
    ) -> None:
        if (file is None) == (source is None):
            raise UserError("data.file: expected a table, data.file=weather.csv")
        self.form = check_format(Format(separator, encoding, header, tuple(missing)))
        check_kinds(types)
        self.source: Callable[[], Mapping[str, pl.DataFrame]] | None = source
        self.data_dir, self.file = Path(os.path.expanduser(data_dir)), file
        targets = (target,) if isinstance(target, str) else tuple(target or ())
        shares = (split[0], split[1], split[2])
        self.settings = TableSettings(
            targets,
            learn,
            tuple(drop),
            types,
            numbers == "quantile",
            shares,
            stratify,
            series,
            time,
            None,
            folds,
            fold,
            "data.series",
        )
        self.folds, self.sampler = folds, sampler
        self.windows = WindowSettings(window, horizon, stride, season, relative, gaps == "skip")
        self.batch_size, self.eval_batch_size, self.unit, self.categories = (
            batch_size,
            eval_batch_size,
            unit,
            categories,
        )
        self.prepared: Prepared | None = None  # from when the spec is needed until `load`
        self.header_lines: dict[str, str] = {}

    @property
    def spec(self) -> Series:
        """The spec that the table gives. Reads it unless the encoding is known."""
        encoding = self.encoding or self._prepare().encoding
        targets, horizon = encoding["targets"], encoding["horizon"]
        labels = tuple(targets[0].get("labels", ()))
        real = [] if labels else targets
        steps = max(1, horizon)
        return Series(
            length=encoding["length"],
            features=len(encoding["numbers"]) + len(encoding["categories"]),
            levels=tuple(len(category["levels"]) for category in encoding["categories"]),
            classes=len(labels) or None,
            targets=len(real) * steps,
            target_means=tuple(target["mean"] for target in real) * steps,
            target_stds=tuple(target["std"] for target in real) * steps,
            names=tuple(names(encoding)),
            labels=labels,
            target_names=_target_names([target["column"] for target in targets], 0 if labels else horizon),
            unit=self.unit,
            categories=self.categories,
            last=tuple(encoding["last"]),
        )

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read the series and put them on the device."""
        prepared, self.prepared = self._prepare(), None
        values, targets, starts, self.encoding, header_lines, ids, self.names = prepared
        self.firsts = np.searchsorted(ids, np.arange(len(self.names)))  # the first row of each series
        self.device = device
        self.resident: ResidentWindows = ResidentWindows(values, targets, starts, self._form(), device)
        self.header_lines = {"learns": self._learns()} | header_lines

    def origins(self, split: str) -> list[str]:
        """Return the series of each window and, unless it is whole, the step at which it starts, from 0."""
        starts = self.resident.rows[split].cpu().numpy()
        ids = np.searchsorted(self.firsts, starts, side="right") - 1
        steps = (starts - self.firsts[ids]).tolist()
        is_whole = self.windows.window is None
        return [
            self.names[series] + ("" if is_whole else f", step {step}")
            for series, step in zip(ids.tolist(), steps, strict=True)
        ]

    def encode(self, windows: Tensor) -> Tensor:
        """Windows are encoded already, by `read`."""
        return windows.to(self.device)

    def read(self, path: Path, content: bytes | None = None) -> list[tuple[str, Tensor]]:
        """Return the name and the last window, encoded (length, columns), of each series in a file to predict from.

        content: of the file, if it is not stored at `path`. Raises DataError for a lacking column or a short series.
        """
        frame, origin = read_table(path, self.form, "*", content, self._found_time())
        encoding, length = self.fitted(), self.fitted()["length"]
        check_columns(frame.columns, list(encoding["columns"]), origin.row_name)
        rows = ordered(
            self._timed(frame, origin.row_name), self.settings.group, self.settings.time, self.windows.skip_gaps
        )
        values = torch.from_numpy(encode(rows.frame, encoding, rows.row_name))
        windows = []
        for number, name in enumerate(rows.names):
            of_series = (rows.ids == number).nonzero()[0]
            if len(of_series) < length or rows.breaks[of_series[-length + 1 :]].any() and length > 1:
                where = f"{path}: the series {name}" if name else str(path)
                found_rows = counted(len(of_series), "row") if len(of_series) < length else "a gap in its last rows"
                raise DataError(
                    f"{where} has {found_rows}; a window has {counted(length, 'step')}\n"
                    f"  expected at least {length} rows at the end that follow each other without a gap"
                )
            windows.append((name or f"after row {len(of_series)}", values[of_series[-length:]]))
        return windows

    def baselines(self, split: str) -> dict[str, dict[str, float]]:
        """Return the metrics of forecasts without learning, by name; none if there is nothing to forecast."""
        encoding = self.fitted()
        if not encoding["horizon"]:
            return {}
        return baselines(self.resident, split, encoding["season"], self.eval_batch_size)

    def report(self) -> Report:
        """Return the encoding as a file for the run's folder, and the metrics of the forecasts without learning."""
        files = {"encoding.json": as_json(self.encoding, indent=1) + "\n"}
        baselines = self.baselines("test")
        return Report(files=files, numbers={"baselines": baselines} if baselines else {})

    def _form(self) -> Windowing:
        return form_like(self.fitted(), self.windows.stride)

    def _learns(self) -> str:
        spec, encoding = self.spec, self.fitted()
        target = ", ".join(each["column"] for each in encoding["targets"])
        ahead = encoding["horizon"]
        if spec.classes:
            when = f" {ahead} steps later" if ahead else ""
            return f"{target}{when}: classification, {spec.classes} classes: {', '.join(spec.labels[:10])}"
        what = f"the next {ahead} values" if ahead > 1 else "the next value" if ahead else "the value of the last step"
        season = f"; season of {encoding['season']} steps" if encoding["season"] else ""
        return f"{target}: {what}{f' in {self.unit}' if self.unit else ''}{season}"

    def _prepare(self) -> Prepared:
        if self.prepared is None:
            part, where = self._read()
            if self.is_like:
                self.prepared = prepare_like(part, self.fitted(), self.settings, self.windows, where, self.keeps_splits)
            else:
                self.prepared = prepare(part, self.settings, self.windows, where)
        return self.prepared

    def _read(self) -> tuple[NamedFrame, str]:
        if self.source is not None:
            frame = self.source()["all"].cast({pl.Enum: pl.Categorical})  # no texts of a file
            return self._timed(frame, lambda row: f"the table, row {row + 1}"), "the table"
        path = find(str(self.file), self.data_dir, "data.file", EXPECTED)
        frame, origin = read_table(path, self.form, self.columns_of_texts(), time=self._found_time())
        return self._timed(frame, origin.row_name), str(path)

    def _found_time(self) -> str | None:
        """The column of times, unless the user chose its kind."""
        return None if self.settings.time in self.settings.types else self.settings.time

    def _timed(self, frame: pl.DataFrame, row_name: RowName) -> NamedFrame:
        """Convert the column of times to the kind that the user chose, if any."""
        time = self.settings.time
        if time in self.settings.types and time in frame.columns:
            frame = frame.with_columns(kind_of(frame[time], self.settings.types[time], row_name)[0])
        return NamedFrame(frame, row_name)


def _target_names(columns: list[str], horizon: int) -> tuple[str, ...]:
    if horizon < 2:
        return tuple(columns)
    return tuple(f"{column} +{step}" for step in range(1, horizon + 1) for column in columns)
