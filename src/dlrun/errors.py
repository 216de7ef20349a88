"""The exceptions of the package, and how their messages are worded.

An error that the user can fix is a `UserError`: the command prints it in one short block, without a traceback, and
exits with `exit_code`: 2, or 1 where the command was right, but the run failed or a disk is full. All others are bugs.

UserError               the request cannot be fulfilled: a wrong value, a missing file, too little memory or disk space
  + ConfigError         a config has mistakes; the message lists all of them
  + Unparsed            (config/signatures.py) a module that a config names is not valid Python
  + PairingError        the network cannot learn from this kind of data
  + DataError           a data set is missing, damaged, or not what its spec says
  + CheckpointError     a checkpoint or a file of weights is missing, damaged, or does not fit the network
  + UnreadableImage     a file is not an image, or a damaged one
  + Diverged            the loss, a metric or a weight is not finite (exit code 1)
  + DependencyLost      something that the run depends on ended; the run can be resumed (exit code 1)
      + PeerLost        another process of a distributed run died
      + WorkerError     a worker process of A3C died
      + EnvError        an environment failed while it was played (also a DataError)
  + OutOfMemory         (output/failures.py) there is less memory than the run needs

Three never reach the user: NotStackable (stack/functions.py), after which the jobs of a stack run one after another;
_MirrorError (data/sources/fetch.py), after which the next mirror is tried; and Interrupted (system/signals.py, a
BaseException), by which a signal stops work that may be abandoned at once.
"""

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from textwrap import fill
from traceback import extract_tb
from types import UnionType
from typing import TextIO

# control characters except tab and newline, and the characters that change the direction of writing
CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
NO_UTF8 = re.compile("[\udc80-\udcff]")  # how Python represents the bytes of a file name that are not UTF-8

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # how a disk without room fails

IN_MEMORY = (
    "the run was trained on samples in the memory of a Python program, which its folder does not hold\n"
    "  expected the same samples from Python: dlrun.resume(run, x=..., y=...), or others: run.evaluate(x=..., y=...)"
)


class UserError(Exception):
    """A message of a few lines: what happened (with the value), what was expected, how to fix it.

    code: 2, the request is wrong and nothing was started; or 1, the request was right, but the run failed.
    """

    code = 2

    @property
    def exit_code(self) -> int:
        """The exit code of a command that ends with this error: `code`, or 1 if a full disk caused it."""
        cause: BaseException | None = self
        while cause is not None:
            if isinstance(cause, OSError) and cause.errno in FULL:
                return 1
            cause = cause.__context__
        return self.code


class DataError(UserError):
    """A data set is missing, damaged, or does not match its spec."""


class CheckpointError(UserError):
    """A checkpoint or a file of weights is missing, damaged, of another version, or does not fit the network."""


class DependencyLost(UserError):
    """Something that a run depends on ended: another process, an environment. The session adds how to resume."""

    code = 1


class ConfigError(UserError):
    """All mistakes of a config in one message. problems: one text for each."""

    def __init__(self, problems: list[str]) -> None:
        many = f"{len(problems)} errors in the config:\n  " if len(problems) > 1 else ""
        super().__init__(many + "\n  ".join(problems))


class Diverged(UserError):
    """The loss, a metric or a weight is not finite. Raised before the weights change or a checkpoint is replaced."""

    code = 1


class PeerLost(DependencyLost):
    """Another process of a distributed run died."""


class PairingError(UserError):
    """The network cannot learn from this kind of data."""


class UnreadableImage(UserError):
    """A file is not an image, or a damaged one."""


class WorkerError(DependencyLost):
    """A worker process died during the run."""


class EnvError(DependencyLost, DataError):
    """An environment failed while it was played."""


def counted(count: int, noun: str) -> str:
    """1 step, 2,000 steps, 2 classes, 2 categories"""
    ending = "es" if noun.endswith("s") else "s"
    plural = f"{noun[:-1]}ies" if noun.endswith("ry") else noun if noun == "series" else f"{noun}{ending}"
    return f"{count:,} {noun if count == 1 else plural}"


