"""A file that appears under its own name when it is whole, or not at all. No torch here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlrun.errors import UserError


@contextmanager
def whole(path: Path, suffix: str | None = None) -> Iterator[Path]:
    """Gives a name beside `path` to write to; what is written takes the place of `path` at the end of the block.

    suffix: of that name, for writers that want a certain one; None: the path's own. Nothing is left where the block
    raises. Raises UserError where it cannot be written.
    """
    if os.path.isdir(path):
        raise UserError(f"cannot write {path}: it is a folder\n  expected the name of a file")
    temporary = path.with_name(
        f".part-{os.getpid()}{path.suffix if suffix is None else suffix}"
    )  # short: the name may be as long as names can be
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot write {path}: {why}\n  expected a file that can be written") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
