"""The machine: what it is, and errors in words where its disk or its memory is at its end."""

import ctypes
import errno
import math
import os
import re
import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from dlrun.checkpoint import MAKE_ROOM, way_on
from dlrun.errors import UserError


def device_name(device: torch.device) -> str:
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_memory() -> None:
    """What a step frees stays with the process, for the next step to take.

    glibc gives large blocks back to the system and asks for them anew at every step, and the system hands them out in
    pages of 4 KB that it clears one by one: half the time of an epoch of an LSTM on a CPU. Huge pages, too, need no
    more than to be asked for. To be called before the first tensor. What the environment says of them (MALLOC_*,
    glibc.malloc in GLIBC_TUNABLES, THP_MEM_ALLOC_ENABLE) counts; other C libraries are left alone.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it once, at its first block
    is_told = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or any(n.startswith("MALLOC_") for n in os.environ)
    if sys.platform == "linux" and not is_told:
        with suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, -1)


def keep_threads(before: int, device: torch.device) -> str | None:
    """As many threads of the CPU as before: others would add up in another order. Gives what is to be said of it."""
    now = torch.get_num_threads()
    if device.type != "cpu" or now == before:
        return None
    if "OMP_NUM_THREADS" in os.environ:
        return f"threads: {before} before, now {now} (OMP_NUM_THREADS), so the last bits of its numbers may differ"
    torch.set_num_threads(before)
    return f"threads: {before} as before, for the same bits (OMP_NUM_THREADS={now} sets others)"


def peak_memory(device: torch.device) -> dict:
    """Of this process, and of the device where it has its own: MB."""
    unit = 2**20 if sys.platform == "darwin" else 2**10
    found = {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)}
    if device.type == "cuda":
        found["device"] = math.ceil(torch.cuda.max_memory_allocated(device) / 2**20)
    return found


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
