"""The processes that work on a sweep, on one machine or several: each holds a lock in its folder while it lives."""

import os
import re
import shlex
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from dlrun.errors import UserError
from dlrun.output.folders import NAME, within


@contextmanager
def at_work(folder: Path) -> Iterator[str]:
    """This process among them, under the name that it gives."""
    name = f"{_host()}-{os.getpid()}-{time.time_ns()}"  # numbers of processes are used again
    path = _path(folder, name)
    lock = FileLock(path)
    try:
        path.parent.mkdir(exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        yield name
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # while it is locked: nobody waits for one that is gone
        lock.release()


def is_at_work(folder: Path, name: str) -> bool:
    path = _path(folder, name)
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            path.unlink(missing_ok=True)
    except Timeout:
        return True
    return False


def others_at_work(folder: Path, name: str) -> list[str]:
    names = [path.name for path in _path(folder, name).parent.glob("*") if NAME.fullmatch(path.name)]
    return [other for other in names if other != name and is_at_work(folder, other)]


def is_here(name: str) -> bool:
    """Whether it is, or was, a process of this machine."""
    return name.rsplit("-", 2)[0] == _host()


def _host() -> str:
    return re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)


def cannot_write(folder: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write to the sweep's folder {folder}: {error.strerror}\n"
        "  expected a disk with room that can be written to, and room for a process; what was done is kept\n"
        f"  go on with: dl-run -m sweep.resume={shlex.quote(str(folder))}"
    )


def _path(folder: Path, name: str) -> Path:
    return within(folder, ".workers", name)
