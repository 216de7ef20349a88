"""Time the product of a random row [1, n] with a random column [n, 1] on the processor and on a GPU, over n.

Source: the book, section 1.5.3, figure 1.21: ten calls to warm up, then ten that are timed.
Deviation: the median of the ten, which another program on the machine hardly moves, where the book has the mean.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import SampleData
from dlrun.errors import UserError
from dlrun.models.product import Product
from dlrun.output.report import Report
from dlrun.output.surfaces import race
from dlrun.spec import Function
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, SampleTask

CALLS = 10


class Times:
    """Milliseconds by size: a row for each step, with n and the time on each device."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def state_dict(self) -> dict[str, list[list[float]]]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, list[list[float]]]) -> None:
        self.rows = [list(row) for row in state["rows"]]


class Race(SampleTask):
    """Measures a size in each step. Nothing learns.

    The sizes go in equal factors from the range's low to its high end. The processor always runs; the run's device
    (trainer.device) runs beside it if it is another one.
    """

    compiled = ()

    def __init__(self, net: Product, spec: Function, device: Device) -> None:
        if spec.features != 1 or not spec.low[0] >= 1:
            raise UserError(
                f"task=race multiplies vectors of n numbers, and the data is {spec} from {spec.low[0]:g} on\n"
                "  expected data=products"
            )
        super().__init__(net, device)
        self.spec, self.times = spec, Times()
        self.components["times"] = self.times
        self.devices = list(dict.fromkeys((torch.device("cpu"), device.torch_device)))
        self.scores = {f"{each.type}_ms": "min" for each in self.devices}

    def step(self, batch: tuple[Tensor, Tensor], clock: Clock) -> Metrics:
        share = clock.batch / max(1, clock.steps_per_epoch - 1)
        n = round(self.spec.low[0] * (self.spec.high[0] / self.spec.low[0]) ** share)
        row, column = torch.randn(1, n), torch.randn(n, 1)
        times = [milliseconds(self.net, row.to(each), column.to(each)) for each in self.devices]
        self.times.rows.append([n, *times])
        return {name: torch.tensor(value) for name, value in zip(self.scores, times, strict=True)}

    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        """The times at the last size."""
        return dict(zip(self.scores, self.times.rows[-1][1:], strict=True))

    def report(self, data: SampleData) -> Report:
        names = ["n", *self.scores]
        rows = self.times.rows
        times = [dict(zip(names, row, strict=True)) for row in rows]
        table = [names, *([f"{row[0]:.0f}", *(f"{time:.4g}" for time in row[1:])] for row in rows)]
        return Report({"race": partial(race, names[1:], rows)}, numbers={"times": times}, table=table)


@torch.no_grad()
def milliseconds(run: Callable[[Tensor, Tensor], Tensor], row: Tensor, column: Tensor) -> float:
    """The median time of a call, after as many calls to warm up; on a GPU until it has finished."""
    times = []
    for _ in range(2 * CALLS):
        wait(row.device)
        start = time.perf_counter()
        run(row, column)
        wait(row.device)
        times.append((time.perf_counter() - start) * 1000)
    return median(times[CALLS:])


def wait(device: torch.device) -> None:
    """Wait until a GPU has done what was queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
