"""The sweep's terminal output: a live table, or plain lines without a terminal. Losing the terminal stops no job."""

import os
import sys
import time
from typing import TYPE_CHECKING, TextIO

from dlrun.errors import columns, printable
from dlrun.output.console import duration, number, wrapped
from dlrun.output.terminal import write
from dlrun.sweep.goals import Setting, numbered
from dlrun.sweep.job import OPEN
from dlrun.sweep.rows import last_row
from dlrun.sweep.state import State, own_overrides, shared

if TYPE_CHECKING:
    from dlrun.sweep.running import Running

EVERY = 0.5  # seconds between two drawings of the table


class Screen:
    """Prints lines that stay (start, show, fail) and below them a live table of the sweep (draw)."""

    def __init__(self) -> None:
        self.is_live = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self.drawn, self.lines, self.began = 0.0, 0, time.monotonic()
        self.told: dict[tuple[str, ...], str] = {}  # what was printed of failures, and the first such job

    @property
    def is_due(self) -> bool:
        """Whether the live table should be drawn again."""
        return self.is_live and time.monotonic() - self.drawn >= EVERY

    def start(self, text: str) -> None:
        """Print that a job starts, unless the live table shows it."""
        if not self.is_live:
            self.tell(f"\n{text}")

    def tell(self, text: str) -> None:
        """Print a note that stays, its lines wrapped to the terminal's width."""
        width = columns(sys.stdout, 10_000) - 1
        self.show("\n".join("\n".join(wrapped(line, width, 2)) for line in text.split("\n")))

    def show(self, text: str) -> None:
        """Print lines that stay."""
        self.clear()
        self._write(sys.stdout, printable(text) + "\n")

    def fail(self, job: str, how: str, log: list[str]) -> None:
        """Print a failure with the last lines of the job's log, or of which job the same was printed."""
        before = self.told.setdefault((how, *log), job)
        if before == job or not log:
            self.tell(f"{job} {how}")
            self._write(sys.stderr, "".join(f"  {printable(line)}\n" for line in log))
        else:
            self.tell(f"{job} {how}, as {before}")

    def clear(self) -> None:
        """Remove the live table, which is drawn again below the next lines."""
        if self.lines:
            self._write(sys.stdout, f"\x1b[{self.lines}A\x1b[J")
        self.lines, self.drawn = 0, 0.0

    def draw(self, state: State, running: list["Running"], best: Setting | None, goals: list[tuple[str, str]]) -> None:
        """Draw the live table. running: the jobs that this process runs."""
        now = time.monotonic()
        try:
            size = os.get_terminal_size(sys.stdout.fileno())
            width, height = size.columns or 80, size.lines or 24
        except OSError:  # the terminal is gone
            width, height = 80, 24
        width = max(width, 2) - 1
        lines = ["", *table_lines(state, running, best, goals, now - self.began, width, max(1, height - 6))]
        lines = lines[: max(1, height - 1)]  # lines that scroll off the screen cannot be removed
        self.clear()
        self._write(sys.stdout, "".join(f"{cut(printable(line), width)}\n" for line in lines))
        self.lines, self.drawn = len(lines), now

    def _write(self, stream: TextIO, text: str) -> None:
        self.is_live &= write(stream, text)  # a closed pipe or a full disk: the jobs continue


def table_lines(
    state: State,
    running: list["Running"],
    best: Setting | None,
    goals: list[tuple[str, str]],
    seconds: float,
    width: int,
    room: int,
) -> list[str]:
    """Return the lines of the live table. room: the most lines for running jobs."""
    common = shared(state.jobs)
    shown: list[str] = []
    lines = wrapped(f"sweep  {_counts(state, sum(len(one.jobs) for one in running))}; {duration(seconds)}", width, 8)
    for i, one in enumerate(running):
        rows = [last_row(state.run_folder(job)) for job in one.jobs]
        row = max(rows, key=lambda row: row.get("epoch", 0))  # a job of a stack may have ended already
        epoch = f"epoch {row['epoch']}" if row else "starting"
        values = "  ".join(f"{name} {number(row.get(name))}" for name, _ in goals if name in row)
        age = duration(time.monotonic() - one.started)
        together = f"{one.numbers} as one network"
        overrides = own_overrides(one.job, common) if len(one.jobs) == 1 else together
        more = wrapped(f"  {one.job.number:>4}  {epoch:<10} {values:<18} {age:>7}  {overrides}", width, 8)
        if len(shown) + len(more) > room:
            shown.append(f"  and {len(running) - i} more")
            break
        shown += more
    lines += shown
    if best is not None and goals:
        name = goals[0][0]
        lines += wrapped(
            f"  best  {numbered(best)}: {name} {number(best.mean(name))}  "
            + " ".join(override for override in best.overrides if override not in common),
            width,
            8,
        )
    return lines


def _counts(state: State, here: int) -> str:
    """ "3 of 8 done, 2 running, 3 waiting". here: the number of jobs that this process runs."""
    jobs = state.jobs
    ended = sum(job.status not in OPEN for job in jobs)
    at_work = sum(job.status == "running" for job in jobs)
    failed, pruned = sum(job.has_failed for job in jobs), sum(job.status == "pruned" for job in jobs)
    counts = [
        f"{ended} of {state.total} done",
        f"{at_work} running" + (f" ({at_work - here} elsewhere)" if at_work > here else ""),
        f"{state.total - ended - at_work} waiting",
    ]
    return ", ".join([*counts, *([f"{failed} failed"] if failed else []), *([f"{pruned} pruned"] if pruned else [])])


def cut(line: str, width: int) -> str:
    """Shorten a line to `width` characters."""
    return line if len(line) <= width else (line[: max(0, width - 3)] + "...")[:width]
