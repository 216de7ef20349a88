"""Start Python processes that import nothing from the working folder, which may be untrusted."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

IS_OLD = sys.version_info < (3, 11)  # Python 3.10 has neither -P nor PYTHONSAFEPATH
SAFE = "import sys; sys.path[:] = [path for path in sys.path if path]; "  # goes before code for -c
OLD = SAFE + "del sys.argv[1]; from dlrun.__main__ import main; main()"
# arguments of the Python interpreter that run dl-run
COMMAND = ["-c", OLD, "dlrun"] if IS_OLD else ["-P", "-m", "dlrun"]


def protect_children() -> None:
    """Protect all processes that this one will start, also through libraries (multiprocessing, torch)."""
    os.environ["PYTHONSAFEPATH"] = "1"


@contextmanager
def safe_start() -> Iterator[None]:
    """Protect a process that multiprocessing starts within this context: it passes on the working folder's path."""
    here = os.getcwd()
    if IS_OLD:
        os.chdir(os.sep)
    try:
        yield
    finally:
        os.chdir(here)
