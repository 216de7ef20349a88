"""`trainer.processes=N`: run the same command in N processes that train together, started by torch's launcher."""

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

from dlrun.errors import DependencyLost, UserError
from dlrun.system.cpus import cpus
from dlrun.system.python import COMMAND

LAUNCHER = "DL_RUN_LAUNCHER"  # environment variable: process id of the launcher
LOST = 75  # exit code (EX_TEMPFAIL) of a launched process that lost a peer, an environment or its device
PER_CORE = 8  # most processes for each core; each needs some 300 MB
RESTART = "DL_RUN_RESTART"  # environment variable: number of restarts so far
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2")  # passed on to the processes


def launch(arguments: list[str], processes: int, max_restarts: int) -> tuple[int, str | None]:
    """Start the processes, wait; return their exit code and the error. If one dies, restart from the last checkpoint.

    Errors that would recur are not retried: those of the user (exit code 2) and of their code (1). Rank 0 prints
    directly; the errors of another rank are printed only if it failed. Raises UserError if there
    are more than PER_CORE processes for each core, or if temporary files cannot be written.
    """
    cores = cpus()
    if processes > PER_CORE * cores:
        raise UserError(
            f"trainer.processes={processes}: this machine has {cores} core{'s' * (cores > 1)}\n"
            f"  expected at most {PER_CORE * cores} here; use torchrun to train on several machines"
        )
    logging.disable(logging.ERROR)  # the processes print their own errors
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    os.environ[LAUNCHER] = str(os.getpid())
    for restart in range(max_restarts + 1):
        os.environ[RESTART] = str(restart)
        try:
            with TemporaryDirectory(prefix="dl-run-") as logs:
                code, is_final, why = _start_all(arguments, processes, Path(logs))
        except OSError as error:
            raise UserError(
                f"trainer.processes={processes}: cannot write the temporary files of the launcher: {error.strerror}\n"
                f"  expected free space in {gettempdir()}: make room, or set TMPDIR to another folder"
            ) from None
        if is_final:
            break
    return code, why


def _start_all(arguments: list[str], processes: int, logs: Path) -> tuple[int, bool, str | None]:
    """Run the processes once. Returns the exit code, whether a restart would be useless, and the first error."""
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
        max_restarts=0,  # torch's own restarts follow any exit code; `launch` restarts instead
        logs_specs=DefaultLogsSpecs(log_dir=str(logs), redirects=dict.fromkeys(range(1, processes), Std.ALL)),
        signals_to_handle=",".join(SIGNALS),
    )
    try:
        elastic_launch(config, sys.executable)(*COMMAND, *arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        first = error.failures.get(0)
        if rank and not (first and first.exitcode == failure.exitcode):  # else rank 0 has printed the same error
            print_errors(logs, rank)
        code = failure.exitcode
        is_final = any(failure.exitcode > 0 and failure.exitcode != LOST for failure in error.failures.values())
        why = failure.error_file_data.get("message") or f"process {rank} ended with exit code {code}"
        return (128 - code if code < 0 else 1 if code == LOST else code), is_final, str(why)
    except SignalException as error:
        return 128 + signal.Signals(error.sigval).value, True, None
    return 0, True, None


def exit_code(error: Exception) -> int:
    """The exit code for an error that ends this process: LOST if the launcher is to start it again."""
    torch = sys.modules.get("torch")
    is_lost = isinstance(error, DependencyLost) or bool(torch and isinstance(error, torch.AcceleratorError))
    return LOST if is_lost and LAUNCHER in os.environ else getattr(error, "exit_code", 1)


def print_errors(folder: Path, rank: int) -> None:
    """Copy the end of a failed process's standard error to this one's."""
    logs = sorted(folder.glob(f"*/attempt_*/{rank}/stderr.log"))
    if logs:
        sys.stderr.write(logs[-1].read_text(encoding="utf-8", errors="replace")[-4000:])


def follow_launcher() -> None:
    """On Linux, have the kernel send SIGTERM if the launcher dies, even by SIGKILL: the run saves and stops."""
    if sys.platform != "linux" or LAUNCHER not in os.environ:
        return
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
    if os.getppid() != int(os.environ[LAUNCHER]):  # it died before the call above
        os.kill(os.getpid(), signal.SIGTERM)
