"""Runs the jobs of a sweep, several at once, each a process of its own; what happens to one is no other's concern."""

import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from dlrun.console import number
from dlrun.errors import UserError
from dlrun.folders import read_summary
from dlrun.sweep import process
from dlrun.sweep.report import Report, best_jobs, goals
from dlrun.sweep.rows import best_so_far, epoch_rows, kept_value
from dlrun.sweep.screen import Screen
from dlrun.sweep.state import DONE, OPEN, Job, State
from dlrun.sweep.workers import is_at_work, is_here

LOOK = 2.0  # seconds between two looks at what others leave to do
EXIT_WORDS = {1: "failed", 2: "refused", 130: "stopped", 143: "stopped", -2: "stopped", -15: "stopped", -9: "killed"}


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
        before = {n: signal.signal(n, self._stop) for n in (signal.SIGINT, signal.SIGTERM)}
        try:
            while True:
                self.fill()
                if not self.running and (self.received or not (self.stays and self.others())):
                    break
                time.sleep(0.02)
                for one in list(self.running):
                    self.look_at(one)
                if self.screen.is_due:
                    best = best_jobs(self.state.jobs, goals(self.state))
                    self.screen.draw(self.state, self.running, best[0] if best else None, goals(self.state))
        finally:
            for one in self.running:  # the sweep itself failed: a bug, or a full disk
                one.child.terminate()
            for number, handler in before.items():
                signal.signal(number, handler)
            self.screen.clear()
            with self.state.alone():
                self.report.write(at_once=True)
        return self.received[0] if self.received else 0

    def _stop(self, number: int, frame: object) -> None:
        self.received.append(number)
        for one in self.running:
            if one.child.poll() is None:
                one.child.send_signal(number)

    def others(self) -> list[Job]:
        """The jobs that other processes run."""
        return [job for job in self.state.jobs if job.status == "running" and job.worker != self.state.worker]

    def fill(self) -> None:
        """Start jobs while there is room for them."""
        taken = {one.slot for one in self.running}
        for slot in range(self.slots.num):
            if slot in taken or self.received or time.monotonic() < self.next_look:
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
            job = self.waiting()
        return job

    def waiting(self) -> Job | None:
        """A job that somebody asked to end is not taken again by the one who had it."""
        is_open = (job for job in self.state.jobs if job.status in ("waiting", "stopped"))
        return next((job for job in is_open if job.number not in self.had), None)

    def start(self, job: Job, slot: int) -> None:
        folder, log = self.state.run_folder(job), self.state.log(job)
        goes_on = has_checkpoint(folder)
        if goes_on:
            with suppress(FileNotFoundError):
                (folder / "summary.json").unlink()  # how it ended the last time
        elif folder.exists():  # killed before its first checkpoint: there is nothing to go on from
            shutil.rmtree(folder)
        size = log.stat().st_size if log.exists() else 0
        child = self.launch(self.command(job, goes_on), log, self.slots.env(slot, goes_on))
        self.running.append(Running(job, slot, child, size))
        if self.received:  # while the process was being made
            child.send_signal(self.received[0])
        job.status, job.worker, job.pid = "running", self.state.worker, child.pid
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
            if job.has_failed:
                job.error = told(lines)
            self.plan.tell(job, folder)
            self.report.write()
        self.next_look = 0.0
        if job.status in DONE:
            self.screen.say(f"job {job.number} {job.status}{summed_up(job)}")
        elif not self.received:
            self.screen.fail(f"job {job.number} {job.status} (exit code {code})", lines)


def settle(job: Job, folder: Path, code: int, wanted: list[tuple[str, str]] = (), asked: str | None = None) -> None:
    """The job's status, values and seconds from its folder and exit code. wanted: the goals' names and modes."""
    done = read_summary(folder)
    said = done.get("status")
    stopped = EXIT_WORDS.get(code) in ("stopped", "killed")
    if code == 0:
        job.status = "finished" if said == "finished" else "failed"  # as where something called exit()
    elif asked and stopped:
        job.status = asked
    elif code == 1 and said == "diverged":
        job.status = said
    else:
        job.status = EXIT_WORDS.get(code, f"exit {code}")
    job.code, job.worker, job.pid, job.born, job.error = code, None, None, None, None
    job.values, job.seconds = {}, None
    if job.status == "finished":
        best = done.get("best", {})
        job.values = {best["metric"]: best["value"]} if best else {}
        job.values |= {name: kept_value(folder, name) for name, _ in wanted if name not in job.values}
        job.values |= {k: v for k, v in done.get("test", {}).items() if isinstance(v, int | float)}
    elif job.status == "pruned":
        rows = epoch_rows(folder)
        job.values = {name: best_so_far(rows, name, mode) for name, mode in wanted}
    if job.status in DONE:
        job.seconds = done.get("seconds")


def summed_up(job: Job) -> str:
    values = [f"{name} {number(value)}" for name, value in job.values.items() if name.startswith("val/")]
    seconds = f" in {job.seconds:.1f} s" if job.seconds is not None else ""
    return seconds + (f": {', '.join(values)}" if values else "")


def told(lines: list[str]) -> str | None:
    """The line of a job's log that says what was wrong."""
    return next((line for line in reversed(lines) if line.startswith("dl-run: ")), lines[-1] if lines else None)


def has_checkpoint(folder: Path) -> bool:
    return any((folder / "checkpoints" / f"{name}.ckpt").exists() for name in ("last", "incoming", "previous"))


def recover(state: State, retry: bool = False, patience: float = process.GRACE) -> None:
    """Bring what a process left that is no more to what it was worth: its jobs are ended, what they finished counts.

    retry: what failed is to be done again. patience: seconds to wait for a run that is in use; at 0 it is left alone.
    Raises UserError where one is still in use then.
    """
    from filelock import FileLock, Timeout

    for job in state.jobs:
        if job.status in OPEN and not (job.worker and is_at_work(state.folder, job.worker)):
            folder = state.run_folder(job)
            if job.pid and job.born and job.worker and is_here(job.worker):
                process.end(job.pid, job.born)
            if (folder / ".lock").exists():
                try:
                    FileLock(folder / ".lock", timeout=patience).acquire().lock.release()
                except Timeout:
                    if not patience:
                        continue
                    raise UserError(
                        f"job {job.number} of the sweep is still being trained, in {folder}\n"
                        "  expected no other process there: wait for it, or stop it"
                    ) from None
            job.worker = job.pid = job.born = None
            said = read_summary(folder).get("status")
            if said in ("finished", "failed", "diverged"):
                settle(job, folder, 0 if said == "finished" else 1, goals(state))
                job.error = told(process.tail(state.log(job))) if job.has_failed else None
            elif job.status == "running":
                job.status = "stopped"
        if retry and job.has_failed:
            with suppress(FileNotFoundError):
                (state.run_folder(job) / "summary.json").unlink()  # how it ended the last time
            job.status, job.code, job.error = "waiting", None, None
