"""Find the paths that a config names, and read regular files only: no pipes, no devices. No torch."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from dlrun.errors import DataError, UserError

WORKING_FOLDER = "the working folder was removed\n  expected one that exists: change to another folder"


def find(path: str, data_dir: Path, key: str, expected: str) -> Path:
    """Return the absolute path of a file or folder that a config names.

    A bare name is searched for under the data folder, then in the working folder. A path of several parts is searched
    for in the working folder first; one that begins with . or .. is searched for only there. key: the config key.
    expected: the text after "expected" in errors. Raises DataError if there is none, or if it is a FIFO, a socket or a
    device.
    """
    wanted = os.path.expanduser(path)
    here, stored = Path.cwd() / wanted, data_dir / wanted
    is_path = "/" in wanted or os.sep in wanted
    candidates = [here] if _is_here(wanted) else [here, stored] if is_path else [stored, here]
    candidates = list(dict.fromkeys(candidates))
    try:
        result = next((candidate for candidate in candidates if candidate.exists()), None)
    except OSError:  # a name too long
        result = None
    if result is None:
        raise DataError(f"{key}={path}: there is no {' and no '.join(map(str, candidates))}\n  expected {expected}")
    if not result.is_dir() and (why := irregular(result)):
        raise DataError(f"{key}={path}: {result} is {why}\n  expected {expected}")
    return result.resolve() if ".." in result.parts else Path(os.path.abspath(result))


def has_working_folder() -> bool:
    """Whether the working folder is still there. Of one that was removed, Linux still finds "."."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def require_working_folder() -> None:
    """Raise UserError if the working folder was removed: relative paths mean nothing then."""
    if not has_working_folder():
        raise UserError(WORKING_FOLDER)


def _is_here(wanted: str) -> bool:
    return wanted.replace(os.sep, "/").partition("/")[0] in (".", "..")


def pinned(path: str, data_dir: Path) -> str:
    """Rewrite a config's path to mean the same from every working folder: absolute, or under ${data_dir}.

    A bare name that exists under the data folder stays as it is, and so does a path that does not exist.
    """
    wanted = os.path.expanduser(path)
    try:
        target = find(path, data_dir, "", "")
    except (DataError, OSError, ValueError):
        return path
    is_name = not os.path.isabs(wanted) and not _is_here(wanted)
    if is_name and target == Path(os.path.abspath(data_dir / wanted)):
        return path if "/" not in wanted else f"${{data_dir}}/{path}"
    return str(target)


KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def irregular(path: str | os.PathLike) -> str | None:
    """Return the kind of a path that is not a regular file, such as "a FIFO", whose reader could wait; else None.

    Raises OSError if it does not exist.
    """
    kind = stat.S_IFMT(os.stat(path).st_mode)
    return None if kind == stat.S_IFREG else KINDS.get(kind, "a folder")


def open_plain(path: Path) -> BinaryIO:
    """Open a regular file to read. Raises OSError for a pipe or a device, too: its reader could wait forever."""
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))
    return file


def read_whole(path: Path) -> bytes:
    """Return the content of a regular file. Raises OSError for other files, too."""
    with open_plain(path) as file:
        return file.read()
