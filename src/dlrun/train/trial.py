"""Train for a few steps without a run: for the modes that measure something (find_lr, find_batch, time)."""

from collections.abc import Iterator
from typing import Any

from dlrun.clock import Clock
from dlrun.data.base import SampleData, has_samples
from dlrun.errors import UserError
from dlrun.seeds import Reseeder
from dlrun.train.session import Session


def require_samples(session: Session, mode: str) -> SampleData:
    """Return the run's data. Raises UserError if it is an environment, which the mode cannot measure."""
    if not has_samples(session.data):
        raise UserError(
            f"mode={mode}: data={session.names.get('data')} is an environment\n  expected data with samples in batches"
        )
    return session.data


def batches(session: Session, steps: int) -> Iterator[tuple[Any, Clock]]:
    """Yield batches with the clock, as many as `steps`, over as many epochs as they take.

    The caller takes a step with each. Random generators are seeded as in a run.
    """
    task, data, seed = session.task, session.data, session.config["seed"]
    per_epoch = task.steps(data)
    clock = Clock(seed, -(-steps // per_epoch), per_epoch, steps)
    reseed = Reseeder(task.device.torch_device)
    task.init_from_data(data)
    task.net.train()
    while clock.step < steps:
        for batch in task.batches(data, clock):
            reseed(seed, clock.step)
            yield batch, clock
            clock.tick(task.samples(batch))
            if clock.step >= steps:
                return
        clock.next_epoch()
