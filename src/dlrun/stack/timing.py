"""How long a stack takes, and how long its jobs would take one after another."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dlrun.stack.stacked_job import StackedJob
from dlrun.stack.trial import Gain
from dlrun.sweep.stacks import Verdict

# The least estimated gain with which `auto` stacks. A trial is too favourable to the stack: 400 steps of four LeNets on
# MNIST take 1.15 times as long in a stack (estimated gain 1.5), those of four MLPs 0.9 times as long (2.5).
LEAST = 1.6


class Age(NamedTuple):
    """Seconds that this process has run, and those for which it had a processor."""

    passed: float
    computed: float


def age() -> Age:
    computed = time.process_time()
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return Age(time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"), computed)
    except (OSError, AttributeError):  # another system than Linux
        return Age(computed, computed)


class Timing:
    """Measures a stack's process. gain: a step of one job, and of all. ready: its age when the first job was ready."""

    def __init__(self, gain: Gain, ready: Age) -> None:
        self.gain, self.ready, self.began = gain, ready, age()

    def total(self, jobs: Sequence[StackedJob]) -> float:
        """How many times as fast as one after another the stack trains from here on.

        The jobs' evaluations, files and plots are left out, since each job has its own in both ways.
        """
        steps = jobs[0].training.clock.total_steps
        return len(jobs) * (self.ready.computed + steps * self.gain.one) / (steps * self.gain.together)

    def verdict(self, jobs: Sequence[StackedJob], is_over: bool = False) -> Verdict:
        """What is known: before the first step the gain, at the end also the seconds."""
        verdict = Verdict(self.total(jobs), self.gain.step)
        if is_over:
            steps = [job.training.clock.step for job in jobs]
            verdict.seconds = age().passed
            trained = verdict.seconds - self.began.passed
            others = max(0.0, trained - max(steps) * self.gain.together)  # evaluations, files, plots
            verdict.alone = len(jobs) * self.ready.passed + sum(steps) * self.gain.one + others
        return verdict
