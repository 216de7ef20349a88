"""Printing by the commands: streams may be closed or full, and text may contain control characters."""

import errno
import os
import sys
from contextlib import suppress
from typing import TextIO, TypeGuard

from dlrun.errors import FULL, printable


def open_streams() -> None:
    """Prepare standard output and error for printing: one may be closed (>&-) or unable to encode a path."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
        if hasattr(getattr(sys, name), "reconfigure"):  # not that of a notebook
            getattr(sys, name).reconfigure(errors="backslashreplace")


def silence(stream: TextIO) -> None:
    """Redirect a stream, with the content of its buffer, to the null device."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as null:
        os.dup2(null.fileno(), stream.fileno())


lost: list[str] = []  # streams of this process that lie on a full disk and have not taken all their text


def write(stream: TextIO, text: str) -> bool:
    """Write and flush a text. Returns False if the stream fails; it is then silenced, and the work continues.

    A closed pipe is silenced without a word. A full disk is reported, once; the commands then exit with code 1.
    """
    try:
        stream.write(text)
        stream.flush()
        return True
    except (OSError, ValueError) as error:
        silence(stream)
        if is_of_disk(error):
            lost.append(stream.name)
            rest = "training continues; the folder of the run or sweep has its logs and results"
            complain("dl-run", f"cannot write to {stream.name.strip('<>')}: {error.strerror}\n  {rest}")
        return False


def is_of_disk(error: BaseException) -> TypeGuard[OSError]:
    """Whether a disk (of a file or of standard output) is full, or a name is too long for a file."""
    return isinstance(error, OSError) and error.errno in (*FULL, errno.ENAMETOOLONG)


def complain(command: str, message: object) -> None:
    """Print a command's error to standard error, if that is writable."""
    try:
        print(printable(f"{command}: {message}"), file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def complain_of_disk(command: str, error: OSError) -> None:
    """Print that a file or standard output could not be written."""
    if error.errno != errno.ENAMETOOLONG:
        silence(sys.stdout)  # flushing its buffer at exit would fail again
    complain(command, text_of_disk(error))


def text_of_disk(error: OSError) -> str:
    """Describe an error for which `is_of_disk` holds."""
    if error.errno == errno.ENAMETOOLONG:
        expected = "expected at most 255 bytes between two slashes"
        return f"{str(error.filename)[:80]}...: too long for the name of a file\n  {expected}"
    where = f" {error.filename}" if error.filename else ""
    return f"cannot write{where}: {error.strerror}\n  expected free space on the disk and a writable standard output"
