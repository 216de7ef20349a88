"""The processes that work on a sweep, on one machine or several: each holds a lock in its folder while it lives."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def at_work(folder: Path) -> Iterator[str]:
    """This process among them, under the name that it gives."""
    name = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"  # numbers of processes are used again
    path = _path(folder, name)
    path.parent.mkdir(exist_ok=True)
    try:
        with FileLock(path):
            yield name
    finally:
        path.unlink(missing_ok=True)


def is_at_work(folder: Path, name: str) -> bool:
    path = _path(folder, name)
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            pass
    except Timeout:
        return True
    path.unlink(missing_ok=True)
    return False


def others_at_work(folder: Path, name: str) -> list[str]:
    paths = _path(folder, name).parent.glob("*")
    return [path.name for path in paths if path.name != name and is_at_work(folder, path.name)]


def is_here(name: str) -> bool:
    """Whether it is, or was, a process of this machine."""
    return name.rsplit("-", 2)[0] == socket.gethostname()


def _path(folder: Path, name: str) -> Path:
    return folder / ".workers" / name
