"""The allocator of the C library: freed memory stays with the process."""

import ctypes
import os
import platform
import resource
import sys

import pytest
from runs import FORKS

from dlrun.system.machine import keep_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
@pytest.mark.skipif(any(name.startswith("MALLOC_") for name in os.environ), reason="the user's settings are kept")
def test_freed_memory_is_kept_by_the_process():
    """In a process of its own: earlier allocations decide where a block comes from."""
    process = FORKS.Process(target=allocate_twice)
    process.start()
    process.join()
    assert process.exitcode == 0, "the system was asked again for all 16,384 pages"


def allocate_twice():
    keep_memory()
    c, size = ctypes.CDLL(None), 2**26
    c.malloc.restype, c.memset.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
    c.free.argtypes = [ctypes.c_void_p]
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = c.malloc(size)
        c.memset(block, 1, size)
        c.free(block)
    sys.exit(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before >= 1000)
