"""A lock between processes, so that only one downloads, unpacks or writes a file."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlrun.errors import DataError


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Lock `path` against other processes. Makes its folder; raises DataError if that cannot be written to."""
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
        # Removed only after success, when any process that gets a stale or a new lock finds the work done.
        with suppress(OSError):
            beside.unlink()


def unwritable(folder: Path, error: OSError) -> DataError:
    """Return the error for a data folder that cannot be written to."""
    return DataError(
        f"cannot write to the data folder {folder}: {error.strerror or error}\n"
        "  expected a folder that this user may write to, with free space on its disk\n"
        "  choose another with DL_RUN_DATA_DIR in the environment, or data_dir=FOLDER on the command line"
    )
