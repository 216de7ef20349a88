"""The worker processes of A3C, each at the end of a pipe."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.util import Finalize
from typing import Any

import torch.multiprocessing

from dlrun.clock import Clock
from dlrun.errors import WorkerError
from dlrun.seeds import mix
from dlrun.system.python import safe_start


class WorkerPool:
    """Worker processes. They end when their pipes close, which happens at the latest when the main process ends.

    work: run in each worker with its end of the pipe; it receives `args` first.
    """

    def __init__(self, work: Callable[[Connection], None], workers: int, *args: object) -> None:
        self.pipes: list[Connection] = []
        Finalize(self, close, args=(self.pipes,), exitpriority=10)  # before multiprocessing joins them at exit
        try:
            self._start(work, workers, args)
        except EOFError:
            raise worker_lost() from None
        except OSError as error:
            raise WorkerError(
                f"A3C's worker processes could not start: {error}\n"
                "  expected room for temporary files and a short path to them, such as TMPDIR=/tmp dl-run model=a3c"
            ) from None

    def send(self, pipe: Connection, clock: Clock) -> None:
        """Start a worker's turn: send it the clock, for the schedule, with a seed for this worker alone."""
        pipe.send(replace(clock, seed=mix(clock.seed, self.pipes.index(pipe), 5), batch=0))

    def _start(self, work: Callable[[Connection], None], workers: int, args: tuple) -> None:
        # a fork of this process could copy locks that its threads hold; the fork server has no such threads
        has_forkserver = "forkserver" in torch.multiprocessing.get_all_start_methods()
        get_context = torch.multiprocessing.get_context
        context = get_context("forkserver") if has_forkserver else get_context("spawn")
        context.set_forkserver_preload(["dlrun.system.forkserver_preload", work.__module__])
        for _ in range(workers):
            mine, theirs = context.Pipe()
            self.pipes.append(mine)
            with safe_start():
                context.Process(target=work, args=(theirs,), daemon=True).start()
            theirs.close()
        for pipe in self.pipes:
            with suppress(ConnectionError):  # a dead worker is noticed when its report is due
                pipe.send(args)  # not with start(), which passes at most 256 open files: each tensor is one


def close(pipes: list[Connection]) -> None:
    for pipe in pipes:
        pipe.close()


def worker_lost() -> WorkerError:
    return WorkerError(
        "a worker process of A3C was killed, or could not start\n  expected all task.workers to live until the end"
    )


def receive(pipe: Connection) -> Any:
    """Wait for what a worker sends. Raises the worker's own error, or WorkerError if it died."""
    try:
        message = pipe.recv()
    except (EOFError, ConnectionError):
        raise worker_lost() from None
    if isinstance(message, Exception):
        raise message
    return message
