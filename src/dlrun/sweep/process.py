"""A job's process: start it so that it does not outlive the sweep, identify it later, and end it."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dlrun.paths import open_plain
from dlrun.system.cpus import copy_nice

LOST = 255  # multiprocessing's exit code of a job whose forkserver is gone, so that its end is unknown
GRACE = 30.0  # seconds in which a job that is asked to stop can write its checkpoint


class SessionLeader(subprocess.Popen):
    """A process that leads its own session, so that the processes it started are killed with it."""

    attempt = None  # not on a cluster

    def has_begun(self) -> bool:
        return True

    def kill(self) -> None:
        kill(self.pid)


def start(command: list[str], log: Path, env: dict[str, str]) -> SessionLeader:
    """Start a job in its own session, so that Ctrl-C reaches it only through the sweep. Its output goes to `log`."""
    log.parent.mkdir(exist_ok=True)
    with open(log, "ab") as output:
        return SessionLeader(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_dies_with_parent(),
        )


def _dies_with_parent() -> Callable[[], None] | None:
    """Make Linux send SIGTERM to the job when the sweep's process ends, even by SIGKILL: it saves a checkpoint."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:  # the sweep ended before the request
            os._exit(143)
        copy_nice()

    return ask


def born(pid: int) -> str | None:
    """Return the start time of a process as the system writes it, since ids are reused. None if there is none."""
    try:
        if sys.platform == "linux":
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            return None if fields[0] == "Z" else f"{boot} {fields[19]}"
        listed = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
        return listed.stdout.strip() or None
    except OSError:
        return None


def end(pid: int, began: str, grace: float = GRACE) -> None:
    """End a process that a sweep left running, if its start time matches: SIGTERM, after `grace` seconds SIGKILL."""
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


def memory_kills() -> int | None:
    """How many processes the kernel has killed for lack of memory since it started, in all cgroups; None if unknown."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), None)


def kill(pid: int) -> None:
    """Kill the whole session that `start` created, including processes that the job started."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def tail(log: Path, offset: int = 0, lines: int = 10) -> list[str]:
    """Return the last lines after byte `offset`."""
    try:
        with open_plain(log) as file:
            file.seek(max(offset, log.stat().st_size - 20_000))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]


def gpus(wanted: str | list) -> list[str]:
    """Return the GPUs for the jobs: the wanted ones, or for "auto" those of CUDA_VISIBLE_DEVICES or the driver."""
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
