"""What the commands print: streams that may be closed or full, and text that may hold what commands a terminal."""

import errno
import os
import re
import sys
from contextlib import suppress
from typing import TextIO

# control characters but for tab and newline, and those that turn the direction of writing
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """The text with escape sequences shown instead of obeyed: names may come from a folder of somebody else."""
    return COMMANDS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def open_streams() -> None:
    """Make standard output and error ready to print on: one may be closed, as by >&-, or lack a path's letters."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        getattr(sys, name).reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """What is left in the stream's buffer, and whatever comes, goes nowhere."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


def is_full(error: BaseException) -> bool:
    """Whether something, standard output or a file, takes nothing any more."""
    return isinstance(error, OSError) and error.errno in FULL


def complain(command: str, message: object) -> None:
    """An error of the command, on standard error, if that can be written to."""
    try:
        print(printable(f"{command}: {message}"), file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def complain_of_room(command: str, error: OSError) -> None:
    silence(sys.stdout)  # what is in its buffer would fail once more at the end
    where = f" {error.filename}" if error.filename else ""
    room = "expected room on the disk, and a standard output that can be written to"
    complain(command, f"cannot write{where}: {error.strerror}\n  {room}")
