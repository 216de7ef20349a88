"""Whether a value of a config has the type and the range of a parameter's annotation, and what was expected if not."""

import shlex
import typing
from types import NoneType, UnionType

from dlrun import types

LARGEST = 3.4028234663852886e38  # the largest float32


def mismatch(value: object, annotation: object) -> str | None:
    """Describe the expected type and range if `value` does not match the annotation; return None if it does."""
    if annotation is None or annotation is object or _fits(value, annotation):
        return None
    if isinstance(value, float) and not abs(value) <= LARGEST:
        return describe(annotation, value).replace("a number", "a finite number")
    if _is_number(annotation) and isinstance(value, int) and abs(value) >= 2**63:
        return f"{describe(annotation, value)}; write a number this large with a point or an exponent: 1e+20"
    return describe(annotation, value)


def _is_number(annotation: object) -> bool:
    return annotation is float or any(map(_is_number, typing.get_args(annotation)))


def ranges(args: tuple) -> list[types.Range | types.Filled | types.BestOf]:
    """Return the limits among the arguments of Annotated."""
    return [each for each in args[1:] if isinstance(each, types.Range | types.Filled | types.BestOf)]


def _fits(value: typing.Any, annotation: typing.Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _fits(value, args[0]) and all(value in each for each in ranges(args))
    if origin in (typing.Union, UnionType):
        return any(_fits(value, option) for option in args)
    if origin is typing.Literal:
        return any(value == option and type(value) is type(option) for option in args)
    if origin is list or origin is tuple and args[-1:] == (...,):
        return isinstance(value, list | tuple) and all(_fits(v, args[0]) for v in value)
    if origin is tuple:
        return (
            isinstance(value, list | tuple)
            and len(value) == len(args)
            and all(_fits(v, a) for v, a in zip(value, args, strict=True))
        )
    if origin is dict:
        return isinstance(value, dict) and all(_fits(v, args[1]) for v in value.values())
    if annotation is float:  # no infinity, no NaN
        most = 2**63 - 1 if isinstance(value, int) else LARGEST
        return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= most
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if annotation is None or annotation is NoneType:
        return value is None
    if annotation is str:
        return types.is_text(value)
    return isinstance(value, annotation) if isinstance(annotation, type) else True


def describe(annotation: typing.Any, value: object = None) -> str:
    """Describe a type in an error message about this value."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return " ".join([describe(args[0], value), *(each.expected(value) for each in ranges(args))])
    if origin in (typing.Union, UnionType):
        return " or ".join(describe(option, value) for option in args)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, args))
    if origin is tuple and args[-1:] != (...,):
        return f"a list of {len(args)}: " + ", ".join(describe(a) for a in args)
    if origin in (list, tuple):
        if typing.get_origin(args[0]) is tuple:
            inner = typing.get_args(args[0])
            parts = ", ".join(describe(each).removeprefix("a ").removeprefix("an ") for each in inner)
            return f"a list of {'pairs' if len(inner) == 2 else f'lists of {len(inner)}'} [{parts}]"
        wrong = (each for each in value if not _fits(each, args[0])) if isinstance(value, list | tuple) else ()
        return f"a list, each {describe(args[0], next(iter(wrong), None))}"
    if origin is dict:
        return "a mapping"
    if annotation is str and isinstance(value, str) and types.is_too_long(value):
        return "text of at most 255 bytes between two slashes"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "text", NoneType: "null", None: "null"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def written_as_text(value: object, annotation: object, path: str) -> str:
    """Say how numbers, true and false are written as text, or a name with a point in a mapping, if that would fit."""
    if isinstance(value, dict):
        names = {f"{first}.{last}": text for first, inner in value.items() if isinstance(inner, dict)
                 for last, text in inner.items()}  # fmt: skip
        if not names or mismatch(names, annotation):
            return ""
        written = ", ".join(f"{name}: {text}" for name, text in names.items())
        return f"; a name with a point is written {shlex.quote(f'{path}={{{written}}}')}"
    plain = value if isinstance(value, list | tuple) else [value]
    texts = [f"{each}".lower() if isinstance(each, bool | int | float) else each for each in plain]
    if texts == list(plain) or mismatch(texts if plain is value else texts[0], annotation):
        return ""
    written = ",".join(f'"{text}"' for text in texts)
    return f"\n    as text: {shlex.quote(f'{path}=[{written}]' if plain is value else f'{path}={written}')}"
