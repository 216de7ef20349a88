"""Turn Python values into the words of a command line: {"trainer": {"epochs": 3}} is trainer.epochs=3.

And the flags in the texts of errors into the arguments of Python.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from os import PathLike

from dlrun.errors import UserError
from dlrun.overrides import PLAIN, quoted

Words = str | Mapping[str, object]
ARGUMENTS = {  # what errors say for Python where they name flags for the command
    "--samples N, or --latent FILE with codes": "samples=N",
    "--episodes N": "episodes=N",
    "--fit": "fit=True",
    "--output-dir DIR": "output_dir=...",
    "files of rows, with the columns of the run": "rows with the columns of the run",
    "dl-runs show RUN --config lists": "run.config has",
}
RESERVED = ("true", "false", "null", "nan", "inf")


def as_words(arguments: Iterable[Words]) -> list[str]:
    """Return overrides. arguments: overrides, or mappings from keys to values.

    A mapping as a value sets the keys in a section: {"trainer": {"epochs": 3}}. Raises UserError for other objects.
    """
    words: list[str] = []
    for each in arguments:
        if isinstance(each, str):
            words.append(each)
        elif isinstance(each, Mapping):
            words += _pairs(each)
        else:
            raise UserError(
                f"{each!r}: expected words such as 'trainer.epochs=3', or a dictionary such as {{'trainer.epochs': 3}}"
            )
    return words


def _pairs(mapping: Mapping[str, object]) -> Iterator[str]:
    for key, value in mapping.items():
        if not isinstance(key, str) or not key:
            raise UserError(f"{key!r}: expected the name of a key, such as 'trainer.epochs'")
        is_section = isinstance(value, Mapping) and "." not in key and "_target_" not in value
        if is_section and isinstance(value, Mapping):
            yield from (f"{key}.{name}={_text(f'{key}.{name}', each)}" for name, each in value.items())
        else:
            yield f"{key}={_text(key, value)}"


def _text(key: str, value: object) -> str:
    """Write a value as the command line does."""
    if hasattr(value, "item") and not getattr(value, "shape", ()):  # a number of NumPy or torch
        value = value.item()
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | PathLike):
        text = str(value)
        return text if PLAIN.fullmatch(text) and text.lower() not in RESERVED else quoted(text)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_text(f'{key}.{name}', each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_text(key, each) for each in value) + "]"
    raise UserError(f"{key}={value!r}: expected a number, a text, a list or a dictionary, not a {type(value).__name__}")


@contextmanager
def in_python() -> Iterator[None]:
    """A context whose errors name arguments of Python instead of flags of the command."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for flag, argument in ARGUMENTS.items():
            text = text.replace(flag, argument)
        error.args = (text, *error.args[1:])
        raise
