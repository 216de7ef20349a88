"""What to learn from which columns of a table, and how to split it: the config's keys, checked against the table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from dlrun.data.splits import Shares
from dlrun.data.table.columns import check_names
from dlrun.errors import UserError


@dataclass(frozen=True)
class Wanted:
    """What to learn from which columns, and how to split: the keys of the config (see configs/data/table.yaml)."""

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


def check_wanted(columns: Sequence[str], wanted: Wanted, where: str) -> None:
    """Raise UserError for names in the config that are no columns of the table, or that have two roles."""
    if not wanted.target:
        raise UserError(
            f"data.target is not set: which column of {where} is to be learned?\n"
            f"  expected one of: {', '.join(columns[:30])}"
        )
    single = {"data.group": wanted.group, "data.time": wanted.time, "data.weights": wanted.weights}
    keys: dict[str, tuple[str, ...]] = {key: (name,) for key, name in single.items() if name}
    keys |= {"data.drop": wanted.drop}
    for key, names in {"data.target": wanted.target, "data.types": tuple(wanted.types), **keys}.items():
        check_names(names, columns, key, where)
        if key in keys and (twice := next((name for name in names if name in wanted.target), None)):
            raise UserError(f"{key}={twice}: that column is the target\n  expected another column")


def aside(wanted: Wanted) -> dict[str, str]:
    """Return the columns that are not learned from because of their role, with that role for the header."""
    roles = dict.fromkeys(wanted.target, "") | {name: "data.drop" for name in wanted.drop}
    for name, role in ((wanted.group, "data.group"), (wanted.weights, "data.weights")):
        if name:
            roles[name] = role
    return roles
