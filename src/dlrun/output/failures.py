"""Report a full or read-only disk and a lack of memory as user errors."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dlrun.errors import UserError
from dlrun.output.checkpoint import MAKE_ROOM, recovery_hint

UNWRITABLE = {getattr(errno, n) for n in ("ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM", "EIO", "EFBIG", "ESTALE")}

NO_MEMORY = (  # in the messages of RuntimeErrors
    "can't allocate memory", "not enough memory", "out of memory", "size calculation overflowed", "bad_alloc",
    "can't start new thread",
)  # fmt: skip


class OutOfMemory(UserError):
    """A run needs more memory than there is."""


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turn an OSError while writing to a run's folder into a UserError."""
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
            "  expected a writable disk with free space, and no other file or folder of the same name\n"
            f"  {recovery_hint(folder, MAKE_ROOM)}"
        ) from error


def in_words(size: int) -> str:
    """A number of bytes, in GiB or MiB."""
    return f"{size / 2**30:,.1f} GiB" if size >= 2**29 else f"{size / 2**20:,.1f} MiB"


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn an out-of-memory error, which torch raises as several types, into a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        message = str(error)
        is_known = isinstance(error, MemoryError | torch.OutOfMemoryError)
        is_known |= isinstance(error, OSError) and error.errno == errno.ENOMEM
        if not is_known and not (isinstance(error, RuntimeError) and any(words in message for words in NO_MEMORY)):
            raise
        match = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGTPE]?i?B)", message)
        size = match and (match[2] or in_words(int(match[1])))
        reason = f"cannot allocate {size} more" if size else message.partition("\n")[0] or "an allocation failed"
        raise OutOfMemory(
            f"out of memory: {reason}\n"
            "  expected a model, data and batch that fit into this machine's memory\n"
            "  reduce the model's sizes, data.batch_size, or the data (data.source.samples of generated data)"
        ) from error
