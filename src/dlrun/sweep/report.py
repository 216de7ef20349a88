"""The report of a sweep, updated while it runs: results.csv, results.json, report.html, a link to the best job."""

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
from textwrap import wrap

from dlrun.errors import columns
from dlrun.output.as_json import as_json, finite
from dlrun.output.console import number, shell_lines, table, wrapped
from dlrun.output.rows import epoch_rows
from dlrun.output.written import write_whole
from dlrun.sweep.folds import FILE as OUT_OF_FOLD
from dlrun.sweep.folds import write_out_of_fold
from dlrun.sweep.goals import (
    REPEATS,
    Setting,
    best_settings,
    command_words,
    goals,
    numbered,
    over_seeds,
    repeated,
    value_names,
)
from dlrun.sweep.job import OPEN, Job
from dlrun.sweep.page import page
from dlrun.sweep.running import spoken
from dlrun.sweep.sheet import FILE as SHEET
from dlrun.sweep.sheet import write_sheet
from dlrun.sweep.state import State, own_overrides, shared
from dlrun.sweep.tables import have_one_problem, own_tables

PAGE_EVERY = 5.0  # seconds
FINAL = ("refused", "diverged")  # a repeated job would end the same way


class Report:
    """Writes the files of a report. problem: the reason why the last report could not be written, or None."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.written = time.monotonic()
        self.problem: str | None = None
        self.curves: dict[int, list[dict]] = {}  # rows of ended jobs

    @property
    def goals(self) -> list[tuple[str, str]]:
        """The metrics to optimise, each with "max" or "min"."""
        return goals(self.state)

    def write(self, at_once: bool = False) -> None:
        """Write all files; the page at most every PAGE_EVERY seconds unless at_once. Failures only set `problem`."""
        self.problem = None
        try:
            self._write(at_once)
        except OSError as error:
            self.problem = (
                f"the report could not be written: {error.strerror}; the jobs and their runs are not affected"
            )

    def _write(self, at_once: bool) -> None:
        state, folder = self.state, self.state.folder
        names = value_names(state.jobs)
        write_whole(folder / "results.csv", as_csv(state.jobs, names))
        best = best_settings(state.jobs, self.goals)
        results = {
            "sweep": state.facts["arguments"],
            "goals": [{"metric": name, "better": mode} for name, mode in self.goals],
            "best": [_as_json(state, setting) for setting in best],
            "jobs": [{k: v for k, v in asdict(job).items() if k not in ("pid", "born")} for job in state.jobs],
            "over_seeds": over_seeds(state.jobs, names),
        }
        write_whole(folder / "results.json", as_json(finite(results), indent=1) + "\n")
        if at_once:
            write_out_of_fold(state)
            write_sheet(state)
        if len(self.goals) == 1 and best:
            self._link(best[0].first)
        if at_once or time.monotonic() - self.written > PAGE_EVERY:
            write_whole(folder / "report.html", self.html())
            self.written = time.monotonic()

    def html(self) -> str:
        """Return the page as HTML."""
        jobs = self.state.jobs
        means, best = over_seeds(jobs, value_names(jobs)), best_settings(jobs, self.goals)
        return page(self.state, self.goals, self._curves(), means, best)

    def _link(self, best: Job) -> None:
        link, new = self.state.folder / "best", self.state.folder / "best.tmp"
        with suppress(OSError):  # systems without links
            if not link.is_symlink() or os.readlink(link) != str(best.number):
                new.unlink(missing_ok=True)
                new.symlink_to(str(best.number), target_is_directory=True)
                os.replace(new, link)

    def _curves(self) -> dict[int, list[dict]]:
        """Return the epoch rows of each job. Rows of ended jobs are read only once."""
        curves = {}
        for job in self.state.jobs:
            if job.number not in self.curves:
                rows = epoch_rows(self.state.run_folder(job))
                if job.code is not None:
                    self.curves[job.number] = rows
                curves[job.number] = rows
            else:
                curves[job.number] = self.curves[job.number]
        return curves


def _as_json(state: State, setting: Setting) -> dict[str, object]:
    """The entry of a best setting: its first job, all its jobs, its command, and its mean metrics."""
    values = {name: setting.mean(name) for name in value_names(setting.jobs)}
    jobs, command = [job.number for job in setting.jobs], shlex.join(command_words(state, setting))
    return {"job": jobs[0], "jobs": jobs, "command": command, "values": values}


def as_csv(jobs: list[Job], names: list[str]) -> str:
    """Format the jobs as CSV, with a column per metric."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["job", "overrides", "status", *names, "seconds"])
    for job in jobs:
        values = [job.values.get(n) for n in names]
        writer.writerow([job.number, " ".join(job.overrides), word(job), *values, job.seconds])
    return text.getvalue()


def word(job: Job) -> str:
    """Return a job's status as tables show it."""
    return "not run" if job.status == "waiting" else job.status


def report(jobs: list[Job], width: int = 10_000) -> str:
    """Return the table of all jobs and, for several seeds, that of their means. Shared overrides are stated once.

    Goals come first, on val and test. In a narrow terminal each table leaves out its last columns down to the goals,
    then folds the overrides, then leaves out goals but the first; results.csv has all.
    """
    names, common = value_names(jobs), shared(jobs)
    goals = {name.partition("/")[2] for name in names if name.startswith("val/")}
    names.sort(key=lambda name: name.partition("/")[2] not in goals)
    least = max(min(1, len(names)), sum(name.partition("/")[2] in goals for name in names))
    indent = len(str(jobs[-1].number)) + 2 if jobs else 2
    texts = [_fitted(_job_rows(jobs, names, common), len(names), least, width, indent)]
    if (means := _mean_rows(jobs, names, common))[1:]:
        texts.append(_fitted(means, len(names), least, width, 2))
    lines = wrapped(f"all jobs with {' '.join(common)}", width - 1, 2)
    return "\n\n".join((["\n".join(lines)] if common else []) + texts)


