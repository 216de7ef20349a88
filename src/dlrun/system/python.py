"""Python in the processes that dl-run starts: none imports what is in the working folder, which may be a stranger's."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

IS_OLD = sys.version_info < (3, 11)  # Python 3.10 knows neither -P nor PYTHONSAFEPATH
SAFE = "import sys; sys.path[:] = [path for path in sys.path if path]; "  # in front of code for -c
OLD = SAFE + "del sys.argv[1]; from dlrun.__main__ import main; main()"
COMMAND = ["-c", OLD, "dlrun"] if IS_OLD else ["-P", "-m", "dlrun"]


def protect_children() -> None:
    """For all that this process will start, also through libraries: multiprocessing, torch."""
    os.environ["PYTHONSAFEPATH"] = "1"


@contextmanager
def safe_start() -> Iterator[None]:
    """Around what starts a process of multiprocessing, which is given the working folder by name."""
    here = os.getcwd()
    if IS_OLD:
        os.chdir(os.sep)
    try:
        yield
    finally:
        os.chdir(here)
