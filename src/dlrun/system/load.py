"""The load of the machine: processor, memory and GPUs, from files that cost nothing to read. No torch here."""

import os
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

GPU_EVERY = 5.0  # seconds between two questions to nvidia-smi, which takes up to half a second to answer
QUERY = ["nvidia-smi", "--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits"]


class MachineLoad:
    """The load since the last query. The GPUs are queried in the background."""

    def __init__(self) -> None:
        self.times: tuple[float, float] | None = None
        self.has_gpu, self.asked = shutil.which("nvidia-smi") is not None, 0.0
        self.process: subprocess.Popen[str] | None = None
        self.gpus: list[str] = []

    def text(self) -> str:
        """Return one line, such as "cpu 87% of 2 cores   memory 4.2 of 23.4 GB   gpu 0 95%, 10.1 of 80.0 GB"."""
        cores = os.cpu_count() or 1
        parts = [f"cpu {share:.0%} of {cores} cores"] if (share := self._busy()) is not None else []
        with suppress(OSError):
            parts.append(f"load {os.getloadavg()[0]:.1f}")
        parts += [memory] if (memory := _memory()) else []
        self._ask_gpus()
        return "   ".join(parts + self.gpus)

    def close(self) -> None:
        """End a query that is still running."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()

    def _busy(self) -> float | None:
        """Return the busy share of all cores since the last call; None the first time and on other systems."""
        try:
            fields = [float(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        except (OSError, ValueError):
            return None
        before, self.times = self.times, (sum(fields), fields[3] + fields[4])  # idle, and waiting for the disk
        if before is None or self.times[0] <= before[0]:
            return None
        return 1 - (self.times[1] - before[1]) / (self.times[0] - before[0])

    def _ask_gpus(self) -> None:
        if self.process is not None and self.process.poll() is not None:
            answer, self.process = self.process.communicate()[0], None
            self.gpus = [_gpu(line) for line in answer.splitlines() if line.count(",") == 3]
        if self.has_gpu and self.process is None and time.monotonic() - self.asked > GPU_EVERY:
            self.asked = time.monotonic()
            with suppress(OSError):
                self.process = subprocess.Popen(QUERY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _gpu(line: str) -> str:
    index, busy, used, total = (word.strip() for word in line.split(","))
    try:
        return f"gpu {index} {busy}%, {float(used) / 1024:.1f} of {float(total) / 1024:.1f} GB"
    except ValueError:  # some GPUs report [N/A]
        return f"gpu {index} {busy}%"


def _memory() -> str:
    """Return the memory in use, without what the system can free at once; "" on systems other than Linux."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
        used, total = sizes["MemTotal"] - sizes["MemAvailable"], sizes["MemTotal"]
    except (OSError, ValueError, KeyError, IndexError):
        return ""
    return f"memory {used / 2**20:.1f} of {total / 2**20:.1f} GB"