def _fitted(rows: list[list[str]], num: int, least: int, width: int, indent: int) -> str:
    """A table narrower than `width`. num: its columns of metrics, after the first; least: those of the goals."""
    num_wide = range(num, least - 1, -1)
    choices = [(count, 10_000) for count in num_wide] + [(count, width) for count in range(least, 0, -1)]
    text = ""
    for count, folded_width in choices or [(0, width)]:
        some = [row[: 1 + count] + row[1 + num :] for row in rows]
        text = table(_folded(some, folded_width, indent))
        if max(map(len, text.splitlines())) < width:
            break
    return text


def _job_rows(jobs: list[Job], names: list[str], common: list[str]) -> list[list[str]]:
    """The table of all jobs."""
    cells, digits = [["job", *names, "seconds", "status"]], len(str(jobs[-1].number)) if jobs else 0
    for job in jobs:
        label = f"{job.number:{digits}}  {own_overrides(job, common)}".rstrip()
        seconds = f"{job.seconds:.1f}" if job.seconds is not None else "-"
        cells.append([label, *(_cell([job.values.get(n)]) for n in names), seconds, word(job)])
    return cells


def _mean_rows(jobs: list[Job], names: list[str], common: list[str]) -> list[list[str]]:
    """The table of the means over seeds, folds, or both."""
    repeats = [override for job in jobs for override in job.overrides if override.startswith(REPEATS)]
    over, counted = repeated(jobs)
    means = [[f"mean +/- std over {over}", *names, counted]]
    for row in over_seeds(jobs, names):
        setting = own_overrides(jobs[row["jobs"][0]], common + repeats) or "(all)"
        means.append([setting, *(_cell(row["values"][n]) for n in names), str(row["seeds"])])
    return means


def _folded(rows: list[list[str]], width: int, indent: int) -> list[list[str]]:
    """Rows of a table that is narrower than `width`, if that is possible by folding their first cells."""
    others = sum(max(len(row[i]) for row in rows) + 2 for i in range(1, len(rows[0])))
    folded = []
    for label, *cells in rows:
        first, *more = wrap(label, max(20, width - 1 - others), subsequent_indent=" " * indent)
        folded += [[first, *cells], *([line, *[""] * len(cells)] for line in more)]
    return folded


def _cell(values: list[float | None]) -> str:
    """Format the mean and, for several values, the standard deviation with the same number of decimals."""
    known = [v for v in values if v is not None]
    if not known:
        return "-"
    text = number(mean(known))
    if len(known) < 2 or not all(map(isfinite, known)):  # the infinite loss of a diverged run has no deviation
        return text
    decimals = len(text.partition(".")[2])
    return f"{text} +/- " + (number(stdev(known)) if "e" in text else f"{stdev(known):.{decimals}f}")


def failures(jobs: list[Job]) -> str:
    """List the failed jobs, each with the line of its log that gives the cause; those with the same one in one line."""
    causes: dict[tuple[str, str], list[int]] = {}
    for job in jobs:
        if job.has_failed:
            causes.setdefault((job.status, job.error or "(its log is empty)"), []).append(job.number)
    return "\n".join(
        f"job{'s' if len(numbers) > 1 else ''} {spoken(numbers)} {status}: {error}"
        for (status, error), numbers in causes.items()
    )


def _advice(text: str, command: list[str], width: int) -> str:
    """A command after a text, or below it where the line would be too long."""
    line = f"{text} {shlex.join(command)}"
    return line if len(line) < width else f"{text}\n{shell_lines(command, width - 1)}"


def closing(state: State, stopped: int) -> str:
    """Return the closing text: the table, failures, the best job, and the command that resumes an unfinished sweep."""
    jobs, folder, width = state.jobs, state.folder, columns(sys.stdout, 10_000)
    blocks = [report(jobs, width)]
    if text := own_tables(state, width):
        blocks.append(text)
    if text := failures(jobs):
        blocks += ["\n".join("\n".join(wrapped(line, width - 1, 2)) for line in text.splitlines())]
    for setting in best_settings(jobs, goals(state)) if have_one_problem(jobs) else ():
        values = ", ".join(f"{name} {_cell(setting.values(name))}" for name, _ in goals(state))
        best = "\n".join(wrapped(f"best: {numbered(setting)}, {values}", width - 1, 6))
        blocks.append(f"{best}\n{shell_lines(command_words(state, setting), width - 1)}")
    left = state.total - sum(job.status not in OPEN for job in jobs)
    others = sum(job.status == "running" and job.worker != state.worker for job in jobs)
    if others and not stopped:
        blocks.append(f"{others} of {left} remaining jobs {'is' if others == 1 else 'are'} running in other processes")
    elif stopped or left:
        remaining = f"{left} job{' is' if left == 1 else 's are'} left"
        blocks.append(_advice(f"{remaining}; resume with:", ["dl-run", "-m", f"sweep.resume={folder}"], width))
    elif any(job.has_failed and job.status not in FINAL for job in jobs):
        command = ["dl-run", "-m", f"sweep.resume={folder}", "sweep.retry=failed"]
        blocks.append(_advice("repeat the failed jobs with:", command, width))
    files = [folder / name for name in ("results.csv", "report.html", OUT_OF_FOLD, SHEET)]
    return "\n" + "\n\n".join([*blocks, "\n".join(str(file) for file in files if file.exists())])
