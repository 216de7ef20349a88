"""A sweep's jobs as forks of one process that has imported torch: most of a small job's time is imports.

That process is multiprocessing's forkserver. It only imports: no thread of it can hold a lock when it forks, and it has
not touched a GPU. A job is a process of its own, as in process.py: its own session, environment, log and exit code.
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
from pathlib import Path

from dlrun.sweep import process
from dlrun.system.python import COMMAND, safe_start
from dlrun.system.signals import ASKING

IMPORTED = [  # by that process: what every job needs
    "dlrun.system.nursery", "dlrun.train.session", "dlrun.tasks.supervised", "dlrun.cli", "torch.utils.tensorboard",
    "matplotlib.backends.backend_agg", "matplotlib.figure",
]  # fmt: skip


def prepare() -> Callable[[list[str], Path, dict[str, str]], object]:
    """Begin to import, beside whatever this process does until its first job. Gives what starts a job."""
    if sys.platform != "linux":  # macOS has libraries that no fork survives, Windows has no forks
        return process.start
    multiprocessing.set_forkserver_preload(IMPORTED)
    try:
        with safe_start():
            multiprocessing.forkserver.ensure_running()
    except OSError:  # there is no room for its socket, or the path to it (TMPDIR) is too long for one
        return process.start
    return start


class Forked:
    """A job's process, spoken to as to process.Session. command: Python, COMMAND and arguments."""

    attempt = None  # it is no cluster's

    def __init__(self, command: list[str], log: Path, env: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        go, tell = context.Pipe(duplex=False)
        with go, tell:
            self.process = context.Process(target=_job, args=(go, command[len(COMMAND) :], log, env, os.getcwd()))
            self.process.start()
            self.pid = self.process.pid
            self.born = process.born(self.pid)
            tell.send(None)

    def has_begun(self) -> bool:
        return True

    def poll(self) -> int | None:
        """The exit code, -N after signal N, process.LOST where nobody knows; None while it runs."""
        code = self.process.exitcode
        outlives_its_parent = code == process.LOST and process.born(self.pid) == self.born is not None
        return None if outlives_its_parent else code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """With all that it has started."""
        self.send_signal(signal.SIGKILL)  # in its first moment it does not lead a session yet
        process.kill(self.pid)


def start(command: list[str], log: Path, env: dict[str, str]) -> Forked | process.Session:
    """As process.start, by a fork; where that fails, without."""
    log.parent.mkdir(exist_ok=True)
    try:
        return Forked(command, log, env)
    except (EOFError, OSError):
        return process.start(command, log, env)


def _job(go: Connection, command: list[str], log: Path, env: dict[str, str], folder: str) -> None:
    """Makes the fork what `python -m MODULE ARGUMENTS > LOG 2>&1 < /dev/null` is, in a session of its own.

    go: where it hears that the sweep knows its number. If not, the forking process has died: the sweep starts another.
    """
    try:
        go.recv()
    except EOFError:
        return
    go.close()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # multiprocessing would make a failure of it
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
    os.setsid()
    process.hand_nice_on()
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    for descriptor, path, how in ((0, os.devnull, os.O_RDONLY), (1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)):
        opened = os.open(path, how, 0o666)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.dup2(1, 2)
    multiprocessing.set_start_method(None, force=True)  # the default: what it starts is no concern of the sweep's
    os.environ.clear()
    os.environ.update(env)
    os.chdir(folder)
    sys.argv = list(command)
    import torch

    threads = env.get("OMP_NUM_THREADS", "").partition(",")[0]
    if threads.isdecimal() and int(threads):
        torch.set_num_threads(int(threads))  # the variable was read when torch was imported
    sys.modules.pop(f"{command[0]}.__main__", None)  # the sweep's own, imported from its script: runpy would warn
    atexit.unregister(shutil.rmtree)  # matplotlib's, where there is no home to write to: all jobs share that folder
    try:
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _end_with_the_sweep() -> None:
    """The sweep's process is gone, also by SIGKILL: the job saves a checkpoint and ends."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
