"""The cores that this process may use. Imports no torch."""

import os


def cpus() -> int:
    """Number of cores that this process may use: those of its affinity mask, where the system has one (not macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
