"""Run a sweep's jobs on a cluster through submitit: hydra/launcher=submitit_slurm, or submitit_local for this machine.

The machines must share the disk of the sweep's folder. To stop a job, the sweep writes a file beside its log, which
works on any cluster; the process that submitit starts there forwards the request.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from dlrun.errors import UserError
from dlrun.output.folders import within
from dlrun.sweep import process

if TYPE_CHECKING:
    import submitit

EVERY = 0.5  # seconds between two checks of a job or of its file
LAUNCHERS = {"LocalLauncher": "local", "SlurmLauncher": "slurm"}


@dataclass(frozen=True)
class Command:
    """Runs on the cluster's machine: starts a job's process, watches it and returns its exit code."""

    words: list[str]
    log: Path
    attempt: str

    def __call__(self) -> int:
        runs, stop = running_file(self.log, self.attempt), stop_file(self.log, self.attempt)
        runs.touch()  # before the check for `stop`, because `end` creates `stop` before it checks for `runs`
        try:
            if stop.exists():
                return 128 + signal.SIGTERM
            child = process.start(self.words, self.log, dict(os.environ))
            asked = False
            while (code := child.poll()) is None:
                if not asked and (asked := stop.exists()):
                    child.terminate()
                time.sleep(EVERY)
            child.kill()  # ends what the job left running
            return code
        finally:
            runs.unlink(missing_ok=True)


class Submitted:
    """A job on the cluster, with the interface of a process."""

    pid = None

    def __init__(self, job: "submitit.Job", log: Path, attempt: str) -> None:
        self.job, self.log, self.attempt, self.looked = job, log, attempt, 0.0
        self.code: int | None = None

    def has_begun(self) -> bool:
        """Whether the job has left the queue and runs."""
        return running_file(self.log, self.attempt).exists()

    def poll(self) -> int | None:
        """Return the exit code, or None while the job waits or runs. A job ended by the cluster counts as stopped."""
        if self.code is None and time.monotonic() - self.looked > EVERY:
            self.looked = time.monotonic()
            if self.job.done():
                self.code = self._result()
        return self.code

    def _result(self) -> int:
        from submitit.core.utils import UncompletedJobError

        try:
            return self.job.result()
        except UncompletedJobError:
            return 128 + signal.SIGTERM

    def send_signal(self, number: int) -> None:
        """Ask the job to stop. The number is ignored; a job that waits in the queue is cancelled."""
        stop_file(self.log, self.attempt).touch()
        if self.job.state == "PENDING":
            self.kill()

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        with suppress(OSError, RuntimeError):
            if not self.job.done():
                self.job.cancel(check=False)


class Cluster:
    """Starts jobs with Hydra's submitit launcher. settings: the launcher's section of the config. folder: the sweep's.

    Raises UserError for other launchers.
    """

    def __init__(self, settings: dict[str, object], folder: Path) -> None:
        settings = dict(settings)
        kind = LAUNCHERS.get(str(settings.pop("_target_")).rpartition(".")[2])
        if kind is None:
            raise UserError(
                "hydra/launcher: dl-run does not support this launcher, because its jobs are separate processes\n"
                "  expected submitit_slurm or submitit_local, or no launcher and sweep.jobs=4 for several jobs here"
            )
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
        from submitit import AutoExecutor

        settings.pop("submitit_folder")
        once = {f"{kind}_{key}": settings.pop(key) for key in ("max_num_timeout",) if key in settings}
        # submitit reads results as pickles, so they are in a folder whose name nobody can predict
        self.executor = AutoExecutor(folder=folder.resolve() / "submitit" / uuid4().hex / "%j", cluster=kind, **once)
        common = vars(BaseQueueConf())
        self.executor.update_parameters(**{k if k in common else f"{kind}_{k}": v for k, v in settings.items()})

    def start(self, words: list[str], log: Path, env: dict[str, str]) -> Submitted:
        """Submit a job. Same as process.start, except that env is ignored: the cluster has its own environment."""
        log.parent.mkdir(exist_ok=True)
        attempt = f"{log.stem}.{time.time_ns()}"
        return Submitted(self.executor.submit(Command(words, log.resolve(), attempt)), log, attempt)


def stop_file(log: Path, attempt: str) -> Path:
    """Return the file that asks a job to stop."""
    return within(log.parent, f"{attempt}.stop")


def running_file(log: Path, attempt: str) -> Path:
    """Return the file that exists while a job runs."""
    return within(log.parent, f"{attempt}.running")


def end(log: Path, attempt: str, patience: float) -> bool:
    """Ask a job that a sweep left on the cluster to end, now or when it starts. Returns whether it is not running.

    patience: seconds to wait for its end.
    """
    log.parent.mkdir(exist_ok=True)
    stop_file(log, attempt).touch()
    deadline = time.monotonic() + patience
    while running_file(log, attempt).exists() and time.monotonic() < deadline:
        time.sleep(EVERY)
    return not running_file(log, attempt).exists()
