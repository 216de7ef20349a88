"""The processes that work on a sweep, on one or several machines. Each holds a lock in the sweep's folder."""

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
    """Register this process while the block runs, and yield its name."""
    name = f"{_host()}-{os.getpid()}-{time.time_ns()}"  # process ids are reused
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
            path.unlink(missing_ok=True)  # while it is locked, so that no process waits for it
        lock.release()


def is_at_work(folder: Path, name: str) -> bool:
    """Whether the process with this name is alive."""
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
    """Return the names of the live processes other than this one."""
    names = [path.name for path in _path(folder, name).parent.glob("*") if NAME.fullmatch(path.name)]
    return [other for other in names if other != name and is_at_work(folder, other)]


def is_here(name: str) -> bool:
    """Whether a name is that of a process on this machine, alive or not."""
    return name.rsplit("-", 2)[0] == _host()


def _host() -> str:
    return re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)


def cannot_write(folder: Path, error: OSError) -> UserError:
    """Return the error for a sweep's folder that cannot be written."""
    return UserError(
        f"cannot write to the sweep's folder {folder}: {error.strerror}\n"
        "  expected a writable disk with room, and memory for a process; finished work is kept\n"
        f"  resume with: dl-run -m sweep.resume={shlex.quote(str(folder))}"
    )


def _path(folder: Path, name: str) -> Path:
    return within(folder, ".workers", name)
