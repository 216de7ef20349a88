"""The outcome of trying to train jobs as one stack, before its first checkpoint: in words, and in the sweep's state."""

import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Literal

from dlrun.output.folders import read_summary
from dlrun.sweep import process, stacks
from dlrun.sweep.job import Job
from dlrun.sweep.outcomes import EXIT_WORDS, cause
from dlrun.sweep.running import KILLED, Running, spoken
from dlrun.sweep.stacks import Verdict
from dlrun.sweep.state import State


def ended(state: State, one: Running, code: int) -> Literal["declined", "interrupted"] | None:
    """How a stack ended, if it did before its first checkpoint, so that nothing can be continued; else None.

    interrupted: from outside, and not for lack of memory. Its jobs stay a stack, since the members of a stack must not
    depend on when it was killed.
    """
    summaries = [read_summary(state.run_folder(job)) for job in one.jobs]
    is_done = any(summary.get("status") == "finished" for summary in summaries)
    if is_done or stacks.has_checkpoint(state.folder, one.job.stack or 0):
        return None
    if code == stacks.DECLINED:
        return "declined"
    if one.asked is not None:
        return None
    is_short = one.ran_out_of_memory(code)
    if EXIT_WORDS.get(code) in ("stopped", "killed", "lost") and not is_short:
        return "interrupted"
    return "declined" if is_short or not any(summaries) else None


def clear(state: State, jobs: Sequence[Job]) -> None:
    """Remove what is left of an earlier try of a stack, which would be taken for that of the next one."""
    summaries = (state.run_folder(job) / "summary.json" for job in jobs)
    for path in (stacks.verdict_file(state.folder, jobs[0].stack or 0), *summaries):
        with suppress(FileNotFoundError):
            path.unlink()


def put_back(one: Running, code: int) -> str:
    """Leave the jobs of a process that was ended to the next sweep.resume, as the same stack; return that in words."""
    for job in one.jobs:
        job.status, job.code, job.error = "stopped", code, None
        job.worker = job.pid = job.born = job.attempt = None
    by = signal.Signals(-code).name if code < 0 else "its end is unknown" if code == process.LOST else "a signal"
    how = f"was ended from outside ({by})"
    memory = "\n  if memory was short: choose a smaller sweep.stack" if one.ran_out_of_memory(code) is None else ""
    return (
        f"{one.numbers}: their common process {how} before its first checkpoint\n"
        f"  they begin again, as one network, when the sweep is resumed{memory}"
    )


def verdict_on(state: State, one: Running, code: int) -> Verdict:
    """Why a stack trains nothing, and the smaller stacks that might."""
    if code == stacks.DECLINED and (verdict := stacks.read_verdict(state.folder, one.job.stack or 0)):
        return verdict
    if code == KILLED:
        why = "out of memory: the system ended the process (SIGKILL)"
        return Verdict(why=why, parts=stacks.halves([job.number for job in one.jobs]))
    lines = process.tail(state.log(one.job), one.log_start)
    return Verdict(why=cause(lines) if lines else "the stack did not start")


def telling(one: Running, job: Job, logs: dict[int, list[str]]) -> list[str]:
    """The log that tells why a job ended: its own, or that of the process if it shares one and its own does not."""
    is_told = any(line.startswith("dl-run: ") for line in logs[job.number])
    return logs[job.number if is_told or job.stack is None else one.job.number]


def resumed(jobs: Sequence[Job], total: int) -> str:
    """That a stack is continued, or the one job that is left of it."""
    numbers = spoken([job.number for job in jobs], first=1, to="-")
    return f"[{numbers}/{total}] {'as one network' if jobs[1:] else ' '.join(jobs[0].overrides)}, resumed"


def give_up(state: State, one: Running, code: int, is_refused: bool) -> str:
    """Take back or refuse the jobs of a stack that trains nothing; return in words how they run instead."""
    verdict = verdict_on(state, one, code)
    stacks.release(state.folder, one.jobs, verdict, is_refused)
    if is_refused:
        return (
            f"{one.numbers} cannot train as one network: {verdict.why}\n"
            "  expected jobs that can, since they exchange weights: docs/sweeps.md lists what has a stacked form"
        )
    return f"{one.numbers} {in_parts(verdict.parts)}: {verdict.why}"


def in_parts(parts: Sequence[Sequence[int]]) -> str:
    """ "train in stacks of 4 and 2, job 6 runs alone"."""
    several, alone = [len(part) for part in parts if len(part) > 1], [part[0] for part in parts if len(part) == 1]
    words = []
    if several:
        sizes = ", ".join(map(str, several[:-1])) + (" and " if several[1:] else "") + str(several[-1])
        words.append(f"train in {'stacks' if several[1:] else 'a stack'} of {sizes}")
    if alone and several:
        one = len(alone) == 1
        words.append(f"job{'' if one else 's'} {spoken(alone)} {'runs alone' if one else 'run one after another'}")
    return ", ".join(words) or "run one after another"


def together(one: Running, verdict: Verdict) -> str:
    """That a stack trains, and what was measured before its first step, in words."""
    text = f"{one.numbers} train as one network"
    return text if verdict.step is None else f"{text}: a step takes {verdict.step:.1f} times that of one job"


def took(state: State, one: Running) -> str:
    """How long a stack took, in words; "" if it was not measured from its start to its end."""
    verdict = stacks.read_verdict(state.folder, one.job.stack or 0)
    if verdict is None or not verdict.seconds or verdict.alone is None:
        return ""
    times = f"{verdict.alone / verdict.seconds:.1f} times as fast as one after another"
    return f"{one.numbers} took {verdict.seconds:.1f} s together, {times} (about {verdict.alone:.1f} s)"
