"""The cores that this process may use, and its share of them. Imports no torch."""

import os
from contextlib import suppress


def cpus() -> int:
    """Number of cores that this process may use: those of its affinity mask, where the system has one (not macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def copy_nice() -> None:
    """Give this process's session its nice value: each session is a scheduling group on Linux, with a value of its own.

    Without it the nice value of a process counts only against others of its session.
    """
    with suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write(str(os.nice(0)))
