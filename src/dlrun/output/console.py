"""Terminal output of a run: a header, a progress bar within the epoch, a line for each epoch, a table at the end."""

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import floor, isfinite, log10
from textwrap import wrap
from typing import TYPE_CHECKING

from dlrun.clock import Clock
from dlrun.errors import printable_cell
from dlrun.output.notebook import NotebookBar, is_notebook

REFRESH = 1.0  # seconds between two readings of the loss, for which a GPU has to be waited for

if TYPE_CHECKING:
    from tqdm import tqdm


class Bar:
    """A progress bar within the epoch, on a terminal or in a notebook, for epochs that take more than half a second.

    `tick` is called after each step with its number of samples. running: returns the loss of the last steps as text.
    The time left is measured in any case: what an epoch has taken so far, with validation and saving.
    """

    def __init__(self, clock: Clock, running: Callable[[], str] = str) -> None:
        self.clock, self.running = clock, running
        self.bar: tqdm | NotebookBar | None = None
        self.tick: Callable[[int], object] = _nothing
        self.is_notebook = is_notebook()
        self.is_shown = self.is_notebook or sys.stderr is not None and sys.stderr.isatty()
        self.began, self.epochs_before, self.due = time.monotonic(), clock.epochs_done, 0.0

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start_epoch(self) -> None:
        """Start timing the epoch; the bar appears half a second later."""
        if self.is_shown:
            self.started, self.tick = time.monotonic(), self._appear

    def _appear(self, samples: int) -> None:
        if time.monotonic() - self.started < 0.5:
            return
        clock, frames = self.clock, self.clock.epoch_samples
        total = frames or min(clock.steps_per_epoch, clock.batch + clock.total_steps - clock.step)
        initial = max(0, clock.samples - clock.epoch * frames) if frames else clock.batch
        desc, unit = f"epoch {clock.epoch + 1}/{clock.epochs}", "frame" if frames else "batch"
        if self.is_notebook:
            self.bar = NotebookBar(total, initial, desc, unit)
        else:
            from tqdm import tqdm

            self.bar = tqdm(total=total, initial=initial, desc=desc, unit=unit, leave=False, dynamic_ncols=True)
        self.tick = partial(self._advance, self.bar)

    def _advance(self, bar: "tqdm | NotebookBar", samples: int) -> None:
        bar.update(samples if self.clock.epoch_samples else 1)
        if (now := time.monotonic()) >= self.due:
            self.due = now + REFRESH
            more = "" if self.clock.epochs_done - self.epochs_before >= 1 else ">"  # validation is not measured yet
            left = self.seconds_left()
            words = [self.running(), f"{more}{duration(left)} left" if left and left >= 1 else ""]
            bar.set_postfix_str(", ".join(filter(None, words)), refresh=False)

    def seconds_left(self) -> float | None:
        """Seconds until the whole run is done, at the speed of this session so far. None if nothing is done yet."""
        clock = self.clock
        done = clock.epochs_done - self.epochs_before
        epochs = clock.epochs if clock.epoch_samples else clock.total_steps / max(1, clock.steps_per_epoch)
        return (time.monotonic() - self.began) / done * max(0.0, epochs - clock.epochs_done) if done > 0 else None

    def validating(self) -> None:
        """Show that the epoch's steps are done and it is being validated."""
        if self.bar is not None:
            self.bar.set_description(f"epoch {self.clock.epoch + 1}/{self.clock.epochs} validating")

    def close(self) -> None:
        """Remove the bar."""
        if self.bar is not None:
            self.bar.close()
        self.bar, self.tick = None, _nothing


def _nothing(samples: int) -> None: ...


def wrapped(line: str, width: int, indent: int) -> list[str]:
    """Wrap a line to `width` columns, the further lines indented. Words longer than a line are not broken."""
    return wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def shell_lines(words: Sequence[str], width: int) -> str:
    """A command, quoted for a shell and indented. Lines of more than `width` columns are broken between two words, with
    a backslash, so that the command can be pasted.
    """
    first, *rest = map(shlex.quote, words)
    lines = [f"  {first}"]
    for word in rest:
        if len(lines[-1]) + len(word) + 3 > width:
            lines[-1] += " \\"
            lines.append(f"    {word}")
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def header(version: str, facts: dict[str, str], width: int) -> str:
    """The version, then each fact, its lines wrapped to the terminal's width."""
    lead, lines = max(map(len, facts)), [f"dl-run {version}"]
    for name, text in facts.items():
        first, *others = text.split("\n")
        for line in (f"  {name:{lead}}  {first}", *(" " * (lead + 4) + other for other in others)):
            lines += wrapped(line, width, lead + 4)
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """3:07, or 1:03:07 with hours."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}" if minutes >= 60 else f"{minutes}:{rest:02}"


def number(value: float | int | None) -> str:
    """Format a number in about four significant digits. nan and inf stay; None, their stand-in in JSON, becomes nan."""
    if value is None:
        return "nan"
    if isinstance(value, int):  # a count
        return f"{value:,}"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2e}"


def column(values: list[float]) -> list[str]:
    """Format numbers of one column alike, with as many decimals as give the largest one four digits.

    Numbers within 1e-6 of the largest of an integer are shown as integers: float32 has no higher precision.
    """
    finite = [value for value in values if isfinite(value)]
    largest = max(map(abs, finite), default=0.0)
    near = {value: round(value) for value in finite if abs(value - round(value)) <= 1e-6 * largest}
    if len(near) == len(set(finite)) and largest < 1e7:
        return [str(near.get(value, value)) for value in values]
    if not 1e-4 <= largest < 1e7:
        return [f"{value:.3e}" for value in values]
    values = [near.get(value, value) for value in values]  # no -0.0
    decimals = max(0, 3 - floor(log10(largest)))
    return [f"{value:.{decimals}f}" for value in values]


FIGURES = 5  # most metrics in the line of an epoch


def epoch_line(
    row: dict, epochs: int, is_best: bool, width: int = 10_000, first: Sequence[str] = (), left: float | None = None
) -> str:
    """The line of an epoch: epoch 3/20   train loss 0.1234 acc 0.9612   val loss 0.1022 acc 0.9701 * 1.2 s, 0:23 left

    A * marks the best epoch so far. left: seconds until the run is done. first: names of metrics by importance. If
    there are more than FIGURES, or the terminal is narrow, only the first are shown, down to the goal alone.
    metrics.jsonl has them all.
    """
    keys = [key for key in row if key.startswith(("train/", "val/"))]
    order = [f"{split}/{name}" for name in first for split in ("val", "train")] or keys
    ranked = sorted(keys, key=lambda key: order.index(key) if key in order else len(order))[:FIGURES]
    seconds = row["time/seconds"]
    while True:
        words = [f"epoch {row['epoch']:{len(str(epochs))}}/{epochs} "]
        for split in ("train", "val"):
            shown = [key for key in keys if key in ranked and key.startswith(split)]
            values = [f"{key.partition('/')[2]} {number(row[key])}" for key in shown]
            words += [f" {split} {' '.join(values)} "] if values else []
        line = " ".join(words) + f"{'*' if is_best else ' '} {seconds:.{2 if seconds < 10 else 0}f} s"
        line += f", {duration(left)} left" if left and left >= 1 else ""
        if len(line) < width or len(ranked) < 2:
            return line
        ranked.pop()


def table(rows: list[list[str]], words: int = 1) -> str:
    """Rows as aligned columns, with a line under the first row. The first `words` columns are left-aligned."""
    rows = [[printable_cell(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{c:{w}}" if i < words else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
