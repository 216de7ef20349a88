"""The outcome of a job: its status, its values and the cause of a failure; and recovery of a dead process's jobs."""

import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dlrun.errors import UserError, nearest
from dlrun.output.console import number
from dlrun.output.folders import read_summary
from dlrun.output.rows import epoch_rows
from dlrun.sweep import cluster, process
from dlrun.sweep.goals import goals
from dlrun.sweep.job import DONE, OPEN, Job
from dlrun.sweep.rows import best_of, best_so_far, best_value, is_number, last_row
from dlrun.sweep.stacks import has_checkpoint
from dlrun.sweep.state import State
from dlrun.sweep.workers import is_at_work, is_here

STOPPED = (129, 130, 138, 140, 143, -1, -2, -10, -12, -15)  # exit codes after a signal
EXIT_WORDS = {1: "failed", 2: "refused"} | dict.fromkeys(STOPPED, "stopped") | {-9: "killed"}
EXIT_WORDS[process.LOST] = "lost"
LEFT = 255  # of a job that was not done
PRUNER = "pruner"  # what stopped a job that a search gave up within a stack, in its summary
CODES = {"finished": 0, "failed": 1, "diverged": 1, "stopped": 143}  # by the status in the run's summary


def record(job: Job, folder: Path, code: int, wanted: Sequence[tuple[str, str]] = (), asked: str | None = None) -> None:
    """Set a job's status, values and seconds from its folder and exit code.

    wanted: the goals, each with "max" or "min". asked: the reason for which the sweep asked the job to end, if it did.
    """
    done = read_summary(folder)
    status = done.get("status")
    if code == process.LOST:
        code = CODES.get(str(status), code)
    stopped = EXIT_WORDS.get(code) in ("stopped", "killed", "lost")
    if code == 0:
        job.status = "finished" if status == "finished" else "failed"  # for example, code of the user called exit()
    elif asked and stopped:
        job.status = asked
    elif code == 1 and status == "diverged":
        job.status = status
    else:
        job.status = EXIT_WORDS.get(code, f"exit {code}")
    job.code, job.error = code, None
    job.worker = job.pid = job.born = job.attempt = None
    job.values, job.seconds = {}, None
    if job.status == "finished":
        best, test = best_of(done), done.get("test")
        job.values = {best["metric"]: best["value"]} if best else {}
        last = last_row(folder)  # with the last values of a member of a population
        job.values |= {name: value for name, value in last.items() if name.startswith("pbt/") and name != "pbt/from"}
        job.values |= {name: best_value(folder, name) for name, _ in wanted if name not in job.values}
        job.values |= (
            {k: v for k, v in test.items() if is_number(v) and k.isprintable()} if isinstance(test, dict) else {}
        )
    elif job.status == "pruned":
        rows = epoch_rows(folder)
        job.values = {name: best_so_far(rows, name, mode) for name, mode in wanted}
    if job.status in DONE:
        job.seconds = done["seconds"] if is_number(done.get("seconds")) else None


def own_end(folder: Path, code: int, asked: str | None) -> tuple[int, str | None]:
    """The exit code that a stack's job would have had alone, and why it was asked to end, from its summary.

    code, asked: those of the stack.
    """
    done = read_summary(folder)
    if done.get("stopped_by") == PRUNER:
        return CODES["stopped"], "pruned"
    status = done.get("status")
    return (CODES[str(status)] if status in ("finished", "failed", "diverged") else code), asked


def summed_up(job: Job) -> str:
    """Format a job's seconds and val metrics for a line."""
    values = [f"{name} {number(value)}" for name, value in job.values.items() if name.startswith("val/")]
    seconds = f" in {job.seconds:.1f} s" if job.seconds is not None else ""
    return seconds + (f": {', '.join(values)}" if values else "")


def cause(lines: list[str]) -> str:
    """The line that gives the cause of a failure, among the last lines of a log."""
    return next((line for line in reversed(lines) if line.startswith("dl-run: ")), lines[-1] if lines else "(none)")


