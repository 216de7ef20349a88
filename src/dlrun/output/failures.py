"""A full disk and too little memory, reported in words."""

import errno
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dlrun.errors import UserError
from dlrun.output.checkpoint import MAKE_ROOM, way_on

UNWRITABLE = {getattr(errno, n) for n in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "EFBIG", "ESTALE")}


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """A disk that is full or cannot be written to is the user's to mend."""
    hook = threading.excepthook

    def quiet(what: object) -> None:
        if not isinstance(what.exc_value, OSError):  # TensorBoard's writer raises it again in the run's own thread
            hook(what)

    threading.excepthook = quiet
    try:
        yield
    except OSError as error:
        name = error.filename if isinstance(error.filename, str | Path) else ""
        is_inside = Path(folder).absolute() in Path(name).absolute().parents
        if error.errno not in UNWRITABLE and not is_inside:
            raise
        where = f" ({error.filename})" if is_inside else ""
        raise UserError(
            f"cannot write to the run's folder {folder}: {error.strerror}{where}\n"
            "  expected a disk with room that can be written to, and no other file or folder in a name's place\n"
            f"  {way_on(folder, MAKE_ROOM)}"
        ) from error
    finally:
        threading.excepthook = hook


@contextmanager
def within_memory() -> Iterator[None]:
    """Too large a net, data set or batch is the user's to make smaller. torch says it in several ways."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        said = str(error)
        words = ("can't allocate memory", "not enough memory", "out of memory", "size calculation overflowed")
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(w in said for w in words):
            raise
        asked = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGTPE]?i?B)", said)
        size = asked and (asked[2] or f"{int(asked[1]) / 2**30:,.1f} GiB")
        what = f"{size} more were asked for" if size else said.partition("\n")[0] or "an allocation failed"
        raise UserError(
            f"out of memory: {what}\n"
            "  expected what fits into this machine\n"
            "  make it smaller: the model's sizes, data.batch_size, or the data (data.source.samples, where drawn)"
        ) from error
