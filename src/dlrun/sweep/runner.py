"""Run the jobs of a sweep, several at once, each in its own process, so that no job can affect another."""

import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.errors import UserError
from dlrun.output.restarts import has_checkpoint
from dlrun.sweep import process, stacks, tried
from dlrun.sweep.goals import best_settings, goals
from dlrun.sweep.job import DONE, Job
from dlrun.sweep.outcomes import check_goals, own_end, record, recover, summed_up, why
from dlrun.sweep.plan import Plan
from dlrun.sweep.report import Report
from dlrun.sweep.running import Running
from dlrun.sweep.screen import Screen
from dlrun.sweep.slots import Slots
from dlrun.sweep.state import State
from dlrun.sweep.workers import cannot_write
from dlrun.system.signals import Requests, stopping

if TYPE_CHECKING:
    from dlrun.sweep.running import Child

CHECK_EVERY = 2.0  # seconds between two checks for jobs that other processes left


class Runner:
    """Runs all jobs of a plan.

    command: returns a job's command line; its second argument is whether the job resumes from a checkpoint. timeout:
    seconds per job. stays: wait for the jobs of other processes, to take over those of one that dies. launch: starts a
    job from its command line, log and environment. stack: the setting sweep.stack.
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
        launch: Callable[[list[str], Path, dict[str, str]], "Child"] = process.start,
        stack: stacks.Setting = "off",
    ) -> None:
        self.stack = stack
        self.state, self.plan, self.slots, self.timeout = state, plan, slots, timeout
        self.command, self.screen, self.stays, self.launch = command, screen, stays, launch
        self.report = Report(state)
        self.running: list[Running] = []
        self.requests, self.is_urgent = Requests(), False  # is_urgent: jobs are killed
        self.taken: set[int] = set()  # jobs that this process has started
        self.next_check = 0.0

    def run(self) -> int:
        """Run until all jobs are done or a signal stops the sweep. Returns the signal's number, else 0."""
        is_reported, before = False, {n: signal.signal(n, self._stop) for n in stopping()}
        try:
            while True:
                self.fill()
                if not self.running and (self.requests.first or not (self.stays and self.state.others())):
                    break
                time.sleep(0.02)
                if self.requests.first and not is_reported:
                    is_reported = True
                    within = f"within {process.GRACE:.0f} s; a second signal ends them at once"
                    self.screen.tell(f"stopping: running jobs save a checkpoint and end {within}")
                for one in list(self.running):
                    self.look_at(one)
                if self.screen.is_due:
                    best = best_settings(self.state.jobs, goals(self.state))
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
            self.screen.tell(self.report.problem)
        return self.requests.first or 0

    def _stop(self, number: int, frame: object) -> None:
        self.is_urgent |= self.requests.insist(number)
        for one in self.running:
            if one.child.poll() is None:
                self._end(one)

    def _end(self, one: Running) -> None:
        """Ask a job once to save and end, or kill it if that is urgent."""
        is_asked, one.asked = one.asked is not None, one.asked or "stopped"
        one.deadline = min(one.deadline, time.monotonic() + process.GRACE)
        if self.is_urgent:
            one.child.kill()
        elif not is_asked and self.requests.first:
            one.child.send_signal(self.requests.first)

    def fill(self) -> None:
        """Start jobs while there is room for them."""
        used = {one.slot for one in self.running}
        for slot in range(self.slots.num):
            if self.requests.first or time.monotonic() < self.next_check:
                break
            if slot in used:
                continue
            with self.state.alone():
                job = self.next_job()
                if job is not None and job.stack is not None:
                    self.start_stack(job.stack, slot)
                elif job is not None:
                    self.start(job, slot)
                else:
                    self.next_check = time.monotonic() + CHECK_EVERY

    def next_job(self) -> Job | None:
        """Return a job that waits or was stopped, else a new one, else one of a dead process, else None."""
        job = self.waiting() or self.plan.more(self.state)
        if job is None and self.state.others():
            recover(self.state, patience=0)
            self.plan.catch_up(self.state)
            job = self.waiting()
        return job

    def waiting(self) -> Job | None:
        """Return the next open job. A process does not take a job twice, since a user may have stopped it."""
        open_jobs = (job for job in self.state.jobs if job.status in ("waiting", "stopped"))
        return next((job for job in open_jobs if job.number not in self.taken), None)

    def start(self, job: Job, slot: int) -> None:
        """Start a job, or resume it if it has a checkpoint."""
        folder, log = self.state.run_folder(job), self.state.log(job)
        is_resumed = has_checkpoint(folder)
        try:
            if is_resumed:
                with suppress(FileNotFoundError):
                    (folder / "summary.json").unlink()  # of its last stop
            elif folder.exists():  # killed before its first checkpoint: nothing to resume
                shutil.rmtree(folder)
            size = log.stat().st_size if log.exists() else 0
            child = self.launch(self.command(job, is_resumed), log, self.slots.env(slot, is_resumed))
        except OSError as error:
            raise cannot_write(self.state.folder, error) from None
        self._started(Running([job], slot, child, size))
        on = f" on GPU {self.slots.gpus[slot]}" if self.slots.gpus else ""
        how = " resumed" if is_resumed else ""
        self.screen.start(f"[{job.number + 1}/{self.state.total}] {' '.join(job.overrides)}{how}{on}")

    def start_stack(self, stack: int, slot: int) -> None:
        """Start the open jobs of a stack as one process, which resumes them if they have begun."""
        jobs = [job for job in self.state.jobs if job.stack == stack and job.status in ("waiting", "stopped")]
        log, flag = self.state.log(jobs[0]), f"--stack={stacks.which(stack, jobs, self.stack)}"
        is_resumed = stacks.has_checkpoint(self.state.folder, stack)
        try:
            if not is_resumed:
                tried.clear(self.state, jobs)
            size = log.stat().st_size if log.exists() else 0
            command = [*self.command(jobs[0], False), flag]
            child = self.launch(command, log, self.slots.env(slot, is_resumed))
        except OSError as error:
            raise cannot_write(self.state.folder, error) from None
        self._started(Running(jobs, slot, child, size, is_known=is_resumed))
        if is_resumed:  # else its verdict is awaited
            self.screen.start(tried.resumed(jobs, self.state.total))

    def _started(self, one: Running) -> None:
        """Take note of a process that was created."""
        child = one.child
        self.running.append(one)
        if self.requests.first:  # a signal came while the process was created
            self._end(one)
        born = process.born(child.pid) if child.pid else None
        for job in one.jobs:
            job.status, job.worker, job.pid, job.attempt = "running", self.state.worker, child.pid, child.attempt
            job.born, job.code = born, None
            self.taken.add(job.number)

    def tell_gain(self, one: Running) -> None:
        """Print that a stack trains, once it is known."""
        verdict = stacks.read_verdict(self.state.folder, one.job.stack or 0)
        if verdict and verdict.why is None:
            one.is_known = True
            self.screen.tell(f"\n{tried.together(one, verdict)}")

    def look_at(self, one: Running) -> None:
        """Check whether a running job has ended, takes too long, or is hopeless."""
        code, now = one.child.poll(), time.monotonic()
        if one.job.stack is not None and not one.is_known:
            self.tell_gain(one)
        if code is not None:
            self.running.remove(one)
            one.child.kill()  # ends what the job left running
            self.conclude(one, code)
        elif now > one.deadline:
            one.child.kill()
        elif not one.has_begun:
            one.has_begun, one.started = one.child.has_begun(), now
        elif one.asked is None and not self.requests.first:
            if now - one.started > self.timeout:
                one.asked = "timeout"
            elif one.job.stack is None and self.plan.is_hopeless(one.job, self.state.run_folder(one.job)):
                one.asked = "pruned"
            if one.asked:
                one.deadline = now + process.GRACE
                one.child.terminate()

    def conclude(self, one: Running, code: int) -> None:
        """Record the outcome of a job, or of those of a stack, and print it."""
        self.next_check = 0.0
        if one.job.stack is not None and code and self.ends_early(one, code):
            return
        logs = {job.number: process.tail(self.state.log(job), one.log_start) for job in one.jobs}
        with self.state.alone():
            for job in one.jobs:
                folder = self.state.run_folder(job)
                ended, asked = own_end(folder, code, one.asked) if job.stack is not None else (code, one.asked)
                record(job, folder, ended, goals(self.state), asked)
                job.error = why(job, tried.telling(one, job, logs), one.ran_out_of_memory(code))
                check_goals(job, folder, self.state.facts["goals"])
                self.plan.tell(job, folder)
            self.report.write()
        for job in one.jobs:
            if job.status in DONE:
                self.screen.tell(f"job {job.number} {job.status}{summed_up(job)}")
            elif not self.requests.first:
                log = logs[job.number] if job is one.job else [job.error or ""]  # of a stack: its log once
                self.screen.fail(f"job {job.number}", f"{job.status} (exit code {job.code})", log)
        if one.job.stack is not None and code == 0 and (text := tried.took(self.state, one)):
            self.screen.tell(text)

    def ends_early(self, one: Running, code: int) -> bool:
        """Handle the end of a stack before its first checkpoint. Returns False for any other end."""
        how = tried.ended(self.state, one, code)
        if how is None:
            return False
        with self.state.alone():
            if how == "interrupted":
                text = tried.put_back(one, code)
            else:
                text = tried.give_up(self.state, one, code, is_refused=self.stack == "only")
                self.taken -= {job.number for job in one.jobs}
            self.report.write()
        if one.job.status == "refused":
            raise UserError(text)
        self.screen.tell(text)
        return True
