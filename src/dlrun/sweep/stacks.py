"""Choose the jobs of a sweep that train together as one stacked network (dlrun/stack/); read the verdict on each."""

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from dlrun.errors import UserError, check_state
from dlrun.output.folders import within
from dlrun.output.written import write_whole
from dlrun.overrides import key_of
from dlrun.paths import read_whole
from dlrun.sweep.job import Job

Setting = Literal["auto", "off", "only"] | int  # only: jobs that cannot be stacked do not run
MOST = 64  # jobs in a stack with sweep.stack=auto
DECLINED = 3  # the exit code of a stack that trains nothing; its verdict has the reason
MAY_DIFFER = (  # keys in which the jobs of a stack may differ
    "seed", "data.fold", "optimizer.*", "schedule.*", "task.l1", "task.l2", "task.label_smoothing",
    "task.class_weights", "model.dropout", "trainer.ema", "trainer.clip_*", "trainer.patience", "trainer.min_delta",
    "trainer.stop_at",
)  # fmt: skip
NONE_AT_ZERO = ("model.dropout", "trainer.ema")  # where it is 0, there is no such layer or average
NUMBER = re.compile(r"[0-9.][0-9.eE+-]*")


@dataclass
class Verdict:
    """The result of trying a stack before its first step.

    gain: how many times as fast as one after another, with the start of each job. step: how many times as long as that
    of one job a step takes. seconds, alone: how long the stack took, and how long its jobs would have taken one after
    another. None if they were not measured. why: the reason why it trains nothing. parts: the jobs of smaller stacks
    that might train.
    """

    gain: float | None = None
    step: float | None = None
    seconds: float | None = None
    alone: float | None = None
    why: str | None = None
    parts: list[list[int]] = field(default_factory=list)


def stack_folder(sweep: Path, number: int) -> Path:
    """The folder of a stack's checkpoints. number: that of its first job, which names the stack."""
    return within(sweep, "stacks", str(number))


def has_checkpoint(sweep: Path, number: int) -> bool:
    """Whether a stack can be continued."""
    return any(stack_folder(sweep, number).glob("*.ckpt"))


def verdict_file(sweep: Path, number: int) -> Path:
    return within(sweep, "stacks", f"{number}.json")


def write_verdict(sweep: Path, number: int, verdict: Verdict) -> None:
    path = verdict_file(sweep, number)
    path.parent.mkdir(exist_ok=True)
    write_whole(path, json.dumps(asdict(verdict)) + "\n")


def read_verdict(sweep: Path, number: int) -> Verdict | None:
    """The verdict on a stack, or None if there is none (yet)."""
    try:
        content = json.loads(read_whole(verdict_file(sweep, number)))
        numbers = dict.fromkeys(("gain", "step", "seconds", "alone"), float | None)
        check_state(content, {**numbers, "why": str | None, "parts": list})
        verdict = Verdict(**content)
        return verdict if all(isinstance(part, list) for part in verdict.parts) else None
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None


def release(sweep: Path, jobs: Sequence[Job], verdict: Verdict, is_refused: bool) -> None:
    """Take back the jobs of a stack that trains nothing, in smaller stacks if the verdict has some; or refuse them."""
    number = jobs[0].stack or 0
    for job in jobs:
        job.status, job.worker, job.pid, job.born = "waiting", None, None, None
        if is_refused:
            job.status, job.code, job.error = "refused", 2, verdict.why
    divide(jobs, verdict.parts)
    shutil.rmtree(stack_folder(sweep, number), ignore_errors=True)
    verdict_file(sweep, number).unlink(missing_ok=True)
    with suppress(OSError):  # other stacks have files there
        within(sweep, "stacks").rmdir()


def plan(jobs: Sequence[Job], setting: Setting, num_slots: int) -> str:
    """Divide new jobs into stacks: those that differ in nothing but MAY_DIFFER. num_slots: stacks to run at once.

    Returns a note for the user on the keys that keep jobs apart, or "".
    """
    if setting == "off":
        return ""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        groups.setdefault(tuple(map(_shape, job.overrides)), []).append(job)
    for group in groups.values():
        most = setting if isinstance(setting, int) else MOST
        parts = max(-(-len(group) // most), -(-num_slots // len(groups)))
        size = -(-len(group) // parts)
        for start in range(0, len(group), size):
            join(group[start : start + size])
    shapes = {shape for group in groups for shape in group}
    apart = sorted({key_of(shape) for shape in shapes if not all(shape in group for group in groups)})
    return f"jobs that differ in {', '.join(apart)} train in stacks of their own" if apart else ""


def join(jobs: Sequence[Job]) -> None:
    """Make one stack of these jobs; of a single one, none."""
    for job in jobs:
        job.stack = jobs[0].number if len(jobs) > 1 else None


def halves(numbers: Sequence[int]) -> list[list[int]]:
    """The jobs of two stacks instead of one; none of a stack of two."""
    half = -(-len(numbers) // 2)
    return [list(numbers[:half]), list(numbers[half:])] if len(numbers) > 2 else []


def divide(jobs: Sequence[Job], parts: Sequence[Sequence[int]]) -> None:
    """Make stacks of these parts of the jobs of one, by their numbers. Other jobs are in none."""
    for job in jobs:
        job.stack = None
    for part in parts:
        if chosen := [job for job in jobs if job.number in part]:
            join(chosen)


def _shape(override: str) -> str:
    """Return the part of an override that must be equal in all jobs of a stack: all of it, or only its key."""
    key, _, value = override.partition("=")
    if key != key_of(override) or not any(fnmatchcase(key, pattern) for pattern in MAY_DIFFER):
        return override
    return f"{key}={NUMBER.sub(_is_some, value)}" if key in NONE_AT_ZERO else key


def _is_some(number: re.Match) -> str:
    """0 for a number that is 0, else x."""
    return "x" if number[0].strip("0.") else "0"


def which(stack: int, jobs: Sequence[Job], setting: Setting) -> str:
    """The value of --stack for the process that trains these jobs: auto:0:0,1,2 or 16:0:0,1,2."""
    return f"{setting}:{stack}:{','.join(str(job.number) for job in jobs)}"


def parse(text: str) -> tuple[bool, int, list[int]]:
    """Whether the jobs must gain by being stacked, the number of their stack, and their numbers."""
    try:
        setting, stack, numbers = text.split(":")
        return setting == "auto", int(stack), [int(number) for number in numbers.split(",")]
    except ValueError:
        raise UserError(f"--stack={text} is for sweeps\n  expected dl-run -m ... sweep.stack=auto") from None
