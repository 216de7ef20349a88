"""`trainer.processes=N`: the command again, in N processes that train together. torch's own launcher starts them."""

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from dlrun.errors import UserError
from dlrun.system.python import COMMAND

LAUNCHER = "DL_RUN_LAUNCHER"  # the process that waits for these
PER_CORE = 8  # processes: each needs some 300 MB
RESTART = "DL_RUN_RESTART"  # how often they were started again
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")  # handed on to them


def launch(arguments: list[str], processes: int, max_restarts: int) -> int:
    """Start them, wait, and give the exit code. Where one dies, all start again from the last checkpoint.

    A user's error (exit code 2) is not tried again: it would come again. What the first says is seen as it comes; what
    another says only where it was the one that failed. Raises UserError where they are more than PER_CORE for each
    core, or there is no room for temporary files.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processes > PER_CORE * cores:
        raise UserError(
            f"trainer.processes={processes}: this machine has {cores} core{'s' * (cores > 1)}\n"
            f"  expected at most {PER_CORE * cores} here; on several machines they are started by torchrun"
        )
    logging.disable(logging.ERROR)  # the processes speak for themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    os.environ[LAUNCHER] = str(os.getpid())
    for restart in range(max_restarts + 1):
        os.environ[RESTART] = str(restart)
        try:
            with TemporaryDirectory(prefix="dl-run-") as logs:
                code, is_final = _start_all(arguments, processes, Path(logs))
        except OSError as error:
            raise UserError(
                f"trainer.processes={processes}: cannot write the temporary files of the launcher: {error.strerror}\n"
                f"  expected room in {gettempdir()}: make some, or name another folder with TMPDIR=..."
            ) from None
        if is_final:
            break
    return code


def _start_all(arguments: list[str], processes: int, logs: Path) -> tuple[int, bool]:
    """The exit code, and whether another try would end alike."""
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=f"dl-run-{os.getpid()}-{os.environ[RESTART]}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,  # which cannot tell what failed
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=dict.fromkeys(range(1, processes), Std.ALL)),
        signals_to_handle=",".join(SIGNALS),
    )
    try:
        elastic_launch(config, sys.executable)(*COMMAND, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        first = error.failures.get(0)
        if rank and not (first and first.exitcode == failure.exitcode):  # else it has said the same
            tell(logs, rank)
        code = failure.exitcode
        return (128 - code, False) if code < 0 else (code, code == 2 or code > 128)
    except SignalException as error:
        return 128 + signal.Signals(error.sigval).value, True
    return 0, True


def tell(folder: Path, rank: int) -> None:
    """The last words of one that failed."""
    logs = sorted(folder.glob(f"*/attempt_*/{rank}/stderr.log"))
    if logs:
        sys.stderr.write(logs[-1].read_text(encoding="utf-8", errors="replace")[-4000:])


def follow_launcher() -> None:
    """Linux tells this process when the launcher is gone, also by SIGKILL: it saves a checkpoint and ends."""
    if sys.platform != "linux" or LAUNCHER not in os.environ:
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(os.environ[LAUNCHER]):  # it was gone before that
        os.kill(os.getpid(), signal.SIGTERM)
