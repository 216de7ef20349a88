"""Find the kinds of a table's columns: numbers, booleans, categories, dates; the others are left out."""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from dlrun.data.table.dates import date_format, parsed, parsed_iso
from dlrun.errors import DataError, UserError, nearest, printable, some

RowName = Callable[[int], str]  # names a row of the table, for messages
KINDS = ("number", "boolean", "category", "date", "text")
MOSTLY = 0.9  # from this share of numbers on, a text column is one of them with mistakes in it
PARTLY = 0.5  # from this share of numbers on, the header explains why a text column is not numeric
COMMA = r"^[+-]?\d+,\d+$"  # numbers with a decimal comma, or with one between thousands
SAMPLED = 10_000  # texts, about, that decide whether a column is one of numbers
MOST_LEVELS = 10_000
FEW = 20  # at most this number of different texts are a category, even in a short table
LATEST = 6e12  # seconds, 190,000 years: dates farther from 1970 have no year in polars
PER_SECOND = {"days": 1 / 86400, "ms": 1e3, "us": 1e6, "ns": 1e9}
LARGEST = float(np.finfo(np.float32).max)  # rows are float32
ID = re.compile(r"(^|[\W_])(id|uuid|guid|index)$|[a-z]I[dD]$", re.ASCII)


def check_names(names: Sequence[str], columns: Sequence[str], key: str, where: str) -> None:
    """Raise UserError unless all names are columns. key: the config key that names them."""
    for name in names:
        if name not in columns:
            raise UserError(
                f"{key}={name}: {where} has no such column{nearest(name, columns)}\n"
                f"  expected one of: {some(list(columns), 30)}"
            )


def check_kinds(types: Mapping[str, str]) -> None:
    """Raise UserError unless each kind that the user chose is one of KINDS or the format of a date."""
    for name, kind in types.items():
        if kind not in KINDS and "%" not in kind:
            raise UserError(
                f"data.types.{name}={kind}: there is no such kind of column{nearest(kind, KINDS)}\n"
                f"  expected one of: {', '.join(KINDS)}; or a date's format, such as %d/%m/%y"
            )


def kind_of(column: pl.Series, chosen: str | None, row_name: RowName) -> tuple[pl.Series, str, str]:
    """Return a column with its values converted to their kind, the kind, and why it is left out.

    The kind is one of KINDS or the format of a date; the reason is "" if it is kept. chosen: the kind that the user
    chose. Raises DataError for mixed values.
    """
    column, kind = _of_kind(column, chosen, row_name) if chosen else _found(column, row_name)
    is_unwanted = kind == "text" and bool(chosen)
    return column, kind, "data.types" if is_unwanted else _useless(column, kind, bool(chosen), row_name)


