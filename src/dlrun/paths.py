"""Paths that a config names, and files that are read safely: no pipe, no device. No torch."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from dlrun.errors import DataError


def find(path: str, data_dir: Path, key: str, expected: str) -> Path:
    """The file or folder that a config names, as an absolute path.

    A name alone is looked for under the data folder, then in the working folder. A path of several parts is looked for
    in the working folder first, and one that begins with . or .. nowhere else. key, expected: of the config, and what
    it names, for messages. Raises DataError where there is none, or where it is a FIFO, a socket or a device.
    """
    wanted = os.path.expanduser(path)
    here, stored = Path.cwd() / wanted, data_dir / wanted
    is_path = "/" in wanted or os.sep in wanted
    places = [here] if _is_here(wanted) else [here, stored] if is_path else [stored, here]
    places = list(dict.fromkeys(places))
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise DataError(f"{key}={path}: there is no {' and no '.join(map(str, places))}\n  expected {expected}")
    if not found.is_dir() and (why := irregular(found)):
        raise DataError(f"{key}={path}: {found} is {why}\n  expected {expected}")
    return found.resolve() if ".." in found.parts else Path(os.path.abspath(found))


def _is_here(wanted: str) -> bool:
    return wanted.replace(os.sep, "/").partition("/")[0] in (".", "..")


def pinned(path: str, data_dir: Path) -> str:
    """A path of a config so that it means the same from every working folder: absolute, or under ${data_dir}.

    A name alone that lies under the data folder stays as it is, and so does what does not exist.
    """
    wanted = os.path.expanduser(path)
    try:
        found = find(path, data_dir, "", "")
    except (DataError, OSError, ValueError):
        return path
    is_name = not os.path.isabs(wanted) and not _is_here(wanted)
    if is_name and found == Path(os.path.abspath(data_dir / wanted)):
        return path if "/" not in wanted else f"${{data_dir}}/{path}"
    return str(found)


KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def irregular(path: str | os.PathLike) -> str | None:
    """What is there if it is no regular file, such as a FIFO, from which reading would wait forever; None if it is one.

    Raises OSError where there is nothing.
    """
    kind = stat.S_IFMT(os.stat(path).st_mode)
    return None if kind == stat.S_IFREG else KINDS.get(kind, "a folder")


def open_plain(path: Path) -> BinaryIO:
    """A file to read. Raises OSError for a pipe or a device, too: who reads one may wait without end."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return file


def read_whole(path: Path) -> bytes:
    """What is in a file. Raises OSError as `open_plain` does."""
    with open_plain(path) as file:
        return file.read()
