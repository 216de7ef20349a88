"""Follow runs while they run: each file is read again only after it changed. No torch here."""

import os
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean

from dlrun.output.folders import read_summary
from dlrun.output.rows import is_epoch, parse_row
from dlrun.paths import open_plain, read_whole
from dlrun.runs.listing import facts, status

EPOCHS = re.compile(r"^trainer:\n(?: .*\n)*?  epochs: (\d+)$", re.MULTILINE)
RECENT = 5  # epochs that an estimate of the time left averages over
SHARE, LATEST = 0.01, 10.0  # the share of time spent on listing folders; seconds after which they are listed anyway

Stamp = tuple[int, int, int]


def stamp(path: Path) -> Stamp | None:
    """Return a file's inode, time and size, which change whenever it does. None if there is no file."""
    try:
        entry = os.stat(path)
    except OSError:
        return None
    return entry.st_ino, entry.st_mtime_ns, entry.st_size


class Folders:
    """Lists folders again for at most SHARE of the time, but at least every LATEST seconds: thousands take a while."""

    def __init__(self, find: Callable[[], list[Path]]) -> None:
        self.find, self.folders, self.due = find, list[Path](), 0.0

    def __call__(self) -> list[Path]:
        if (started := time.monotonic()) >= self.due:
            self.folders = self.find()
            self.due = started + min((time.monotonic() - started) / SHARE, LATEST)
        return self.folders


@dataclass
class LiveRun:
    """A run and the content of its files when they were last read.

    summary: the content of summary.json. facts: the row of `dl-runs list`. epochs, steps: the rows of metrics.jsonl.
    planned: trainer.epochs, or None.
    """

    folder: Path
    summary: dict = field(default_factory=dict)
    facts: dict = field(default_factory=dict)
    epochs: list[dict] = field(default_factory=list)
    steps: list[dict] = field(default_factory=list)
    planned: int | None = None
    _summary: Stamp | None = None
    _config: Stamp | None = None
    _metrics: Stamp | None = None
    _offset: int = 0

    def read_facts(self) -> bool:
        """Read summary.json if it changed, and look whether a running run is still alive. Return whether facts changed.

        A run that was killed and is resumed writes a new summary, so that only running ones have to be looked at.
        """
        before, now = self.facts, stamp(self.folder / "summary.json")
        if not before or now != self._summary:
            self._summary, self.summary = now, read_summary(self.folder)
            self.facts = facts(self.folder, self.summary)
        elif self.is_running:
            self.facts = {**before, "status": status(self.folder, self.summary)}
        return self.facts != before

    def read_rows(self) -> bool:
        """Read the lines that metrics.jsonl gained; all of them if it was replaced. Return whether it changed."""
        path, before = self.folder / "metrics.jsonl", self._metrics
        now = stamp(path)
        if now == before:
            return False
        if now is None or before is None or now[0] != before[0] or now[2] < self._offset:
            self._offset, self.epochs, self.steps = 0, [], []
        self._metrics = now
        with suppress(OSError), open_plain(path) as file:
            file.seek(self._offset)
            text = file.read()
            text = text[: text.rfind(b"\n") + 1]  # the last line may still be being written
            self._offset += len(text)
            for line in text.splitlines():
                with suppress(ValueError):
                    row = parse_row(line)
                    (self.epochs if is_epoch(row) else self.steps).append(row)
        return True

    def read_plan(self) -> None:
        """Read trainer.epochs from the config, by its text, since parsing YAML takes ten times as long."""
        path = self.folder / ".hydra" / "config.yaml"
        if (now := stamp(path)) == self._config:
            return
        self._config, self.planned = now, None
        with suppress(OSError, ValueError):  # no text, or a number of thousands of digits
            match = EPOCHS.search(read_whole(path).decode())
            self.planned = int(match[1]) if match else None

    @property
    def is_running(self) -> bool:
        return self.facts.get("status") == "running"

    @property
    def goal(self) -> str | None:
        """The metric that chooses the best epoch."""
        goal = self.summary.get("goal")
        return goal if isinstance(goal, str) else self.facts["shown"][0] or None

    @property
    def epochs_done(self) -> float:
        """The number of epochs done, with the done share of the present one, as of the last row."""
        counts = [row["epoch"] for rows in (self.epochs, self.steps) if rows and (row := rows[-1]).get("epoch")]
        return float(max(counts, default=0))

    def seconds_left(self) -> float | None:
        """Estimate the seconds until all epochs are done, from the last epochs and their validations. None if unknown.

        Limits such as trainer.patience may end the run earlier.
        """
        spent = [_seconds(row) for row in self.epochs[-RECENT:]]
        if not self.is_running or not self.planned or self._metrics is None:
            return None
        if not spent and self._summary and self.epochs_done:  # the session began when it wrote its first summary
            spent = [(self._metrics[1] - self._summary[1]) / 1e9 / self.epochs_done]
        if not spent:
            return None
        since = time.time() - self._metrics[1] / 1e9
        return max(0.0, (self.planned - self.epochs_done) * mean(spent) - since)


def thinned(rows: list[dict], most: int) -> list[dict]:
    """Return at most `most` of the rows, at equal distances, the first and the last among them."""
    last = len(rows) - 1
    return rows if last < most else [rows[i * last // (most - 1)] for i in range(most)]


def _seconds(row: dict) -> float:
    return sum(row.get(f"time/{name}") or 0.0 for name in ("seconds", "val_seconds"))
