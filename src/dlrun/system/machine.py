"""The machine: device names, memory allocation, threads, peak memory."""

import ctypes
import math
import os
import resource
import sys
from contextlib import suppress

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of mallopt, from glibc's malloc.h


def device_name(device: torch.device) -> str:
    """The device's type, with the model of a GPU."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type


def keep_memory() -> None:
    """Keep memory that a step frees in the process, in huge pages, for the next step. Call before the first tensor.

    By default glibc returns large blocks to the system and requests them again at every step, and the kernel clears
    them page by page (4 KB): half the time of an epoch of an LSTM on a CPU. Environment variables that configure this
    (MALLOC_*, glibc.malloc in GLIBC_TUNABLES, THP_MEM_ALLOC_ENABLE) take precedence. Other C libraries are left alone.
    """
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch reads it at its first allocation
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    is_configured = "glibc.malloc" in tunables or any(n.startswith("MALLOC_") for n in os.environ)
    if sys.platform == "linux" and not is_configured:
        with suppress(AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(M_MMAP_MAX, 0)
            mallopt(M_TRIM_THRESHOLD, -1)


def return_memory() -> None:
    """Return to the system what reading the data has freed. Steps then keep what they free (see keep_memory)."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def keep_threads(before: int, device: torch.device) -> str | None:
    """Use as many CPU threads as before a resume: another number would sum in another order.

    An explicit OMP_NUM_THREADS wins. Returns a note for the user, or None if the number is unchanged.
    """
    now = torch.get_num_threads()
    if device.type != "cpu" or now == before:
        return None
    if "OMP_NUM_THREADS" in os.environ:
        return f"threads: {before} before, now {now} (OMP_NUM_THREADS), so results may differ in their last bits"
    torch.set_num_threads(before)
    return f"threads: {before} as before, for bit-exact results (OMP_NUM_THREADS={now} would override it)"


def peak_memory(device: torch.device) -> dict[str, int]:
    """Peak memory in MB: "host" of this process, and "device" of a GPU."""
    unit = 2**20 if sys.platform == "darwin" else 2**10  # ru_maxrss is in bytes on macOS, in KB on Linux
    peak = {"host": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)}
    if device.type == "cuda":
        peak["device"] = math.ceil(torch.cuda.max_memory_allocated(device) / 2**20)
    return peak
