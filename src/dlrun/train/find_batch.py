"""mode=find_batch: the largest batch whose training step fits into memory, and the speed of each size.

Sizes are doubled until one does not fit. A GPU raises an error; on a CPU the system would kill the process, so
there the memory of the next size is extrapolated from the last two and compared with the free memory.

Times vary between steps, as the machine has other work, and only upwards. So the speed of a size is that of its fastest
step, and all sizes are measured again in turns until each has had SHARE seconds: runs then agree on the answer.
"""

import time
from typing import NamedTuple

import torch

from dlrun.data.base import SampleData
from dlrun.data.images.streamed import free_memory
from dlrun.errors import UserError
from dlrun.output.console import table
from dlrun.output.failures import within_memory
from dlrun.output.json_line import ENDING
from dlrun.system.machine import peak_memory
from dlrun.train.session import Session
from dlrun.train.trial import batches, require_samples

FIRST, STEPS = 16, 4  # the smallest size; the steps of each turn, of which the first is not timed
SHARE = 0.5  # seconds of steps for each size, in turns of STEPS
LEFT = 0.1  # share of the memory that stays free
PATIENCE = 20.0  # seconds for one size; larger ones are then extrapolated


class Size(NamedTuple):
    """A batch size that fits. samples_per_second: of its fastest step. memory: the process's peak, in MB."""

    batch: int
    samples_per_second: float
    memory: float


def find_batch(config: dict, names: dict[str, str], chosen: list[str]) -> str:
    """Measure and return the text to print. Raises UserError if not even the smallest batch fits."""
    session = Session(config, names, chosen)
    data = require_samples(session, "find_batch")
    device, most = session.device.torch_device, data.size("train")
    where = "device" if device.type == "cuda" else "host"
    room = free_memory(device) / 2**20 + peak_memory(device)[where]
    sizes: list[Size] = []
    batch, fails, is_slow = min(FIRST, most), most + 1, False
    while batch < fails and not is_slow:
        if where == "host" and expected(sizes, batch) > (1 - LEFT) * room:
            fails = batch
            break
        began = time.monotonic()
        try:
            with within_memory():
                sizes.append(measure(session, data, batch, where))
        except UserError:
            if not sizes:
                raise
            fails = batch
            torch.cuda.empty_cache()
            break
        is_slow = time.monotonic() - began > PATIENCE
        batch = min(2 * batch, most) if batch < most else fails
    while where == "device" and not is_slow and fails <= most and fails > 1.1 * sizes[-1].batch:
        middle = (sizes[-1].batch + fails) // 2  # between the last that fits and the first that does not
        try:
            with within_memory():
                sizes.append(measure(session, data, middle, where))
        except UserError:
            fails = middle
            torch.cuda.empty_cache()
    return described(settled(sizes, session, data, where), names, most, room)


def settled(sizes: list[Size], session: Session, data: SampleData, where: str) -> list[Size]:
    """Measure the sizes again, in turns. Their memory is that of the first turn, in which they grew."""
    speeds = {size.batch: size.samples_per_second for size in sizes}
    left = {batch: SHARE for batch, speed in speeds.items() if STEPS * batch / max(speed, 1e-9) < SHARE}
    while left:
        for batch in list(left):
            began = time.monotonic()
            try:
                with within_memory():
                    speeds[batch] = max(speeds[batch], measure(session, data, batch, where).samples_per_second)
                left[batch] -= time.monotonic() - began
            except UserError:  # it fitted before: other programs have taken memory
                left[batch] = 0.0
                torch.cuda.empty_cache()
            if left[batch] <= 0:
                del left[batch]
    return [size._replace(samples_per_second=speeds[size.batch]) for size in sizes]


def measure(session: Session, data: SampleData, batch: int, where: str) -> Size:
    """Train for a few steps with this batch size. data: the session's."""
    device, speed = session.device.torch_device, 0.0
    data.batch_size = batch
    began = time.perf_counter()
    for x, clock in batches(session, STEPS):
        session.task.step(x, clock)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        now = time.perf_counter()
        if clock.step:
            speed = max(speed, session.task.samples(x) / max(now - began, 1e-9))
        began = now
    return Size(batch, speed, peak_memory(device)[where])


def expected(sizes: list[Size], batch: int) -> float:
    """The memory that a batch size will need, in MB, by the line through the last two sizes."""
    if len(sizes) < 2:
        return 0.0
    (before, _, low), (last, _, high) = sizes[-2:]
    return high + max(0.0, high - low) / (last - before) * (batch - last)


def described(sizes: list[Size], names: dict[str, str], most: int, room: float) -> str:
    """The table of all sizes, and the advice that follows from it."""
    rows = [["batch", "samples/s", "peak MB"]]
    rows += [[f"{size.batch:,}", f"{size.samples_per_second:,.0f}", f"{size.memory:,.0f}"] for size in sizes]
    best = max(size.samples_per_second for size in sizes)
    quick = next(size for size in sizes if size.samples_per_second >= 0.9 * best)
    last = sizes[-1]
    per_sample = expected(sizes, last.batch + 1) - last.memory if len(sizes) > 1 else 0.0
    fitting = most
    if per_sample and (more := int(((1 - LEFT) * room - last.memory) / per_sample)) < most - last.batch:
        fitting = 1 << (max(1, last.batch + more).bit_length() - 1)  # a power of two: the free memory varies
    fitting = max(fitting, last.batch)
    ENDING.measured = {
        "data.batch_size": quick.batch,
        "largest_measured": last.batch,
        "largest_by_memory": fitting,
        "sizes": [size._asdict() for size in sizes],
    }
    power = "the power of two that fits " if last.batch < fitting < most else ""
    facts = {
        "largest measured": f"data.batch_size={last.batch}"
        + (", all train samples in one" if last.batch == most else ""),
        "largest by memory": f"data.batch_size={fitting}, {power}with {1 - LEFT:.0%} of {room:,.0f} MB",
        "large enough": f"data.batch_size={quick.batch}: within 10 % of the highest speed, by the fastest steps",
    }
    width = max(map(len, facts))
    return "\n".join(
        [
            f"batch sizes of {names['model']} on {names['data']}: the fastest training step, the process's peak",
            "",
            table(rows, words=0),
            "",
            *(f"{name:{width}}  {text}" for name, text in facts.items()),
            "another batch size needs another optimizer.lr: dl-run mode=find_lr data.batch_size=...",
        ]
    )
