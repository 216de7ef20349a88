"""Start a sweep's jobs as forks of one process that has imported torch, since imports take most of a small job's time.

That process is multiprocessing's forkserver. It only imports, so no thread holds a lock when it forks, and it has not
touched a GPU. As in process.py, each job is a process with its own session, environment, log and exit code.
"""

import atexit
import multiprocessing.forkserver
import os
import runpy
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import cast

from dlrun.sweep import process
from dlrun.system.cpus import copy_nice
from dlrun.system.python import COMMAND, safe_start
from dlrun.system.signals import STOPPING

IMPORTED = [  # by the forkserver: needed by every job
    "dlrun.system.forkserver_preload", "dlrun.train.session", "dlrun.stack.run",
    "dlrun.tasks.supervised", "dlrun.cli",
    "matplotlib.backends.backend_agg", "matplotlib.figure",
]  # fmt: skip


def prepare() -> Callable[[list[str], Path, dict[str, str]], "Forked | process.SessionLeader"]:
    """Start the imports, which run in parallel with this process, and return the function that starts a job."""
    if sys.platform != "linux":  # macOS libraries do not survive forks, and Windows has none
        return process.start
    multiprocessing.set_forkserver_preload(IMPORTED)
    try:
        with safe_start():
            multiprocessing.forkserver.ensure_running()
    except OSError:  # no room for the server's socket, or its path (TMPDIR) is too long
        return process.start
    return start


class Forked:
    """A forked job with the interface of process.SessionLeader. command: Python, COMMAND and arguments."""

    attempt = None  # not on a cluster

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        go, start = context.Pipe(duplex=False)
        with go, start:
            self.process = context.Process(target=_job, args=(go, command[len(COMMAND) :], log, env, os.getcwd()))
            self.process.start()
            self.pid = cast(int, self.process.pid)  # it was started
            self.born = process.born(self.pid)
            start.send(None)

    def has_begun(self) -> bool:
        return True

    def poll(self) -> int | None:
        """Return the exit code, -N after signal N, process.LOST if it is unknown, or None while the job runs."""
        code = self.process.exitcode
        outlives_its_parent = code == process.LOST and process.born(self.pid) == self.born is not None
        return None if outlives_its_parent else code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the job and all processes that it started."""
        self.send_signal(signal.SIGKILL)  # a very new job does not lead a session yet
        process.kill(self.pid)


def start(command: list[str], log: Path, env: dict[str, str]) -> Forked | process.SessionLeader:
    """Start a job as process.start does, but by a fork. If forking fails, use process.start."""
    log.parent.mkdir(exist_ok=True)
    try:
        return Forked(command, log, env)
    except (EOFError, OSError):
        return process.start(command, log, env)


def _job(go: Connection, command: list[str], log: Path, env: dict[str, str], folder: str) -> None:
    """Run `python -m MODULE ARGUMENTS > LOG 2>&1 < /dev/null` in the fork, in a new session.

    go: receives a message once the sweep knows the process id. If it closes before, the forkserver has died and the
    sweep starts the job again.
    """
    try:
        go.recv()
    except EOFError:
        return
    go.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # multiprocessing would report it as a failure
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    os.setsid()
    copy_nice()
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    for descriptor, path, how in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
        opened = os.open(path, how, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    multiprocessing.set_start_method(None, force=True)  # the default, for processes that the job starts
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = list(command)
    import torch

    threads = env.get("OMP_NUM_THREADS", "").partition(",")[0]
    if threads.isdecimal() and int(threads):
        torch.set_num_threads(int(threads))  # torch has read the variable when it was imported
    sys.modules.pop(f"{command[0]}.__main__", None)  # the sweep's module, about which runpy would warn
    atexit.unregister(shutil.rmtree)  # matplotlib's temporary folder (without a writable home) is shared by all jobs
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing does not run them


def _end_with_the_sweep() -> None:
    """Send SIGTERM to this job when the sweep's process ends, even by SIGKILL, so that it saves a checkpoint."""
    cast(BaseProcess, multiprocessing.parent_process()).join()  # a fork has one
    os.kill(os.getpid(), signal.SIGTERM)
