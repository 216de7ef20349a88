"""Read the texts of other tables as those of the run's own table were read."""

from collections.abc import Collection, Sequence

import polars as pl

from dlrun.data.table.encode import Encoding
from dlrun.data.table.joined import TEXTS
from dlrun.data.table.text import Format


def form_like(form: Format, encoding: Encoding) -> Format:
    """Return the format of files with rows like the run's: a text that is one of its levels is a value."""
    known = {text for levels in _levels_of(encoding).values() for text in levels}
    return form._replace(missing=tuple(word for word in form.missing if word not in known))


def cleaned(frame: pl.DataFrame, encoding: Encoding, missing: Sequence[str]) -> pl.DataFrame:
    """Return rows with texts as those of a CSV: without blanks around them, null if they mean "no value" (`missing`).

    Levels of the run stay as they are.
    """
    levels = _levels_of(encoding)
    names = [*encoding["columns"], *(each["column"] for each in encoding["targets"])]
    texts = [frame[name] for name in names if name in frame.columns and frame.schema[name] in TEXTS]
    return frame.with_columns([_cleaned(column, levels.get(column.name, ()), missing) for column in texts])


def _levels_of(encoding: Encoding) -> dict[str, list[str]]:
    """Return the levels of the categories and the labels of the target, by column."""
    levels = {each["column"]: [text for text in each["levels"] if text is not None] for each in encoding["categories"]}
    return levels | {each["column"]: list(each["labels"]) for each in encoding["targets"] if "labels" in each}


def _cleaned(column: pl.Series, levels: Collection[str], missing: Sequence[str]) -> pl.Series:
    texts = column.cast(pl.String)
    bare = texts.str.strip_chars()
    gone = bare.is_in([word for word in ("", *missing) if word not in levels]).fill_null(False)
    return texts.zip_with(texts.is_in([*levels]).fill_null(False), bare.set(gone, None))
