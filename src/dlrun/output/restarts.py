"""Restarts: if a process of a run dies, the next one finds the run's folder in a note and resumes it."""

import os
import socket
from contextlib import suppress
from pathlib import Path

from dlrun.output.written import write_whole
from dlrun.paths import read_whole

RESUMED_FROM = ("last", "incoming", "previous")  # names of checkpoints, the first choice first


def restarts() -> int:
    """Number of times that the processes of this run were restarted after one died, by `launch` or by torchrun."""
    return max(int(os.environ.get(name) or 0) for name in ("DL_RUN_RESTART", "TORCHELASTIC_RESTART_COUNT"))


def note_start(base: Path, folder: Path) -> None:
    """Note the run's folder for processes that torchrun or `launch` starts after a failure (see `died_before`).

    Removes notes of launchers that no longer exist: one that was killed, or torchrun, leaves its note behind.
    """
    if "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return
    for path in base.glob(f".torchrun-{socket.gethostname()}-*"):
        pid = path.name.rpartition("-")[2]
        if os.name == "posix" and pid.isdecimal() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)
    write_whole(_note(base, os.getppid()), f"{folder.resolve()}")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's process, or not a valid process number
        pass
    return True


def has_checkpoint(run: Path) -> bool:
    """Whether a run's folder has a checkpoint to resume from."""
    return any(os.path.exists(run / "checkpoints" / f"{name}.ckpt") for name in RESUMED_FROM)


def died_before(base: Path) -> Path | None:
    """The run's folder that a restarted process must resume; None for a first start or without a checkpoint."""
    if not restarts():
        return None
    folder = noted(base, os.getppid())
    return folder if folder and has_checkpoint(folder) else None


def noted(base: Path, launcher: int) -> Path | None:
    """The folder of the run that a launcher started first. launcher: its process id."""
    try:
        return Path(read_whole(_note(base, launcher)).decode())
    except (OSError, ValueError):
        return None


def forget_start(base: Path) -> None:
    """Remove the note that `note_start` wrote; the launcher calls this when it ends."""
    with suppress(OSError):
        _note(base, os.getpid()).unlink()


def _note(base: Path, launcher: int) -> Path:
    return base / f".torchrun-{socket.gethostname()}-{launcher}"
