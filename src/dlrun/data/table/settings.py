"""The settings of a table: its target, columns and splits, as the config has them, checked against the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import polars as pl

from dlrun.data.splits import Shares
from dlrun.data.table.columns import check_names, is_read, type_name
from dlrun.errors import DataError, UserError


@dataclass(frozen=True)
class TableSettings:
    """The target, the columns and the splits of a table: the keys in configs/data/table.yaml."""

    target: tuple[str, ...]
    learn: Literal["auto", "classification", "regression"]
    drop: tuple[str, ...]
    types: Mapping[str, str]
    by_quantiles: bool
    split: Shares
    stratify: bool
    group: str | None
    time: str | None
    weights: str | None
    folds: int
    fold: int
    group_key: str = "data.group"
    positive: str | None = None


def check_settings(schema: Mapping[str, pl.DataType], settings: TableSettings, where: str) -> None:
    """Raise UserError for names in the config that are no columns of the table, have two roles, or hold no values.

    schema: the type of each column.
    """
    columns = list(schema)
    if pattern := next((name for name in columns if name == "*" or name[:1] == "^" and name[-1:] == "$"), None):
        raise DataError(
            f"{where}: a column is named {pattern!r}, which polars takes for a pattern\n  expected another name"
        )
    if not settings.target:
        raise UserError(
            f"data.target is not set: which column of {where} is to be learned?\n"
            f"  expected one of: {', '.join(columns[:30])}"
        )
    single = {settings.group_key: settings.group, "data.time": settings.time, "data.weights": settings.weights}
    keys: dict[str, tuple[str, ...]] = {key: (name,) for key, name in single.items() if name}
    keys |= {"data.drop": settings.drop}
    for key, names in {"data.target": settings.target, "data.types": tuple(settings.types), **keys}.items():
        check_names(names, columns, key, where)
        read = [
            name for name in names if key != "data.drop" and (key != "data.types" or settings.types[name] != "text")
        ]
        if odd := next((name for name in read if not is_read(schema[name])), None):
            raise DataError(
                f"{key}={odd}: {where} has values of type {type_name(schema[odd])} there\n"
                "  expected numbers, texts, true and false, or dates"
            )
        if key in keys and (twice := next((name for name in names if name in settings.target), None)):
            raise UserError(f"{key}={twice}: that column is the target\n  expected another column")
    if len(set(settings.target)) < len(settings.target):
        raise UserError(f"data.target={list(settings.target)}: a column is named twice\n  expected each of them once")


def aside(settings: TableSettings) -> dict[str, str]:
    """Return the columns that have another role than input, each with its role, for the header."""
    roles = dict.fromkeys(settings.target, "") | {name: "data.drop" for name in settings.drop}
    for name, role in ((settings.group, settings.group_key), (settings.weights, "data.weights")):
        if name:
            roles[name] = role
    return roles
