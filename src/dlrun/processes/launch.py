"""`trainer.processes=N`: the command again, in N processes that train together. torch's own launcher starts them."""

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from dlrun.errors import UserError
from dlrun.processes.python import COMMAND

LAUNCHER = "DL_RUN_LAUNCHER"  # the process that waits for these
PER_CORE = 8  # processes: each needs some 300 MB


def launch(arguments: list[str], processes: int, max_restarts: int) -> int:
    """Start them, wait, and give the exit code. Where one dies, all start again from the last checkpoint.

    What the first says is seen as it comes; what another says only where it was the one that failed. Raises UserError
    where they are more than PER_CORE for each core.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if processes > PER_CORE * cores:
        raise UserError(
            f"trainer.processes={processes}: this machine has {cores} core{'s' * (cores > 1)}\n"
            f"  expected at most {PER_CORE * cores} here; on several machines they are started by torchrun"
        )
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException, Std
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    logging.disable(logging.ERROR)  # the processes speak for themselves
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // processes)))
    os.environ[LAUNCHER] = str(os.getpid())
    with TemporaryDirectory(prefix="dl-run-") as said:
        others = dict.fromkeys(range(1, processes), Std.ALL)
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=f"dl-run-{os.getpid()}",
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=max_restarts,
            logs_specs=DefaultLogsSpecs(log_dir=said, redirects=others),
        )
        try:
            elastic_launch(config, sys.executable)(*COMMAND, *arguments)
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            first = error.failures.get(0)
            if rank and not (first and first.exitcode == failure.exitcode):  # else it has said the same
                tell(Path(said), rank)
            return 128 - failure.exitcode if failure.exitcode < 0 else failure.exitcode
        except SignalException as error:
            return 128 + signal.Signals(error.sigval).value
    return 0


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