def some(words: list[str], most: int = 5) -> str:
    """The first words, then the number of words left out: "a, b and 3 more"."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def printable(text: str | os.PathLike[str]) -> str:
    """The text with control characters escaped, and bytes that are not UTF-8 as \\xff.

    Names may come from an untrusted folder and must not control the terminal.
    """
    text = NO_UTF8.sub(lambda match: f"\\x{ord(match[0]) - 0xDC00:02x}", os.fspath(text))
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def printable_cell(text: str | os.PathLike[str]) -> str:
    """The text as `printable` gives it, and on one line: for the cells of a table."""
    return printable(text).replace("\t", "\\t").replace("\n", "\\n")


def first_line(error: BaseException) -> str:
    """The first line of an error's text, printable; the name of its type if the text is empty."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0])


def described(error: BaseException) -> str:
    """The type of an error and the first line of its text, if it has one: "ValueError: no such file"."""
    return type(error).__name__ + (f": {first_line(error)}" if str(error).strip() else "")


def raised(error: BaseException) -> str:
    """Describe an exception of the user's own code, with its place: "ValueError: no such file (nets.py, line 3)".

    The place of a SyntaxError is that in the file which Python cannot read, with the line's text.
    """
    if isinstance(error, SyntaxError) and error.filename and os.path.isfile(error.filename):
        text = f": {error.text.strip()}" if error.text and error.text.strip() else ""
        where = f"{error.filename}, line {error.lineno}{text}" if error.lineno else error.filename
        return printable_cell(f"{type(error).__name__}: {error.msg} ({where})")
    line = str(error).strip().partition("\n")[0]
    what = f"{type(error).__name__}: {line}" if line else type(error).__name__
    last = extract_tb(error.__traceback__)[-1:]
    return printable(what + "".join(f" ({each.filename}, line {each.lineno})" for each in last))


@contextmanager
def own_code(what: str, expected: str) -> Iterator[None]:
    """A context for calls of the user's code. Raises DataError for what it raises, except user errors and memory."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{what} raised {raised(error)}\n  expected {expected}") from error


def listed(lead: str, words: list[str], indent: int, width: int = 0) -> str:
    """`lead` and all words, separated by commas, wrapped to `width` columns (0: standard error's terminal)."""
    width, margin = width or columns(sys.stderr, 120), " " * indent
    text = lead + ", ".join(words)
    return fill(text, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)


def columns(stream: TextIO, most: int) -> int:
    """Width of the terminal that a stream writes to, at most `most`; `most` if it writes elsewhere."""
    return min(most, shutil.get_terminal_size((80, 24)).columns) if stream.isatty() else most


def nearest(word: str, words: Iterable[str]) -> str:
    """ "; did you mean 'x'?" if a word is close to one of `words`, else ""."""
    near = closest(word, words, 0.65)
    return f"; did you mean {near!r}?" if near else ""


def closest(word: str, words: Iterable[str], cutoff: float) -> str | None:
    """The one of `words` most similar to `word`; None if no similarity reaches `cutoff`, in [0, 1]."""
    close = get_close_matches(word, list(words), n=3, cutoff=cutoff)
    close.sort(key=lambda each: sorted(each) != sorted(word))  # swapped letters are the likeliest slip
    return close[0] if close else None


def check_state(state: object, kinds: Mapping[str, type | UnionType]) -> None:
    """Raise ValueError unless `state` is a dict with exactly the keys of `kinds`, each value of its type.

    kinds: a type or a union of types, as isinstance takes it. A bool does not pass as an int.
    """
    if not isinstance(state, dict) or state.keys() != kinds.keys():
        actual = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"expected {sorted(kinds)}, found {actual}")
    for key, kind in kinds.items():
        if not isinstance(state[key], kind) or isinstance(state[key], bool):
            raise ValueError(f"{key}: unexpected type {type(state[key]).__name__}")
