"""The cores that this process may use, and its share of them. Imports no torch."""

import os
import time


def cpus() -> int:
    """Number of cores that this process may use: those of its affinity mask, where the system has one (not macOS)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def copy_nice() -> None:
    """Give this process's session its nice value."""
    set_nice_of_group(os.nice(0))


def set_nice_of_group(nice: int, pid: int | str = "self") -> None:
    """Give a process's session a nice value: each session is a scheduling group on Linux, with a value of its own.

    Without it the nice value of a process counts only against others of its session.
    """
    for _ in range(5):
        try:
            with open(f"/proc/{pid}/autogroup", "w") as group:
                group.write(str(nice))
        except BlockingIOError:  # Linux allows one change in a tenth of a second
            time.sleep(0.1)
        except OSError:  # not Linux, or it has ended
            return
        else:
            return
