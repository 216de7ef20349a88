"""The jobs of a sweep on a cluster, through submitit: hydra/launcher=submitit_slurm, or submitit_local to try it here.

The sweep's folder has to be on a disk that the machines share. A job is asked to stop by a file beside its log, which
works on any cluster; the process that submitit starts there gives it on.
"""

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from dlrun.errors import UserError
from dlrun.output.folders import within
from dlrun.sweep import process

EVERY = 0.5  # seconds between two looks at a job, or for its file
LAUNCHERS = {"LocalLauncher": "local", "SlurmLauncher": "slurm"}


@dataclass(frozen=True)
class Command:
    """What runs on the cluster's machine: a job's process, watched. Gives its exit code."""

    words: list[str]
    log: Path
    attempt: str

    def __call__(self) -> int:
        runs, stop = running_file(self.log, self.attempt), stop_file(self.log, self.attempt)
        runs.touch()  # before the look at the other: who asks it to stop looks at this one afterwards
        try:
            if stop.exists():
                return 128 + signal.SIGTERM
            child = process.start(self.words, self.log, dict(os.environ))
            asked = False
            while (code := child.poll()) is None:
                if not asked and (asked := stop.exists()):
                    child.terminate()
                time.sleep(EVERY)
            child.kill()  # what it left behind
            return code
        finally:
            runs.unlink(missing_ok=True)


class Submitted:
    """A job of the cluster, spoken to as to a process."""

    pid = None

    def __init__(self, job: object, log: Path, attempt: str) -> None:
        self.job, self.log, self.attempt, self.looked, self.code = job, log, attempt, 0.0, None

    def has_begun(self) -> bool:
        return running_file(self.log, self.attempt).exists()

    def poll(self) -> int | None:
        """Its exit code, None while it waits or runs. What the cluster ended counts as stopped: it can go on."""
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
    """Starts jobs by Hydra's submitit launcher. settings: its section of the config. folder: the sweep's.

    Raises UserError for other launchers, and where it is not installed.
    """

    def __init__(self, settings: dict[str, object], folder: Path) -> None:
        settings = dict(settings)
        kind = LAUNCHERS.get(str(settings.pop("_target_")).rpartition(".")[2])
        if kind is None:
            raise UserError(
                "hydra/launcher: this one is not for dl-run, whose jobs are processes of their own\n"
                "  expected submitit_slurm or submitit_local, or none and sweep.jobs=4 for several at once here"
            )
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf
        from submitit import AutoExecutor

        settings.pop("submitit_folder")
        once = {f"{kind}_{key}": settings.pop(key) for key in ("max_num_timeout",) if key in settings}
        # submitit reads a job's result as a pickle: from a folder whose name nobody can know before
        self.executor = AutoExecutor(folder=folder.resolve() / "submitit" / uuid4().hex / "%j", cluster=kind, **once)
        common = vars(BaseQueueConf())
        self.executor.update_parameters(**{k if k in common else f"{kind}_{k}": v for k, v in settings.items()})

    def start(self, words: list[str], log: Path, env: dict[str, str]) -> Submitted:
        """As process.start, but for env: the cluster has its own."""
        log.parent.mkdir(exist_ok=True)
        attempt = f"{log.stem}.{time.time_ns()}"
        return Submitted(self.executor.submit(Command(words, log.resolve(), attempt)), log, attempt)


def stop_file(log: Path, attempt: str) -> Path:
    return within(log.parent, f"{attempt}.stop")


def running_file(log: Path, attempt: str) -> Path:
    return within(log.parent, f"{attempt}.running")


def end(log: Path, attempt: str, patience: float) -> bool:
    """Ask a job that a sweep left on the cluster to end, now or when its turn comes; whether it has."""
    log.parent.mkdir(exist_ok=True)
    stop_file(log, attempt).touch()
    deadline = time.monotonic() + patience
    while running_file(log, attempt).exists() and time.monotonic() < deadline:
        time.sleep(EVERY)
    return not running_file(log, attempt).exists()
