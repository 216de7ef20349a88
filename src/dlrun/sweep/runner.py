"""Runs the jobs of a sweep, several at once, each a process of its own; what happens to one is no other's concern."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.errors import UserError
from dlrun.sweep import process
from dlrun.sweep.goals import best_jobs, goals
from dlrun.sweep.outcomes import check_goals, has_checkpoint, recover, settle, summed_up, why
from dlrun.sweep.report import Report
from dlrun.sweep.screen import Screen
from dlrun.sweep.state import DONE, Job, State
from dlrun.sweep.workers import cannot_write
from dlrun.system.signals import WARNING, asking

LOOK = 2.0  # seconds between two looks at what others leave to do


class Plan:
    """Where jobs come from: a grid has them all from the start. A search overrides all of these."""

    def open(self, state: State) -> None:
        """Before the first job."""

    def more(self, state: State) -> Job | None:
        """The next job that is not in the state yet."""

    def is_hopeless(self, job: Job, folder: Path) -> bool:
        """Whether a job that runs is to be stopped."""
        return False

    def tell(self, job: Job, folder: Path) -> None:
        """What came of a job."""

    def catch_up(self, state: State) -> None:
        """After jobs of a process that is no more were brought to what they were worth."""


@dataclass(frozen=True)
class Slots:
    """Room for jobs: threads of the CPU for each (None: as the job likes), and the GPU of each where there are any."""

    num: int
    threads: int | None
    gpus: list[str]

    @classmethod
    def of(cls, settings: object, device: str) -> "Slots":
        """Raises UserError where there are more jobs than GPUs for them."""
        is_shared = settings.jobs > 1 or settings.gpus != "auto"  # one job may have all there is
        found = process.gpus(settings.gpus) if device != "cpu" and is_shared else []
        room = len(found) * settings.jobs_per_gpu
        if found and settings.jobs > room:
            raise UserError(
                f"sweep.jobs={settings.jobs}: there is room for {room} with {len(found)} GPUs ({', '.join(found)}) and "
                f"sweep.jobs_per_gpu={settings.jobs_per_gpu}\n"
                f"  expected at most sweep.jobs={room}, or more on one GPU: "
                f"sweep.jobs_per_gpu={-(-settings.jobs // len(found))}"
            )
        share = max(1, process.cpus() // settings.jobs) if settings.jobs > 1 else None
        threads = settings.threads or (None if "OMP_NUM_THREADS" in os.environ else share)
        return cls(settings.jobs, threads, [found[i % len(found)] for i in range(settings.jobs)] if found else [])

    def env(self, slot: int, goes_on: bool = False) -> dict[str, str]:
        """goes_on: a run that is resumed keeps its own number of threads."""
        env = dict(os.environ)
        env |= {"OMP_NUM_THREADS": str(self.threads)} if self.threads and not goes_on else {}
        return env | ({"CUDA_VISIBLE_DEVICES": self.gpus[slot]} if self.gpus else {})


@dataclass
class Running:
    """A job's process. asked: why it was asked to end, "timeout" or "pruned", and when it is to be ended by force."""

    job: Job
    slot: int
    child: object  # process.Session or cluster.Submitted
    log_start: int
    has_begun: bool = False  # a cluster's may wait before that
    started: float = field(default_factory=time.monotonic)
    asked: str | None = None
    deadline: float = float("inf")


