"""Stacks for the tests: trained, killed and continued in this process."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from dlrun.errors import UserError
from dlrun.output.checkpoints import Checkpoints
from dlrun.output.folders import read_summary
from dlrun.stack.fit import fit
from dlrun.stack.run import make_job
from dlrun.stack.selection import selection_of
from dlrun.stack.stacked import Stack
from dlrun.stack.stacked_job import StackedJob, job_state, with_values
from dlrun.sweep.axes import Axis
from dlrun.sweep.population import first_values
from dlrun.sweep.settings import Population, Settings
from dlrun.system.signals import Signals


class Killed(BaseException):
    pass


def together(
    folder: Path, configs: list[tuple[dict, dict]], *, kill_at: int = -1, stop_at: int = -1,
    settings: Settings | None = None, axes: Sequence[Axis] = (),
) -> bool:  # fmt: skip
    """Train a stack, or resume one, as dlrun/stack/run.py does. Returns whether it finished.

    settings, axes: of a sweep that selects between epochs.
    """
    checkpoints, like, members, found = Checkpoints(folder / "stack"), None, list[StackedJob](), {}
    if list(checkpoints.folder.glob("*.ckpt")):
        found = checkpoints.load_last("id")[0]
    saved = found.get("jobs", {})
    torch.manual_seed(0)
    for number, (config, names) in enumerate(configs):
        if str(number) in saved if saved else True:
            if read_summary(folder / str(number)).get("status") == "finished":
                continue
            values = first_values(settings, axes, number) if isinstance(settings, Population) else {}
            values = job_state(saved[str(number)], number, values).values if saved else values
            member = make_job(number, with_values(config, values), names, folder / str(number), like)
            member.values, like = values, member.session
            members.append(member)
            if saved:
                member.restore(saved[str(number)])
    selection = selection_of(settings, list(axes), members[0]) if settings else None
    stack = Stack(members, checkpoints, "id", selection=selection, selected=found.get("selected", 0))
    silence = open(os.devnull, "w")
    for member in members:
        run = member.training.run
        run.folder.mkdir(parents=True, exist_ok=True)
        run.out = silence
        if saved:
            run.resume(None, member.session.trainer.test)
            member.training.rewind()
        member.session.announce(member.training)
    add = stack.means.__class__.add

    def count(means: object, metrics: dict, samples: int) -> None:
        add(means, metrics, samples)
        if stack.first.clock.step == stop_at:
            signal.raise_signal(signal.SIGTERM)
        if stack.first.clock.step == kill_at:
            checkpoints.wait()
            raise Killed

    stack.means.__class__.add = count
    try:
        with Signals() as signals:
            return fit(stack, signals)
    except Killed:
        return False
    except UserError:
        stack.abandon()
        raise
    finally:
        stack.means.__class__.add = add
        for member in members:
            member.training.run.close()
        silence.close()
