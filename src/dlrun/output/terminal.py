"""What the commands print: streams that may be closed or full, and text that may hold what commands a terminal."""

import errno
import os
import sys
from contextlib import suppress
from typing import TextIO

from dlrun.errors import printable

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


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


def is_of_disk(error: BaseException) -> bool:
    """Whether standard output or a file takes nothing any more, or a name is too long for a file."""
    return isinstance(error, OSError) and error.errno in (*FULL, errno.ENAMETOOLONG)


def complain(command: str, message: object) -> None:
    """An error of the command, on standard error, if that can be written to."""
    try:
        print(printable(f"{command}: {message}"), file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def complain_of_disk(command: str, error: OSError) -> None:
    if error.errno == errno.ENAMETOOLONG:
        expected = "expected at most 255 bytes between two slashes"
        complain(command, f"{str(error.filename)[:80]}...: too long for the name of a file\n  {expected}")
        return
    silence(sys.stdout)  # what is in its buffer would fail once more at the end
    where = f" {error.filename}" if error.filename else ""
    room = "expected room on the disk, and a standard output that can be written to"
    complain(command, f"cannot write{where}: {error.strerror}\n  {room}")
