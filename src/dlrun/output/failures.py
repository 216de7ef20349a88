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


@contextmanager
def within_memory() -> Iterator[None]:
    """Turn an out-of-memory error, which torch raises as several types, into a UserError."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        message = str(error)
        words = ("can't allocate memory", "not enough memory", "out of memory", "size calculation overflowed")
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(w in message for w in words):
            raise
        match = re.search(r"allocate (\d+) bytes|allocate ([\d.]+ [KMGTPE]?i?B)", message)
        size = match and (match[2] or f"{int(match[1]) / 2**30:,.1f} GiB")
        reason = f"cannot allocate {size} more" if size else message.partition("\n")[0] or "an allocation failed"
        raise OutOfMemory(
            f"out of memory: {reason}\n"
            "  expected a model, data and batch that fit into this machine's memory\n"
            "  reduce the model's sizes, data.batch_size, or the data (data.source.samples of generated data)"
        ) from error