class Runner:
    """command: the command line of a job, and whether it goes on from its checkpoint. timeout: seconds.

    stays: until the jobs of others have ended too, to take those of one that dies. launch: starts a job's process, from
    its command line, log and environment.
    """

    def __init__(
        self,
        state: State,
        plan: Plan,
        slots: Slots,
        timeout: float,
        command: Callable[[Job, bool], list[str]],
        screen: Screen,
        stays: bool = True,
        launch: Callable[[list[str], Path, dict[str, str]], object] = process.start,
    ) -> None:
        self.state, self.plan, self.slots, self.timeout = state, plan, slots, timeout
        self.command, self.screen, self.stays, self.launch = command, screen, stays, launch
        self.report = Report(state)
        self.running: list[Running] = []
        self.received: list[int] = []
        self.had: set[int] = set()  # jobs that this process has started
        self.next_look = 0.0

    def run(self) -> int:
        """Until all jobs are done or a signal stops the sweep: its number, else 0."""
        told, before = False, {n: signal.signal(n, self._stop) for n in asking()}
        try:
            while True:
                self.fill()
                if not self.running and (self.received or not (self.stays and self.others())):
                    break
                time.sleep(0.02)
                if self.received and not told:
                    told = True
                    within = f"within {process.GRACE:.0f} s; the same signal once more ends them at once"
                    self.screen.say(f"stopping: what runs is to save and end {within}")
                for one in list(self.running):
                    self.look_at(one)
                if self.screen.is_due:
                    best = best_jobs(self.state.jobs, goals(self.state))
                    self.screen.draw(self.state, self.running, best[0] if best else None, goals(self.state))
        finally:
            for one in self.running:  # the sweep itself failed: a bug, or a full disk
                one.child.terminate()
            for which, handler in before.items():
                signal.signal(which, handler)
            self.screen.clear()
        with self.state.alone():
            self.report.write(at_once=True)
        if self.report.problem:
            self.screen.say(self.report.problem)
        return self.received[0] if self.received else 0

    def _stop(self, number: int, frame: object) -> None:
        if self.received and number in WARNING:  # sent more than once, and not to end anything at once
            return
        self.received.append(number)
        for one in self.running:
            if one.child.poll() is None:
                self._end(one)

    def _end(self, one: Running) -> None:
        """It is to save and end; at the second signal, at once."""
        one.asked = one.asked or "stopped"
        one.deadline = min(one.deadline, time.monotonic() + process.GRACE)
        one.child.send_signal(self.received[0]) if len(self.received) == 1 else one.child.kill()

    def others(self) -> list[Job]:
        """The jobs that other processes run."""
        return [job for job in self.state.jobs if job.status == "running" and job.worker != self.state.worker]

    def fill(self) -> None:
        """Start jobs while there is room for them."""
        taken = {one.slot for one in self.running}
        for slot in range(self.slots.num):
            if self.received or time.monotonic() < self.next_look:
                break
            if slot in taken:
                continue
            with self.state.alone():
                job = self.next_job()
                if job is not None:
                    self.start(job, slot)
                else:
                    self.next_look = time.monotonic() + LOOK

    def next_job(self) -> Job | None:
        """One that waits or was stopped, else a new one, else one of a process that is no more."""
        job = self.waiting() or self.plan.more(self.state)
        if job is None and self.others():
            recover(self.state, patience=0)
            self.plan.catch_up(self.state)
            job = self.waiting()
        return job

    def waiting(self) -> Job | None:
        """A job that somebody asked to end is not taken again by the one who had it."""
        is_open = (job for job in self.state.jobs if job.status in ("waiting", "stopped"))
        return next((job for job in is_open if job.number not in self.had), None)

    def start(self, job: Job, slot: int) -> None:
        folder, log = self.state.run_folder(job), self.state.log(job)
        goes_on = has_checkpoint(folder)
        try:
            if goes_on:
                with suppress(FileNotFoundError):
                    (folder / "summary.json").unlink()  # how it ended the last time
            elif folder.exists():  # killed before its first checkpoint: there is nothing to go on from
                shutil.rmtree(folder)
            size = log.stat().st_size if log.exists() else 0
            child = self.launch(self.command(job, goes_on), log, self.slots.env(slot, goes_on))
        except OSError as error:
            raise cannot_write(self.state.folder, error) from None
        self.running.append(Running(job, slot, child, size))
        if self.received:  # while the process was being made
            self._end(self.running[-1])
        job.status, job.worker, job.pid, job.attempt = "running", self.state.worker, child.pid, child.attempt
        job.born = process.born(child.pid) if child.pid else None
        self.had.add(job.number)
        on = f" on GPU {self.slots.gpus[slot]}" if self.slots.gpus else ""
        how = " goes on" if goes_on else ""
        self.screen.start(f"[{job.number + 1}/{self.state.total}] {' '.join(job.overrides)}{how}{on}")

    def look_at(self, one: Running) -> None:
        """Whether it has ended, takes too long, or is hopeless."""
        code, now = one.child.poll(), time.monotonic()
        if code is not None:
            self.running.remove(one)
            one.child.kill()  # what it left behind
            self.conclude(one, code)
        elif now > one.deadline:
            one.child.kill()
        elif not one.has_begun:
            one.has_begun, one.started = one.child.has_begun(), now
        elif one.asked is None and not self.received:
            if now - one.started > self.timeout:
                one.asked = "timeout"
            elif self.plan.is_hopeless(one.job, self.state.run_folder(one.job)):
                one.asked = "pruned"
            if one.asked:
                one.deadline = now + process.GRACE
                one.child.terminate()

    def conclude(self, one: Running, code: int) -> None:
        """Put down what came of a job, and say so where it failed."""
        job, folder = one.job, self.state.run_folder(one.job)
        lines = process.tail(self.state.log(job), one.log_start)
        with self.state.alone():
            settle(job, folder, code, goals(self.state), one.asked)
            job.error = why(job, lines)
            check_goals(job, folder, self.state.facts["goals"])
            self.plan.tell(job, folder)
            self.report.write()
        self.next_look = 0.0
        if job.status in DONE:
            self.screen.say(f"job {job.number} {job.status}{summed_up(job)}")
        elif not self.received:
            self.screen.fail(f"job {job.number} {job.status} (exit code {code})", lines)
