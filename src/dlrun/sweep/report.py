"""The report of a sweep, written as it goes: results.csv, results.json, report.html, a link to the best job."""

import csv
import io
import os
import shlex
import sys
import time
from contextlib import suppress
from dataclasses import asdict
from math import isfinite
from statistics import mean, stdev

from dlrun.errors import columns
from dlrun.output.as_json import as_json, finite
from dlrun.output.console import number, table
from dlrun.output.folders import write_whole
from dlrun.sweep.goals import best_jobs, command_line, goals, over_seeds, value_names
from dlrun.sweep.page import page
from dlrun.sweep.rows import epoch_rows
from dlrun.sweep.state import OPEN, Job, State, own, shared

PAGE_EVERY = 5.0  # seconds
AS_BEFORE = ("refused", "diverged")  # as a job would end again


class Report:
    """goals: what the sweep optimises, each with which is better; known once a job has said it."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.written = time.monotonic()
        self.problem: str | None = None  # why it could not be written
        self.curves: dict[int, list[dict]] = {}  # of jobs that have ended

    @property
    def goals(self) -> list[tuple[str, str]]:
        return goals(self.state)

    def write(self, at_once: bool = False) -> None:
        """All files, the page no more often than PAGE_EVERY unless at_once. One that cannot be written ends nothing."""
        self.problem = None
        try:
            self._write(at_once)
        except OSError as error:
            self.problem = (
                f"the report could not be written: {error.strerror}; the jobs and their runs are not concerned"
            )

    def _write(self, at_once: bool) -> None:
        state, folder = self.state, self.state.folder
        names = value_names(state.jobs)
        write_whole(folder / "results.csv", as_csv(state.jobs, names))
        best = best_jobs(state.jobs, self.goals)
        found = {
            "sweep": state.facts["arguments"],
            "goals": [{"metric": name, "better": mode} for name, mode in self.goals],
            "best": [{"job": job.number, "command": command_line(state, job), "values": job.values} for job in best],
            "jobs": [{k: v for k, v in asdict(job).items() if k not in ("pid", "born")} for job in state.jobs],
            "over_seeds": over_seeds(state.jobs, names),
        }
        write_whole(folder / "results.json", as_json(finite(found), indent=1) + "\n")
        if len(self.goals) == 1 and best:
            self._link(best[0])
        if at_once or time.monotonic() - self.written > PAGE_EVERY:
            write_whole(folder / "report.html", self.html())
            self.written = time.monotonic()

    def html(self) -> str:
        """The page."""
        jobs = self.state.jobs
        means, best = over_seeds(jobs, value_names(jobs)), best_jobs(jobs, self.goals)
        return page(self.state, self.goals, self._curves(), means, best)

    def _link(self, best: Job) -> None:
        link, new = self.state.folder / "best", self.state.folder / "best.tmp"
        with suppress(OSError):  # a system without links
            if not link.is_symlink() or os.readlink(link) != str(best.number):
                new.unlink(missing_ok=True)
                new.symlink_to(str(best.number), target_is_directory=True)
                os.replace(new, link)

    def _curves(self) -> dict[int, list[dict]]:
        """The epochs' rows of each job; those that have ended are read once."""
        found = {}
        for job in self.state.jobs:
            if job.number not in self.curves:
                rows = epoch_rows(self.state.run_folder(job))
                if job.code is not None:
                    self.curves[job.number] = rows
                found[job.number] = rows
            else:
                found[job.number] = self.curves[job.number]
        return found


def as_csv(jobs: list[Job], names: list[str]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["job", "overrides", "status", *names, "seconds"])
    for job in jobs:
        values = [job.values.get(n) for n in names]
        writer.writerow([job.number, " ".join(job.overrides), word(job), *values, job.seconds])
    return text.getvalue()


def word(job: Job) -> str:
    return "not run" if job.status == "waiting" else job.status


def report(jobs: list[Job], width: int = 10_000) -> str:
    """The table of all jobs, and where seeds differ of their means; above it, once, what all jobs share.

    Goals and what the test part has of them come first; for a narrow terminal the last columns are left out until it
    fits: results.csv has them all.
    """
    names = value_names(jobs)
    goals = {name.partition("/")[2] for name in names if name.startswith("val/")}
    names.sort(key=lambda name: name.partition("/")[2] not in goals)
    common = shared(jobs)
    text = _tables(jobs, names, common)
    while len(names) > 1 and max(map(len, text.splitlines())) >= width:
        text = _tables(jobs, names := names[:-1], common)
    return (f"all jobs with {' '.join(common)}\n\n" if common else "") + text


def _tables(jobs: list[Job], names: list[str], common: list[str]) -> str:
    seeds = [override for job in jobs for override in job.overrides if override.startswith("seed=")]
    cells, width = [["job", *names, "seconds", "status"]], len(str(jobs[-1].number)) if jobs else 0
    for job in jobs:
        label = f"{job.number:{width}}  {own(job, common)}".rstrip()
        seconds = f"{job.seconds:.1f}" if job.seconds is not None else "-"
        cells.append([label, *(_cell([job.values.get(n)]) for n in names), seconds, word(job)])
    means = [["mean +/- std over seeds", *names, "seeds"]]
    for row in over_seeds(jobs, names):
        setting = own(jobs[row["jobs"][0]], common + seeds) or "(all)"
        means.append([setting, *(_cell(row["values"][n]) for n in names), str(row["seeds"])])
    return table(cells) + ("\n\n" + table(means) if means[1:] else "")


def _cell(values: list[float | None]) -> str:
    """The mean, with the standard deviation to as many decimals where there are several values."""
    found = [v for v in values if v is not None]
    if not found:
        return "-"
    text = number(mean(found))
    if len(found) < 2 or not all(map(isfinite, found)):  # a diverged run's loss: infinity has no spread
        return text
    decimals = len(text.partition(".")[2])
    return f"{text} +/- " + (number(stdev(found)) if "e" in text else f"{stdev(found):.{decimals}f}")


def failures(jobs: list[Job]) -> str:
    """The jobs that failed, each with the line that says why."""
    return "\n".join(
        f"job {job.number} {job.status}: {job.error or '(it said nothing)'}" for job in jobs if job.has_failed
    )


def closing(state: State, stopped: int) -> str:
    """What is said at the end: the table, what failed, the best job, and how to go on where there is more to do."""
    jobs, folder = state.jobs, state.folder
    parts = [report(jobs, columns(sys.stdout, 10_000))]
    if text := failures(jobs):
        parts.append(text)
    best = best_jobs(jobs, goals(state))
    for job in best:
        values = ", ".join(f"{name} {number(job.values[name])}" for name, _ in goals(state))
        parts.append(f"best: job {job.number}, {values}\n  {command_line(state, job)}")
    left = state.total - sum(job.status not in OPEN for job in jobs)
    others = sum(job.status == "running" and job.worker != state.worker for job in jobs)
    if others and not stopped:
        parts.append(f"{others} of {left} that are left {'is' if others == 1 else 'are'} under way elsewhere")
    elif stopped or left:
        what = f"{left} job{' is' if left == 1 else 's are'} left"
        parts.append(f"{what}; go on with: dl-run -m sweep.resume={shlex.quote(str(folder))}")
    elif any(job.has_failed and job.status not in AS_BEFORE for job in jobs):
        parts.append(f"repeat those that failed: dl-run -m sweep.resume={shlex.quote(str(folder))} sweep.retry=failed")
    return "\n" + "\n\n".join([*parts, f"{folder / 'results.csv'}\n{folder / 'report.html'}"])
