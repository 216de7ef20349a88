"""Room for the jobs that run at the same time: CPU threads and GPUs."""

import os
from dataclasses import dataclass

from dlrun.errors import UserError
from dlrun.sweep import process
from dlrun.sweep.settings import Settings
from dlrun.system.cpus import cpus


@dataclass(frozen=True)
class Slots:
    """Room for `num` jobs: the CPU threads of each (None: the job decides), and each one's GPU if there are GPUs."""

    num: int
    threads: int | None
    gpus: list[str]

    @classmethod
    def of(cls, settings: Settings, device: str) -> "Slots":
        """Divide the machine among the jobs. Raises UserError if there are too few GPUs for them."""
        is_shared = settings.jobs > 1 or settings.gpus != "auto"  # a single job may use all GPUs
        gpus = process.gpus(settings.gpus) if device != "cpu" and is_shared else []
        room = len(gpus) * settings.jobs_per_gpu
        if gpus and settings.jobs > room:
            raise UserError(
                f"sweep.jobs={settings.jobs}: there is room for {room} with {len(gpus)} GPUs ({', '.join(gpus)}) and "
                f"sweep.jobs_per_gpu={settings.jobs_per_gpu}\n"
                f"  expected at most sweep.jobs={room}, or more on one GPU: "
                f"sweep.jobs_per_gpu={-(-settings.jobs // len(gpus))}"
            )
        share = max(1, cpus() // settings.jobs) if settings.jobs > 1 else None
        threads = settings.threads or (None if "OMP_NUM_THREADS" in os.environ else share)
        return cls(settings.jobs, threads, [gpus[i % len(gpus)] for i in range(settings.jobs)] if gpus else [])

    def env(self, slot: int, is_resumed: bool = False) -> dict[str, str]:
        """Return the environment of a job. A resumed run keeps its own number of threads."""
        env = dict(os.environ)
        env |= {"OMP_NUM_THREADS": str(self.threads)} if self.threads and not is_resumed else {}
        return env | ({"CUDA_VISIBLE_DEVICES": self.gpus[slot]} if self.gpus else {})
