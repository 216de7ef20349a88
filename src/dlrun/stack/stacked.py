"""A stack: jobs that train as one network; how they are stacked, saved, removed and replaced."""

import time
from collections.abc import Sequence
from contextlib import suppress

from dlrun.config.build import build
from dlrun.errors import Diverged, UserError, described, printable
from dlrun.output.checkpoint import snapshot
from dlrun.output.checkpoints import Checkpoints
from dlrun.stack.learning import Lockstep
from dlrun.stack.meters import StackedMeans
from dlrun.stack.net import StackedNet
from dlrun.stack.selection import Selection
from dlrun.stack.stacked_job import StackedJob
from dlrun.stack.update import StackedUpdate
from dlrun.sweep.outcomes import PRUNER
from dlrun.system.signals import Interrupted, Signals
from dlrun.tasks.base import Task
from dlrun.train.engine import Outcome
from dlrun.train.state import Training

SHARE = 20  # saving takes at most about 1/SHARE of the time
AT_ONCE = 2**26  # bytes of weights of jobs that write their own checkpoints at the same time


class Stack:
    """The jobs that still train, as one network.

    jobs: all at the same step; sorted so that those with equal settings are neighbours. checkpoints: of the stack.
    id: of the sweep, ties the checkpoints to it. is_drawn: whether each job's plots are drawn. selection: what it
    decides between epochs, the last time after epoch `selected`. Raises NotStackable.
    """

    learner: Lockstep

    def __init__(
        self,
        jobs: Sequence[StackedJob],
        checkpoints: Checkpoints,
        id: str,
        is_drawn: bool = False,
        selection: Selection | None = None,
        selected: int = 0,
    ) -> None:
        self.jobs = list(jobs)
        self.checkpoints, self.id, self.is_drawn = checkpoints, id, is_drawn
        self.selection, self.selected = selection, selected
        self.saved: tuple[int, ...] | None = None  # the clock's position in the newest checkpoint
        self.saved_at, self.cost = time.monotonic(), 0.0
        self.build()

    def build(self) -> None:
        """Stack the jobs' networks, states of optimizers and sums of metrics."""
        self.jobs.sort(key=lambda job: (job.settings, job.number))
        tasks = [job.session.task for job in self.jobs]
        optimizers, losses, rates = zip(*(job.settings for job in self.jobs), strict=True)
        if hasattr(self, "learner"):
            self.learner.release()
        self.net = StackedNet([task.net for task in tasks], tasks[0].device.channels_last).train()
        make = build(self.jobs[0].session.config["optimizer"])
        named = [task.named_updates() for task in tasks]
        self.updates = {
            name: StackedUpdate(
                [each[name] for each in named],
                self.net.of(update.net, tasks[0].net),
                self.net.leaves,
                make,
                optimizers,
                rates,
            )
            for name, update in named[0].items()
        }
        self.learner = Lockstep(tasks, self.net, self.updates, losses)
        limits = [job.training.trainer.clip_global_norm for job in self.jobs]
        left_out = [["grad_norm"] if limit is None else [] for limit in limits]  # the stack measures that of all
        self.means = StackedMeans([job.training.means for job in self.jobs], left_out)

    def _hand_back(self) -> None:
        """Copy the stack's state back to the jobs, whose networks are views of the stacked one already."""
        for update in self.updates.values():
            update.write_back()
        self.learner.hand_back()
        for k, job in enumerate(self.jobs):
            job.training.means.pending = self.means.of_job(k)

    def flush(self) -> list[dict[str, float]]:
        """Move the steps since the last call into the jobs' sums of the epoch; return each job's means over them."""
        return self.means.flush([job.training.means for job in self.jobs])

    @property
    def first(self) -> Training:
        """A job's training; all are at the same step of the same epoch."""
        return self.jobs[0].training

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint within an epoch."""
        trainer = self.first.trainer
        every = trainer.checkpoint_every_steps
        return bool(every and self.first.clock.step % every == 0) or self.is_old(60 * trainer.checkpoint_every_minutes)

    def is_old(self, seconds: float) -> bool:
        """Whether the newest checkpoint is older than that, and than SHARE times what it cost."""
        return time.monotonic() - self.saved_at >= max(seconds, SHARE * self.cost)

    def save(self) -> None:
        """Start writing the state of all jobs as one file. A job whose weights are not finite leaves."""
        if self.saved == self.first.clock.position:
            return
        began, self.saved = time.monotonic(), self.first.clock.position
        parts, broken = self.parts()
        for job in self.jobs:
            job.training.run.sync()
        self.checkpoints.write({"jobs": parts, "run": self.id, "selected": self.selected}, None)
        self.saved_at = time.monotonic()
        self.cost = self.saved_at - began
        for job, why in broken:
            self.expel(job, why)

    def parts(self) -> tuple[dict[str, dict], list[tuple[StackedJob, Diverged]]]:
        """The parts of a checkpoint by the jobs' numbers, and the jobs whose weights are not finite."""
        self._hand_back()
        parts, broken = dict[str, dict](), []
        for job in self.jobs:
            try:
                parts[str(job.number)] = job.saved(job.training.snapshot([]))
            except Diverged as error:
                broken.append((job, error))
            job.training.means.pending = []
        return parts, broken

    def save_jobs(self) -> None:
        """Start writing each job's own checkpoints, once that of the stack is written."""
        self.checkpoints.wait()
        self._hand_back()
        write(self.jobs)
        for job in self.jobs:
            job.training.means.pending = []

    def finish(self, jobs: Sequence[StackedJob], outcome: Outcome, signals: Signals, is_saved: bool = False) -> None:
        """Remove jobs that are done: write their checkpoints and test them. The others continue.

        The stack's checkpoint still holds them, so that a kill in between finishes them later. is_saved: their own
        checkpoints are written already. Raises Interrupted at a signal.
        """
        self.save()
        self.checkpoints.wait()
        jobs = [job for job in jobs if job in self.jobs]  # saving may have expelled one
        self._part(jobs)
        write(jobs if not is_saved else ())
        for i, job in enumerate(jobs):
            try:
                job.training.run.checkpoints.wait()
                with signals.interrupting():
                    job.session.finish(job.training, outcome, self.is_drawn)
                job.training.run.close()
            except Diverged as error:
                self._leave(job, error)
            except Interrupted:
                for late in jobs[i:]:
                    late.training.run.checkpoints.wait()
                    late.session.interrupted(late.training)
                    late.training.run.close()
                raise

    def select(self) -> None:
        """Between epochs: stop jobs, and replace members of a population, as the selection decides."""
        epoch = self.first.clock.epoch
        if self.selection is None or self.first.clock.batch or self.selected == epoch:
            return
        to_stop, successors = self.selection(self.jobs)
        by_number = {job.number: job for job in self.jobs}
        if to_stop:
            self._prune([by_number[number] for number in to_stop])
        self.selected = epoch
        if successors:
            self._hand_back()
            sources = {by_number[each.source].number: by_number[each.source].session.task for each in successors}
            states = {number: snapshot(components(task)) for number, task in sources.items()}
            for each in successors:
                by_number[each.member].take_over(states[each.source], each)
            self.build()

    def _prune(self, jobs: Sequence[StackedJob]) -> None:
        """Remove jobs that a search gives up. The stack's checkpoint still holds them, as in `finish`."""
        self.save()
        self.checkpoints.wait()
        jobs = [job for job in jobs if job in self.jobs]  # saving may have expelled one
        self._part(jobs)
        for job in jobs:
            job.training.save()
            job.training.run.checkpoints.wait()
            job.training.run.facts["stopped_by"] = PRUNER
            job.session.interrupted(job.training)
            job.training.run.close()

    def expel(self, job: StackedJob, error: Diverged) -> None:
        """Remove a job that has diverged. The others continue."""
        self._part([job])
        self._leave(job, error)

    def _part(self, leaving: Sequence[StackedJob]) -> None:
        """Stack the remaining jobs again."""
        self._hand_back()
        self.jobs = [job for job in self.jobs if job not in leaving]
        if self.jobs:
            self.build()

    def _leave(self, job: StackedJob, error: BaseException, status: str = "diverged") -> None:
        run = job.training.run
        job.session.leave(run, status)
        if run.out is not None:
            text = str(error) if isinstance(error, UserError) else described(error)
            with suppress(OSError, ValueError):
                run.out.write(printable(f"dl-run: {text}") + "\n")
                run.out.flush()

    def stop(self) -> None:
        """After a signal: save the stack, and each job so that it can also be resumed by itself."""
        if not self.jobs:
            return
        self.save()
        self.save_jobs()
        for job in self.jobs:
            job.training.run.checkpoints.wait()
            job.session.interrupted(job.training)
            job.training.run.close()

    def abandon(self, error: BaseException, teller: int = -1) -> None:
        """After an error that ends all: finish the files, if possible, and write the error to the jobs' logs.

        teller: the job whose log is the output of this process, where the error will be printed.
        """
        with suppress(Exception):
            self.checkpoints.wait()
        for job in self.jobs:
            if job.number == teller:
                job.session.leave(job.training.run, "failed")
            else:
                self._leave(job, error, "failed")


def write(jobs: Sequence[StackedJob]) -> None:
    """Start writing jobs' own checkpoints; of large networks one after another, which needs memory for one only."""
    size = sum(param.nbytes for job in jobs for param in job.session.task.net.parameters())
    for job in jobs:
        job.training.save()
        if size > AT_ONCE:
            job.training.run.checkpoints.wait()


def components(task: Task) -> dict[str, dict]:
    """The states of all that changes while a task learns."""
    return {name: component.state_dict() for name, component in task.components.items()}
