"""A job's process: started so that it does not outlive the sweep, recognised again, and ended."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LOST = 255  # multiprocessing's exit code of a job whose forking process is no more: nobody knows how it ended
GRACE = 30.0  # seconds for a job to write its checkpoint when it is asked to stop


class Session(subprocess.Popen):
    """A process that leads a session of its own: what it has started is killed with it."""

    attempt = None  # it is no cluster's

    def has_begun(self) -> bool:
        return True

    def kill(self) -> None:
        kill(self.pid)


def start(command: list[str], log: Path, env: dict[str, str]) -> Session:
    """In a session of its own (the terminal's Ctrl-C reaches it once, through the sweep), its words in `log`."""
    log.parent.mkdir(exist_ok=True)
    with open(log, "ab") as words:
        return Session(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_dies_with_parent(),
        )


def _dies_with_parent() -> Callable[[], None] | None:
    """Linux tells the job when the sweep's process is gone, also by SIGKILL: it saves a checkpoint and ends."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # it was gone before that
            os._exit(143)
        hand_nice_on()

    return ask


def hand_nice_on() -> None:
    """A session is a scheduling group of its own on Linux: it gets this process's nice value."""
    with suppress(OSError), open("/proc/self/autogroup", "w") as group:
        group.write(str(os.nice(0)))


def born(pid: int) -> str | None:
    """When the process with this number started, in the system's own words: numbers are used again. None: no such."""
    try:
        if sys.platform == "linux":
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if fields[0] == "Z" else f"{boot} {fields[19]}"
        found = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return found.stdout.strip() or None
    except OSError:
        return None


def end(pid: int, began: str, grace: float = GRACE) -> None:
    """End a process that a sweep left behind, if it is still that one: asked first, and then by force."""
    deadline = time.monotonic() + grace
    if born(pid) != began:
        return
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    while born(pid) == began and time.monotonic() < deadline:
        time.sleep(0.05)
    kill(pid)
    while born(pid) == began:
        time.sleep(0.05)


def kill(pid: int) -> None:
    """The whole session that `start` made: what the job started goes with it."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def tail(log: Path, offset: int = 0, lines: int = 10) -> list[str]:
    """The last lines that were written behind `offset`."""
    try:
        with open(log, "rb") as file:
            file.seek(max(offset, log.stat().st_size - 20_000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def gpus(wanted: str | list) -> list[str]:
    """The GPUs to share out: those that are named, or that CUDA_VISIBLE_DEVICES or the driver names."""
    if wanted != "auto":
        return [str(gpu) for gpu in wanted]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu.strip() for gpu in visible.split(",") if gpu.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i, line in enumerate(filter(lambda line: line.startswith("GPU "), listed.stdout.splitlines()))]


def cpus() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
