"""What came of a job: its status, its values, the line that says what was wrong, and what a killed process left."""

import shlex
from contextlib import suppress
from pathlib import Path

from dlrun.errors import UserError, nearest
from dlrun.output.console import number
from dlrun.output.folders import read_summary
from dlrun.sweep import cluster, process
from dlrun.sweep.goals import goals
from dlrun.sweep.rows import best_of, best_so_far, epoch_rows, is_number, kept_value
from dlrun.sweep.state import DONE, OPEN, Job, State
from dlrun.sweep.workers import is_at_work, is_here

STOPPED = (129, 130, 138, 140, 143, -1, -2, -10, -12, -15)  # by a signal
EXIT_WORDS = {1: "failed", 2: "refused"} | dict.fromkeys(STOPPED, "stopped") | {-9: "killed"}
EXIT_WORDS[process.LOST] = "lost"
CODES = {"finished": 0, "failed": 1, "diverged": 1, "interrupted": 143}  # by what the run's summary says


def settle(job: Job, folder: Path, code: int, wanted: list[tuple[str, str]] = (), asked: str | None = None) -> None:
    """The job's status, values and seconds from its folder and exit code. wanted: the goals' names and modes."""
    done = read_summary(folder)
    said = done.get("status")
    if code == process.LOST:
        code = CODES.get(str(said), code)
    stopped = EXIT_WORDS.get(code) in ("stopped", "killed", "lost")
    if code == 0:
        job.status = "finished" if said == "finished" else "failed"  # as where something called exit()
    elif asked and stopped:
        job.status = asked
    elif code == 1 and said == "diverged":
        job.status = said
    else:
        job.status = EXIT_WORDS.get(code, f"exit {code}")
    job.code, job.error = code, None
    job.worker = job.pid = job.born = job.attempt = None
    job.values, job.seconds = {}, None
    if job.status == "finished":
        best, test = best_of(done), done.get("test")
        job.values = {best["metric"]: best["value"]} if best else {}
        job.values |= {name: kept_value(folder, name) for name, _ in wanted if name not in job.values}
        job.values |= (
            {k: v for k, v in test.items() if is_number(v) and k.isprintable()} if isinstance(test, dict) else {}
        )
    elif job.status == "pruned":
        rows = epoch_rows(folder)
        job.values = {name: best_so_far(rows, name, mode) for name, mode in wanted}
    if job.status in DONE:
        job.seconds = done["seconds"] if is_number(done.get("seconds")) else None


def summed_up(job: Job) -> str:
    values = [f"{name} {number(value)}" for name, value in job.values.items() if name.startswith("val/")]
    seconds = f" in {job.seconds:.1f} s" if job.seconds is not None else ""
    return seconds + (f": {', '.join(values)}" if values else "")


def why(job: Job, lines: list[str]) -> str | None:
    """What was wrong with a job, from the last lines of its log; None where nothing was."""
    if not job.has_failed:
        return None
    told = next((line for line in reversed(lines) if line.startswith("dl-run: ")), lines[-1] if lines else "nothing")
    if job.status == "timeout":
        return f"longer than sweep.job_timeout; it said last: {told}"
    if job.status == "killed":
        return f"SIGKILL, as where memory is at its end; it said last: {told}"
    if job.status == "lost":
        return f"nobody knows how it ended: the process that it was a fork of was killed; it said last: {told}"
    return told if lines else None


def check_goals(job: Job, folder: Path, wanted: list[list]) -> None:
    """Raise UserError where a job that finished has not what the sweep was told to optimise."""
    missing = [name for name, _ in wanted if job.status == "finished" and job.values.get(name) is None]
    if missing:
        rows = epoch_rows(folder)
        known = sorted(key for key in (rows[-1] if rows else {}) if key.startswith("val/"))
        raise UserError(
            f"sweep.goal={missing[0]}: job {job.number} finished without measuring it{nearest(missing[0], known)}\n"
            f"  expected one of: {', '.join(known)}, or another number of the epochs' rows or of the summary"
        )


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
                still = f"; if it is no more: rm {shlex.quote(str(lock))}" if lock else ""
                raise UserError(
                    f"job {job.number} of the sweep is still being trained, in {folder}\n"
                    f"  expected no other process there: wait for it, or stop it{still}"
                )
            job.worker = job.pid = job.born = job.attempt = None
            said = read_summary(folder).get("status")
            if said in ("finished", "failed", "diverged"):
                settle(job, folder, 0 if said == "finished" else 1, goals(state))
                job.error = why(job, process.tail(state.log(job)))
            elif job.status == "running":
                job.status = "stopped"
        if retry and job.has_failed:
            with suppress(FileNotFoundError):
                (state.run_folder(job) / "summary.json").unlink()  # how it ended the last time
            job.status, job.code, job.error = "waiting", None, None
