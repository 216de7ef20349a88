"""Write a file whole or not at all. No torch here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dlrun.errors import UserError
from dlrun.paths import irregular


@contextmanager
def whole(path: Path, suffix: str | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path`; at the end of the block the file there replaces `path`.

    suffix: of the temporary path, for writers that need a certain one; None: that of `path`. If the block raises, the
    temporary file is removed. Raises UserError if the file cannot be written. A link stays; its target is replaced.
    """
    if os.path.exists(path) and (kind := irregular(path)):  # root could replace /dev/null
        raise UserError(f"cannot write {path}: it is {kind}\n  expected a file name")
    target = Path(os.path.realpath(path))
    temporary = target.with_name(
        f".part-{os.getpid()}{path.suffix if suffix is None else suffix}"
    )  # short: the name may be as long as names can be
    try:
        yield temporary
        os.replace(temporary, target)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot write {path}: {reason}\n  expected a writable path") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
