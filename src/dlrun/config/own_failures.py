"""Errors that the user's own code raises, as user errors with the place in that code. No torch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from traceback import format_exception, walk_tb

from dlrun.config.signatures import is_allowed
from dlrun.errors import UserError, described, printable_cell
from dlrun.output.terminal import is_of_disk


@contextmanager
def own_failures(log: Path | None = None) -> Iterator[None]:
    """Turn an exception that passed through code which a config may name into a UserError with its file and line.

    log: a file to which the whole traceback is appended.
    """
    try:
        yield
    except (Exception, SystemExit) as error:
        frames = [(frame, line) for frame, line in walk_tb(error.__traceback__) if _is_own(frame.f_globals)]
        if not frames or _is_of_machine(error):
            raise
        frame, line = frames[-1]
        if log:
            with suppress(OSError), open(log, "a", encoding="utf-8", errors="backslashreplace") as file:
                file.write("".join(format_exception(error)))
        name = f"{frame.f_globals['__name__']}.{getattr(frame.f_code, 'co_qualname', frame.f_code.co_name)}"
        where = printable_cell(f"{frame.f_code.co_filename}, line {line}")
        more = f"\n  the whole traceback is in {log}" if log else ""
        raise UserError(f"{name} raised {described(error)} ({where}){more}") from error


def _is_own(module: dict[str, object]) -> bool:
    name = module.get("__name__")
    return isinstance(name, str) and not name.startswith(("dlrun.", "torch.")) and is_allowed(name)


def _is_of_machine(error: BaseException) -> bool:
    """Whether it has a report of its own: a user error, a lack of memory or room, a device that failed."""
    torch = sys.modules.get("torch")
    is_device = bool(torch and isinstance(error, torch.AcceleratorError | torch.OutOfMemoryError))
    return isinstance(error, UserError | MemoryError) or is_of_disk(error) or is_device
