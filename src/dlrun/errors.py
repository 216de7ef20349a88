"""Errors that are the user's to mend: printed in one short block, without a traceback."""

import os
import re
import shutil
import sys
from difflib import get_close_matches
from textwrap import fill

# control characters but for tab and newline, and those that turn the direction of writing
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
NO_UTF8 = re.compile("[\udc80-\udcff]")  # bytes of a name, as Python has them in a text


class UserError(Exception):
    """What happened (with the value received), what was expected, how to fix it: one line or a few."""


class DataError(UserError):
    """A data set is missing, damaged, or not what its spec says."""


class CheckpointError(UserError):
    """A checkpoint is missing, damaged, or another version's."""


class PartLost(UserError):
    """What a run depends on failed: another process, an environment. The session adds how the run can be resumed."""

    exit_code = 1  # a run that failed, not a command that was wrong


class ConfigError(UserError):
    """Everything that is wrong with a config, in one message."""

    def __init__(self, problems: list[str]) -> None:
        many = f"{len(problems)} errors in the config:\n  " if len(problems) > 1 else ""
        super().__init__(many + "\n  ".join(problems))


class Diverged(UserError):
    """The loss is not finite any more; raised before the weights are touched."""

    exit_code = 1  # a run that failed, not a command that was wrong


class PeerLost(PartLost):
    """A process that trained with this one died."""


class PairingError(UserError):
    """This network cannot learn from this data."""


class Unreadable(UserError):
    """A file that is no picture, or a damaged one."""


class WorkerError(PartLost):
    """A worker process ended while the run went on."""


class EnvError(PartLost, DataError):
    """An environment failed while it was played."""


def counted(count: int, noun: str) -> str:
    """1 step, 2,000 steps"""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def some(words: list[str], most: int = 5) -> str:
    """The first of them, and how many more there are."""
    return ", ".join(words[:most]) + (f" and {len(words) - most} more" if len(words) > most else "")


def printable(text: str | os.PathLike) -> str:
    """The text with escape sequences shown instead of obeyed, and with bytes that are not UTF-8 as \\xff.

    Names may come from somebody else's folder.
    """
    shown = NO_UTF8.sub(lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", os.fspath(text))
    return COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), shown)


def listed(lead: str, words: list[str], indent: int, width: int = 0) -> str:
    """All of them behind `lead`, in lines as wide as the terminal that errors go to, if no width is told."""
    width, margin = width or columns(sys.stderr, 120), " " * indent
    whole_words = {"break_long_words": False, "break_on_hyphens": False}
    return fill(lead + ", ".join(words), width, subsequent_indent=margin, **whole_words)


def columns(stream: object, most: int) -> int:
    """How wide the terminal is that a stream goes to, at most; where it goes elsewhere there is room for `most`."""
    return min(most, shutil.get_terminal_size((80, 24)).columns) if stream.isatty() else most


def nearest(word: str, words: object) -> str:
    """ "; did you mean 'x'?" where a word is close to one of `words`, else nothing."""
    near = closest(word, words, 0.65)
    return f"; did you mean {near!r}?" if near else ""


def closest(word: str, words: object, cutoff: float) -> str | None:
    """That of `words` which is most like a word; None where none is alike to the share `cutoff`."""
    close = get_close_matches(word, list(words), n=3, cutoff=cutoff)
    close.sort(key=lambda each: sorted(each) != sorted(word))  # letters that changed places are the likeliest slip
    return close[0] if close else None


def check_state(state: object, kinds: dict[str, object]) -> None:
    """Raise ValueError unless `state` is a dict of exactly these keys, each with a value of its kind."""
    if not isinstance(state, dict) or state.keys() != kinds.keys():
        found = sorted(map(str, state)) if isinstance(state, dict) else type(state).__name__
        raise ValueError(f"expected {sorted(kinds)}, found {found}")
    for key, kind in kinds.items():
        if not isinstance(state[key], kind) or isinstance(state[key], bool):
            raise ValueError(f"{key}: {type(state[key]).__name__} is not what was saved there")