def _found(column: pl.Series, row_name: RowName) -> tuple[pl.Series, str]:
    """Find the kind of a column from its type and, if that is text, from its values."""
    name = column.name
    advice = (
        f": correct it, write 'data.missing=[...]' if it means no value, leave it out with 'data.drop=[{name}]', or "
        f"set data.types.{name}=category"
    )
    if column.dtype == pl.Boolean:
        return column, "boolean"
    if column.dtype.is_numeric():
        return as_numbers(column, row_name, advice), "number"
    if column.dtype in (pl.Date, pl.Datetime):
        return column, "date"
    if column.dtype == pl.Categorical:
        return column.cast(pl.String), "category"
    if column.dtype not in (pl.String, pl.Enum):
        return column, "text"
    values = column.drop_nulls()
    some_values = values.gather_every(max(1, len(values) // SAMPLED)).cast(pl.String)
    if len(values) and share_of_numbers(some_values) >= MOSTLY:
        return as_numbers(column, row_name, advice), "number"
    if form := date_format(values):
        return as_dates(column, form, row_name), form
    return column, "category"


def share_of_numbers(texts: pl.Series) -> float:
    """Return the share of texts that are numbers."""
    return 1 - texts.cast(pl.Float64, strict=False).null_count() / len(texts)


def _of_kind(column: pl.Series, kind: str, row_name: RowName) -> tuple[pl.Series, str]:
    """Convert a column to the kind that the user chose. Raises DataError for values of another kind."""
    if kind == "number":
        return as_numbers(column, row_name), kind
    if kind == "boolean":
        return as_booleans(column, row_name), kind
    if kind == "date" and column.dtype not in (pl.Date, pl.Datetime):
        form = date_format(column.cast(pl.String).drop_nulls())
        if not form:
            raise DataError(
                f"data.types.{column.name}=date: its values, such as {_example(column)}, are in no known format\n"
                f"  expected for example 2024-12-31, or a format such as data.types.{column.name}=%d/%m/%y"
            )
        return as_dates(column, form, row_name), form
    if "%" in kind:
        return as_dates(column, kind, row_name), kind
    return as_texts(column) if kind == "category" else column, kind


def as_numbers(column: pl.Series, row_name: RowName, advice: str = "") -> pl.Series:
    """Convert to float64 with null for missing values. Raises DataError at the first that float32 cannot hold."""
    if not column.dtype.is_numeric() and column.dtype not in (pl.String, pl.Categorical, pl.Enum, pl.Boolean, pl.Null):
        kind = type_name(column.dtype)
        raise DataError(f"{row_name(0)}: {column.name} holds values of type {kind}\n  expected numbers{advice}")
    values = column.cast(pl.String) if column.dtype in (pl.Categorical, pl.Enum) else column
    numbers = values.cast(pl.Float64, strict=False)
    if numbers.null_count() > column.null_count():
        wrong = numbers.is_null() & column.is_not_null()
        has_comma = re.match(COMMA, str(column[int(wrong.arg_max() or 0)]))
        expected = "a number" + (" with a point, not with a comma" if has_comma else "")
        raise _misfit(column, wrong, expected + advice, row_name)
    numbers = numbers.fill_nan(None) if numbers.is_nan().any() else numbers
    if max(-(numbers.min() or 0), numbers.max() or 0) > LARGEST:
        expected = f"a finite number, at most {LARGEST:.3g} (the largest of float32)"
        raise _misfit(column, numbers.abs() > LARGEST, expected + advice, row_name)
    return numbers


def as_booleans(column: pl.Series, row_name: RowName, advice: str = "") -> pl.Series:
    """Convert true, false, 1 and 0 to booleans."""
    if column.dtype == pl.Boolean:
        return column
    words = column.cast(pl.String).str.to_lowercase()
    known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
    flags = words.replace_strict(known, default=None, return_dtype=pl.Boolean)
    wrong = flags.is_null() & column.is_not_null()
    if wrong.any():
        raise _misfit(column, wrong, "true or false" + advice, row_name)
    return flags


def as_texts(column: pl.Series) -> pl.Series:
    """Convert to texts; whole numbers have no point, so that 1 and 1.0 are one level."""
    if column.dtype.is_float():
        known = column.drop_nulls()
        if ((known == known.round()) & (known.abs() < 2.0**63)).all():
            column = column.cast(pl.Int64, strict=False)
    return column.cast(pl.String)


def as_dates(column: pl.Series, form: str, row_name: RowName, or_iso: bool = False) -> pl.Series:
    """Convert to datetimes by a format, "date": of dates or texts in ISO form. Raises DataError at the first misfit.

    or_iso: also read texts in ISO form that the format does not fit.
    """
    if column.dtype in (pl.Date, pl.Datetime):
        most = LATEST * PER_SECOND[getattr(column.dtype, "time_unit", "days")]
        if (far := ~column.to_physical().is_between(-most, most)).any():
            raise DataError(
                f"{row_name(int(far.arg_max() or 0))}: {column.name} is a date hundreds of thousands of years away"
            )
        return column.cast(pl.Datetime("us"))
    dates = parsed_iso(column.cast(pl.String)) if form == "date" else _parsed_each(column, form)
    wrong = dates.is_null() & column.is_not_null()
    or_iso = or_iso and not form.startswith("%Y-%d")  # there 2024-01-02 may be meant as the first of February
    if wrong.any() and or_iso:
        dates = dates.fill_null(parsed_iso(column.cast(pl.String).set(~wrong, None)))
        wrong = dates.is_null() & column.is_not_null()
    if wrong.any():
        iso = "2024-12-31 or 2024-12-31T23:59"
        written = f"such as {iso}" if form == "date" else f"written as {form}" + f", or as {iso}" * or_iso
        raise _misfit(column, wrong, f"a date, {written}", row_name)
    return dates


def _parsed_each(column: pl.Series, form: str) -> pl.Series:
    """Parse texts; of pl.Enum, each different one once."""
    if not isinstance(column.dtype, pl.Enum) or not len(column.dtype.categories):
        return parsed(column.cast(pl.String), form)
    return parsed(column.dtype.categories, form).gather(column.to_physical()).alias(column.name)


def _useless(column: pl.Series, kind: str, is_chosen: bool, row_name: RowName) -> str:
    """Return why there is nothing to learn from a column; "" if there is something."""
    values = column.drop_nulls()
    if not len(values):
        return "no values"
    if kind == "text":
        return f"values of type {type_name(column.dtype)}, which are not read"
    if is_constant(values) and not column.null_count():
        return f"always {printable(str(as_texts(values)[0]))[:40]}"
    if kind == "category":
        reason = _too_different(values, is_chosen)
        return reason + _nearly_numbers(column, row_name) if reason else ""
    if kind == "number" and not is_chosen and _is_id(values) and values.n_unique() == len(column):
        return "an id: every row has another number"
    return ""


def is_read(dtype: pl.DataType) -> bool:
    """Whether values of a type can be read as numbers or texts."""
    return not dtype.is_nested() and dtype not in (pl.Duration, pl.Object)


def type_name(dtype: pl.DataType) -> str:
    """The name of a type without its parameters: Duration, List."""
    return str(dtype).partition("(")[0]


def is_constant(values: pl.Series) -> bool:
    """Whether all values are the same. Dates are compared as numbers: Python's end at the year 9999."""
    values = values.to_physical() if values.dtype.is_temporal() else values
    return bool(values.min() == values.max())


def _too_different(values: pl.Series, is_chosen: bool) -> str:
    """Say whether texts have too many different values for a category. Raises DataError if that is not clear."""
    different, rows = values.n_unique(), len(values)
    if not is_chosen and different > max(FEW, rows / 2):
        return f"text or an id: {different:,} different values in {rows:,} rows"
    if different > MOST_LEVELS:
        raise DataError(
            f"the column {values.name!r} has {different:,} different values in {rows:,} rows, too many for a category\n"
            f"  expected at most {MOST_LEVELS:,}: leave it out with 'data.drop=[{values.name}]'"
        )
    return ""


def _nearly_numbers(column: pl.Series, row_name: RowName) -> str:
    """Explain why a text column that looks numeric is not read as numbers; "" if it does not look numeric."""
    texts = column.cast(pl.String)
    values = texts.drop_nulls()
    with_comma = values.str.contains(COMMA)
    if with_comma.mean() >= MOSTLY:
        return f"; numbers with a comma, such as {values.filter(with_comma)[0]!r}: expected a point, or none"
    if (share := share_of_numbers(values)) < PARTLY:
        return ""
    row = int((texts.cast(pl.Float64, strict=False).is_null() & texts.is_not_null()).arg_max() or 0)
    return f"; {share:.0%} are numbers, but {row_name(row)} has {printable(texts[row])[:40]!r}"


def _is_id(values: pl.Series) -> bool:
    """Whether numbers may be an id: by the column's name, or because they count the rows."""
    counts = len(values) > FEW and values[0] in (0, 1) and (values.diff().drop_nulls() == 1).all()
    return bool((counts or ID.search(values.name)) and (values == values.round()).all())


def _example(column: pl.Series) -> str:
    values = column.drop_nulls()
    return repr(printable(str(values[0]))[:40]) if len(values) else "none"


def _misfit(column: pl.Series, wrong: pl.Series, expected: str, row_name: RowName) -> DataError:
    row = int(wrong.arg_max() or 0)
    return DataError(f"{row_name(row)}: {column.name} is {printable(str(column[row]))[:60]!r}\n  expected {expected}")
