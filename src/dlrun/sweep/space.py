"""Read a sweep's space from Hydra's overrides: the values of each parameter, or their interval."""

import math
import sys
from itertools import islice
from typing import cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Transformer
from hydra.errors import OverrideParseException

from dlrun.config.zips import is_zip, pairs_of
from dlrun.errors import UserError, nearest
from dlrun.overrides import key_of
from dlrun.sweep.axes import MOST, Axis

MOST_OF_AN_INTERVAL = 2**53  # integers are exact up to here


def read_axes(arguments: list[str], loader: ConfigLoader | None = None) -> list[Axis]:
    """Return an axis for each argument; the last one of a key counts. Raises UserError for arguments that are wrong."""
    parser = OverridesParser.create(config_loader=loader)
    axes: dict[str, Axis] = {}
    for argument in arguments:
        axis = _zipped(argument, parser) if is_zip(argument) else _axis(argument, _parsed(argument, parser))
        axes[axis.name] = axis
    owners: dict[str, Axis] = {}
    for axis in axes.values():
        for key in axis.keys:
            if other := owners.get(key.lstrip("+")):
                raise UserError(
                    f"{axis.argument}: {key} is also in {other.argument}\n  expected each parameter only once"
                )
            owners[key.lstrip("+")] = axis
    return list(axes.values())


def _parsed(argument: str, parser: OverridesParser) -> Override:
    try:
        return parser.parse_overrides([argument])[0]
    except OverrideParseException as error:
        if "empty choice" in str(error):
            raise UserError(f"{argument}: it has no values\n  expected at least one, such as choice(1,2)") from None
        raise


def _axis(argument: str, override: Override) -> Axis:
    key = override.get_key_element()
    if not override.is_sweep_override():
        value = "" if override.is_delete() and override.value() is None else override.get_value_element_as_str()
        return Axis([key], [[key if override.is_delete() and not value else f"{key}={value}"]], None, argument)
    swept = override.value()
    tags = getattr(swept, "tags", None) or set()
    if unknown := sorted(tags - {"log"}):
        raise UserError(
            f"{argument}: there is no tag {unknown[0]!r}{nearest(unknown[0], ['log'])}\n  expected tag(log,...)"
        )
    if isinstance(swept, IntervalSweep):
        return Axis([key], [], _interval(argument, swept), argument)
    if tags:
        raise UserError(
            f"{argument}: only an interval can have a scale\n  expected tag(log,interval(low,high)), or no tag"
        )
    return Axis([key], [[f"{key}={value}"] for value in _values(argument, override)], None, argument)


def _values(argument: str, override: Override) -> list[str]:
    swept = override.value()
    if isinstance(swept, RangeSweep):
        _check_range(argument, swept)
    values = [Transformer.str(value) for value in islice(override.sweep_iterator(), MOST + 1)]
    if len(values) > MOST:
        raise _too_many(argument)
    if not values:
        raise UserError(
            f"{argument}: it has no values\n"
            "  expected at least one; range(start,stop) ends before stop, so stop must be greater than start"
        )
    return values


def _check_range(argument: str, swept: RangeSweep) -> None:
    start, stop, step = cast(float, swept.start), cast(float, swept.stop), swept.step  # the parser sets them all
    if step == 0:
        raise UserError(f"{argument}: its step is 0\n  expected range(start,stop,step)")
    if not all(abs(number) <= sys.float_info.max for number in (start, stop, step)):
        raise UserError(f"{argument}: it has no end\n  expected finite numbers, such as range(0,10)")
    if (stop - start) / step > MOST:
        raise _too_many(argument)


def _too_many(argument: str) -> UserError:
    return UserError(
        f"{argument}: it has more than {MOST:,} values\n"
        "  expected fewer, or an interval to search: sweep=optuna 'key=int(interval(0,1000000))'"
    )


def _interval(argument: str, swept: IntervalSweep) -> tuple[float, float, bool, bool]:
    low, high = cast(float, swept.start), cast(float, swept.end)  # the parser sets both
    is_log = "log" in swept.tags
    if not all(map(math.isfinite, (low, high))):
        raise UserError(f"{argument}: its bounds are {low} and {high}\n  expected two finite numbers")
    if max(abs(low), abs(high)) > MOST_OF_AN_INTERVAL:
        raise UserError(
            f"{argument}: its bounds are {low:g} and {high:g}\n"
            f"  expected numbers between {-MOST_OF_AN_INTERVAL:g} and {MOST_OF_AN_INTERVAL:g}"
        )
    if low >= high:
        fault = f"in the wrong order: expected interval({high:g},{low:g})" if low > high else "equal"
        raise UserError(f"{argument}: its bounds are {fault}\n  expected the lower bound first: interval(0.1,0.5)")
    if is_log and low <= 0:
        raise UserError(
            f"{argument}: a logarithmic scale does not contain {low:g}\n"
            "  expected bounds > 0, such as tag(log,interval(1e-4,1e-1)), or an interval without the tag"
        )
    return low, high, is_log, isinstance(low, int) and isinstance(high, int)


def _zipped(argument: str, parser: OverridesParser) -> Axis:
    columns = []
    for key, value in pairs_of(argument):
        override = _parsed(f"{key}={value}", parser)
        swept, listed = override.value(), override._value  # a list keeps its quotes only in the latter
        if isinstance(swept, IntervalSweep) or getattr(swept, "shuffle", False):
            raise UserError(f"{argument}: {value} has no fixed order\n  expected choice(...), range(...) or a list")
        if override.is_sweep_override():
            values = _values(argument, override)
        elif isinstance(listed, list) and listed:
            values = [Transformer.str(item) for item in listed]
        else:
            raise UserError(f"{argument}: {key} has only one value\n  expected choice(...), range(...) or a list")
        columns.append([f"{override.get_key_element()}={item}" for item in values])
    lengths = {len(column) for column in columns}
    if len(lengths) > 1:
        counts = ", ".join(f"{key_of(column[0])} has {len(column)}" for column in columns)
        raise UserError(f"{argument}: {counts}\n  expected the same number of values for each key")
    return Axis(
        [column[0].partition("=")[0] for column in columns],
        [list(row) for row in zip(*columns, strict=True)],
        None,
        argument,
    )
