"""Dates as people write them: find the format of a column's texts, and read them. Time zones become UTC."""

import re

import polars as pl

DATES = (
    "%Y-%m-%d",
    "%Y/%m/%d",
    "%d.%m.%Y",
    "%m/%d/%Y",
    "%d/%m/%Y",
    "%d-%m-%Y",
    "%m-%d-%Y",
    "%d.%m.%y",
    "%m/%d/%y",
    "%d/%m/%y",
    "%d-%b-%Y",
    "%d-%b-%y",
    "%d %b %Y",
    "%d %B %Y",
    "%b %d, %Y",
    "%B %d, %Y",
)
CLOCKS = ("%H:%M", "%H:%M:%S", "%H:%M:%S%.f", "%I:%M %p", "%I:%M:%S %p")
TIMES = (
    "",
    *(before + clock for clock in CLOCKS for before in (" ", ", ")),
    " %H:%M:%S,%3f",
    *("T" + clock for clock in CLOCKS[:3]),
    *(before + clock + zone for clock in CLOCKS[1:3] for before in " T" for zone in ("Z", "%z")),
)
FORMATS = (*(date + time for date in DATES for time in TIMES), "%Y%m%dT%H%M%S", "%Y-%m")
ISO = [form for form in FORMATS if form.startswith("%Y-%m-%d") and not set(",I") & set(form)]
MOSTLY = 0.9  # from this share of dates on, a text column is one of dates with mistakes in it
SAMPLED = 100  # first texts, which a format has to fit
YEAR_100 = -59_011_459_200_000_000  # its start, in microseconds from 1970: %Y takes 24 for the year 24


def parsed(texts: pl.Series, form: str) -> pl.Series:
    """Parse texts by a format, to datetimes; null where that fails, and where %Y finds a year of two digits."""
    if "%m" in form and "%d" not in form:  # a month is its first day
        texts, form = texts + " 1", form + " %d"
    if not re.search("%[HIMST]", form):
        dates = texts.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    else:
        dates = texts.str.to_datetime(form, strict=False, time_unit="us")
        dates = dates.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if "%z" in form else dates
    if "%Y" in form and (dates.to_physical().min() or 0) < YEAR_100:
        dates = dates.set((dates.to_physical() < YEAR_100) & ~texts.str.contains(r"\d{4}"), None)
    return dates


def parsed_iso(texts: pl.Series) -> pl.Series:
    """Parse texts in ISO form, with or without a time, to datetimes; null where that fails."""
    dates = pl.Series(texts.name, [None] * len(texts), pl.Datetime("us"))
    for form in ISO:
        if dates.null_count() == texts.null_count():
            break
        dates = dates.fill_null(parsed(texts.set(dates.is_not_null(), None), form))
    return dates


def date_format(values: pl.Series) -> str:
    """Return the first of FORMATS that fits most of the texts, or "" if there is none."""
    example = str(values[0]) if len(values) else ""
    if example.isdigit() or not re.match(r"\d|[A-Za-z]{3,9} \d", example):
        return ""
    first = values.head(SAMPLED).cast(pl.String)
    fitting = [form for form in FORMATS if _is_like(example, form) and _share(first, form) >= MOSTLY]
    if len(fitting) < 2:
        return fitting[0] if fitting else ""
    texts, best = values.cast(pl.String), ("", 0.0)
    for form in fitting:  # day and month may be mistaken for each other in the first values
        if (share := _share(texts, form)) > best[1]:
            best = form, share
        if share == 1:
            break
    return best[0]


def _is_like(text: str, form: str) -> bool:
    """Whether a text has the letters and signs of a format: a quick test that rules out most formats."""
    plain = re.sub(r"%[.\d]?[A-Za-z]", "", form)
    alike = (
        (":" in plain, ":" in text),
        (form.startswith("%Y"), bool(re.match(r"\d{4}", text))),
        ("%b" in form or "%B" in form, bool(re.search("[A-Za-z]{3}", text))),
        ("%p" in form, text[-1:] in "mM"),
    )
    return set(plain) <= set(text) and all(needed == has for needed, has in alike)


def _share(texts: pl.Series, form: str) -> float:
    return 1 - parsed(texts, form).null_count() / len(texts)


def other_order(form: str) -> str:
    """Return the format with day and month swapped, if it is one of FORMATS; else ""."""
    other = form.translate(str.maketrans("dm", "md"))
    return other if other != form and other in FORMATS else ""


def ambiguity(dates: pl.Series, form: str) -> str:
    """Report that the day and month of all dates of a column could be swapped; "" if they could not."""
    other, name = other_order(form), dates.name
    if not other or dates.dt.day().max() > 12:  # type: ignore[operator]  # a column of dates is not empty
        return ""
    return f"{name} is read as {form}, but {other} fits every value, too (data.types.{name}={other})"
