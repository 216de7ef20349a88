"""What the person at the terminal sees: a header, a bar within the epoch, a line per epoch, a table at the end."""

import sys
import time
from collections.abc import Sequence
from math import floor, isfinite, log10
from textwrap import wrap

from dlrun.clock import Clock


class Bar:
    """A progress bar within the epoch, on a terminal only, and only for epochs that take more than half a second."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.bar, self.tick = clock, None, _nothing
        self.terminal = sys.stderr.isatty()

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start_epoch(self) -> None:
        if self.terminal:
            self.started, self.tick = time.monotonic(), self._appear

    def _appear(self, samples: int) -> None:
        if time.monotonic() - self.started < 0.5:
            return
        from tqdm import tqdm

        clock, frames = self.clock, self.clock.epoch_samples
        self.bar = tqdm(
            total=frames or min(clock.steps_per_epoch, clock.batch + clock.total_steps - clock.step),
            initial=max(0, clock.samples - clock.epoch * frames) if frames else clock.batch,
            desc=f"epoch {clock.epoch + 1}/{clock.epochs}",
            unit="frame" if frames else "batch",
            leave=False,
            dynamic_ncols=True,
        )
        self.tick = self.bar.update if frames else self._one

    def _one(self, samples: int) -> None:
        self.bar.update()

    def validating(self) -> None:
        """The epoch's batches are done, its line is not there yet."""
        if self.bar is not None:
            self.bar.set_description(f"epoch {self.clock.epoch + 1}/{self.clock.epochs} validating")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar, self.tick = None, _nothing


def _nothing(samples: int) -> None: ...


def folded(line: str, width: int, indent: int) -> list[str]:
    """Where it is too long, in several: a word that is longer than a line is not broken."""
    return wrap(line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def header(version: str, facts: dict[str, str], width: int) -> str:
    """A line for each fact, folded where the terminal has fewer columns."""
    lead = max(map(len, facts))
    lines = [line for name, text in facts.items() for line in folded(f"  {name:{lead}}  {text}", width, lead + 4)]
    return "\n".join([f"dl-run {version}", *lines])


def number(value: float | int | None) -> str:
    """Short and readable: four digits that matter; nan and inf as they are (None is what JSON has for them)."""
    if value is None:
        return "nan"
    if isinstance(value, int):  # a count
        return f"{value:,}"
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:.2e}"


def column(values: list[float]) -> list[str]:
    """Numbers that stand beside each other, in one format: as many decimals as give the largest four digits.

    What is as near to a whole number as 1e-6 of the largest is one: float32 knows no better.
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


FIGURES = 5  # in the line of an epoch, at most


def epoch_line(row: dict, epochs: int, is_best: bool, width: int = 10_000, first: Sequence[str] = ()) -> str:
    """epoch 3/20   train loss 0.1234 acc 0.9612   val loss 0.1022 acc 0.9701 * 1.2 s

    first: names of metrics, the goal's first: of many figures those are shown, of a narrow terminal fewer, down to the
    goal alone. metrics.jsonl has them all.
    """
    keys = [key for key in row if key.startswith(("train/", "val/"))]
    order = [f"{part}/{name}" for name in first for part in ("val", "train")] or keys
    ranked = sorted(keys, key=lambda key: order.index(key) if key in order else len(order))[:FIGURES]
    seconds = row["time/seconds"]
    while True:
        words = [f"epoch {row['epoch']:{len(str(epochs))}}/{epochs} "]
        for part in ("train", "val"):
            mine = [key for key in keys if key in ranked and key.startswith(part)]
            values = [f"{key.partition('/')[2]} {number(row[key])}" for key in mine]
            words += [f" {part} {' '.join(values)} "] if values else []
        line = " ".join(words) + f"{'*' if is_best else ' '} {seconds:.{2 if seconds < 10 else 0}f} s"
        if len(line) < width or len(ranked) < 2:
            return line
        ranked.pop()


def table(rows: list[list[str]], words: int = 1) -> str:
    """Columns aligned: the first `words` to the left, the others to the right; a line under the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            f"{c:{w}}" if i < words else f"{c:>{w}}" for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])
