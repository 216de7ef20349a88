"""One process at a time fetches or unpacks."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlrun.errors import DataError


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` against other processes; makes its folder, and says so plainly where that cannot be written."""
    import tempfile

    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable(path.parent, error) from None
    beside = path.with_name(path.name + ".lock")
    with FileLock(beside):
        yield
        # Only after success, when whoever gets a stale or a new lock finds the work done: removing is no race then.
        with suppress(OSError):
            beside.unlink()


def unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write to the data folder {folder}: {error.strerror or error}\n"
        "  expected a folder that this user may write to, with room on its disk\n"
        "  choose another with DL_RUN_DATA_DIR in the environment, or data_dir=FOLDER on the command line"
    )
