"""Blanks around the texts of a table, texts that mean "no value", and rows without values."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import polars as pl

PART = 2**17  # rows whose texts are compared at once
WORKERS = 2  # threads that look for blanks around texts


def stripped(frame: pl.DataFrame, missing: tuple[str, ...]) -> pl.DataFrame:
    """Remove blanks around texts, in place; a text that then is empty or means "no value" becomes null.

    Columns of few different texts become pl.Enum.
    """
    texts = [i for i, column in enumerate(frame) if column.dtype in (pl.Categorical, pl.String)]
    with ThreadPoolExecutor(WORKERS) as threads:
        for i, column in zip(texts, threads.map(partial(_clean, missing=missing), frame[:, texts]), strict=True):
            frame.replace_column(i, column)
    return frame


def _clean(column: pl.Series, missing: tuple[str, ...]) -> pl.Series:
    if column.dtype == pl.String:
        return _without_blanks(column, missing)
    different = column.unique().cast(pl.String).drop_nulls().sort()
    levels = _without_blanks(different, missing)
    if (levels.is_null() | (levels == different)).all():
        return column.cast(pl.Enum(levels.drop_nulls()), strict=False)
    return _without_blanks(column.cast(pl.String), missing)


def _without_blanks(column: pl.Series, missing: tuple[str, ...]) -> pl.Series:
    parts, is_changed = [], False
    for first in range(0, len(column), PART):  # most columns need no change, and so no copy
        part = column.slice(first, PART)
        texts = part.str.strip_chars()
        is_none = texts.is_in(["", *missing])
        if is_none.any() or (texts.str.len_bytes() != part.str.len_bytes()).any():
            part, is_changed = texts.set(is_none, None), True
        parts.append(part)
    return pl.concat(parts) if is_changed else column


def empty_rows(frame: pl.DataFrame) -> pl.Series | None:
    """Return whether each row has no value at all; None if all of them have one."""
    is_empty = pl.Series([True]).new_from_index(0, frame.height)
    for column in frame:  # until a row has none left that may be empty
        if not column.null_count() or not (is_empty := is_empty & column.is_null()).any():
            return None
    return is_empty