def why(job: Job, lines: list[str], no_memory: bool | None = None) -> str | None:
    """Return the cause of a job's failure, from the last lines of its log, or None if it did not fail.

    no_memory: whether the kernel ended it for lack of memory, if that is known.
    """
    if not job.has_failed:
        return None
    last = cause(lines)
    if job.status == "timeout":
        return f"it took longer than sweep.job_timeout; last line: {last}"
    if job.status == "killed":
        if no_memory:
            return "out of memory: the system ended it (SIGKILL)"
        reason = "possibly" if no_memory is None else "not"
        return f"SIGKILL, {reason} out of memory; last line: {last}"
    if job.status == "lost":
        return f"unknown end, since the process that it was forked from was killed; last line: {last}"
    return last if lines else None


def check_goals(job: Job, folder: Path, wanted: list[list]) -> None:
    """Raise UserError if a finished job lacks a metric that the sweep has to optimise."""
    missing = [name for name, _ in wanted if job.status == "finished" and job.values.get(name) is None]
    if missing:
        rows = epoch_rows(folder)
        known = sorted(key for key in (rows[-1] if rows else {}) if key.startswith("val/"))
        raise UserError(
            f"sweep.goal={missing[0]}: job {job.number} finished without measuring it{nearest(missing[0], known)}\n"
            f"  expected one of: {', '.join(known)}, or another number of the epoch rows or the summary"
        )


def recover(state: State, retry: bool = False, patience: float = process.GRACE, alone: bool = True) -> None:
    """Recover the jobs of a dead process: end those that still run, keep those that finished.

    retry: failed jobs wait for another try; those of a stack that has no checkpoint on their own if `alone`, else
    again as a stack, if none of its jobs is done. patience: seconds to wait for a run that is in use, after which
    UserError is raised; with 0, such a run is skipped.
    """
    from filelock import FileLock, Timeout

    lost: set[int] = set()  # stacks that begin again
    for job in state.jobs:
        if job.status in OPEN and not (job.worker and is_at_work(state.folder, job.worker)):
            folder = state.run_folder(job)
            if job.pid and job.born and job.worker and is_here(job.worker):
                process.end(job.pid, job.born)
            is_over = not job.attempt or cluster.end(state.log(job), job.attempt, patience)
            if is_over and (folder / ".lock").exists():
                try:
                    FileLock(folder / ".lock", timeout=patience).acquire().lock.release()
                except Timeout:
                    is_over = False
            if not is_over and not patience:
                continue
            if not is_over:
                lock = cluster.running_file(state.log(job), job.attempt) if job.attempt else None
                hint = f"; if it no longer exists: rm {shlex.quote(str(lock))}" if lock else ""
                raise UserError(
                    f"job {job.number} of the sweep is still being trained, in {folder}\n"
                    f"  expected no other process there: wait for it, or stop it{hint}"
                )
            job.worker = job.pid = job.born = job.attempt = None
            code, asked = own_end(folder, LEFT, None)
            if code != LEFT:
                record(job, folder, code, goals(state), asked)
                job.error = why(job, process.tail(state.log(job)))
            elif job.status == "running":
                job.status = "stopped"
        if job.stack is not None and job.status in OPEN and not has_checkpoint(state.folder, job.stack):
            lost.add(job.stack)
    for job in state.jobs:
        has_stack = job.stack is not None and has_checkpoint(state.folder, job.stack)
        if job.stack in lost and job.status == "diverged":  # all jobs of a stack begin together
            job.status, job.code, job.error = "waiting", None, None
        elif retry and job.has_failed and (has_stack or alone or not has_results(state, job.stack)):
            if not has_stack:
                job.stack = None if alone else job.stack
                with suppress(FileNotFoundError):
                    (state.run_folder(job) / "summary.json").unlink()  # of the failed try
            job.status, job.code, job.error = "waiting", None, None  # in a stack: from its last checkpoint on


def has_results(state: State, stack: int | None) -> bool:
    """Whether a job of this stack is done."""
    return any(job.stack == stack and job.status in DONE for job in state.jobs)
