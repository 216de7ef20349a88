"""The machine: what it is, and errors in words where its disk or its memory is at its end."""

import ctypes
import math
import os
import resource
import sys
from contextlib import suppress

import torch


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
