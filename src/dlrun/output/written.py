"""Files that are written whole or not at all. No torch here.

`write_whole` replaces a small file of dl-run's own. `whole` is for files that the user names, of any writer.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlrun.errors import UserError
from dlrun.paths import irregular


def write_whole(path: Path, content: str | bytes, durable: bool = False) -> None:
    """Replace a small file atomically: readers see the old content or the new one. A text is written as UTF-8.

    durable: the new content survives a power cut once this returns.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    with open(temporary, "xb") as file:  # "w" would follow a link
        file.write(content.encode() if isinstance(content, str) else content)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder survive a power cut, if the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # some file systems cannot
            os.fsync(handle)
        os.close(handle)


@contextmanager
def whole(path: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end of the block the file there replaces `path`.

    suffix: of the temporary path, for writers that need a certain one; None: that of `path`. If the block raises, the
    temporary file is removed. Raises UserError if the file cannot be written. A link stays; its target is replaced.
    """
    if os.path.exists(path) and (kind := irregular(path)):  # root could replace /dev/null
        raise UserError(f"cannot write {path}: it is {kind}\n  expected a file name")
    target = Path(os.path.realpath(path))
    ending = path.suffix if suffix is None else suffix
    temporary = target.with_name(f".part-{os.getpid()}{ending}")  # short: the name may be as long as names can be
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}\n  expected a writable path") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
