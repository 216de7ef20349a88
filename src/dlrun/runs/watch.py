"""A live view of runs in the terminal: a table, the chosen run's curves as text, the machine's load. No torch here."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from dlrun.errors import counted, printable_cell
from dlrun.output.console import duration, number
from dlrun.output.folders import all_runs
from dlrun.output.text_chart import COLOURS, Points, chart, points
from dlrun.runs.live import Folders, LiveRun, thinned
from dlrun.system.load import MachineLoad

EVERY = 1.0  # seconds between two drawings
BOLD, DIM, INVERSE = "1", "2", "7"
STATUS = {"running": "36", "finished": "32", "diverged": "31", "failed": "31", "killed": "31", "stopped": "33"}
PANEL = 38  # least columns of a chart
CHART = 10  # least lines of a chart, with its title
DRAWN = 300  # the most rows of a curve: about one for each dot of a wide chart
OLD = 50  # the most runs that are followed, the newest

Part = tuple[str, str]  # a text and its ANSI codes, "" for none


class Watch:
    """The runs to watch, and the one that is chosen.

    find: lists the folders to watch, the newest last. Runs that are running stand above the others.
    """

    def __init__(self, title: str, find: Callable[[], list[Path]]) -> None:
        self.title, self.find, self.machine = title, Folders(find), MachineLoad()
        self.runs: dict[Path, LiveRun] = {}
        self.chosen: Path | None = None
        self.braille = _can_print("\u28ff┤│▸")
        self.colour = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    def read(self) -> None:
        """Read the files that changed."""
        folders = self.find()[::-1][:OLD]
        self.runs = {folder: self.runs.get(folder) or LiveRun(folder) for folder in folders}
        for run in self.runs.values():
            run.read_facts()
            run.read_plan()
            if run.is_running or not run.epochs:
                run.read_rows()
        order = sorted(self.runs, key=lambda folder: not self.runs[folder].is_running)
        self.runs = {folder: self.runs[folder] for folder in order}
        if self.chosen not in self.runs:
            self.chosen = next(iter(self.runs), None)

    def move(self, by: int) -> None:
        """Choose another run of the table."""
        order = list(self.runs)
        if self.chosen in self.runs:
            self.chosen = order[min(max(order.index(self.chosen) + by, 0), len(order) - 1)]

    def lines(self, width: int, height: int) -> list[str]:
        """Return the lines of the view, at most `height`, each at most `width` characters wide."""
        running = sum(run.is_running for run in self.runs.values())
        head = f"{counted(len(self.runs), 'run')}, {running} running"
        lines = [
            self._line([("dl-runs watch  ", BOLD), (f"{self.title}   {head}", "")], width, time.strftime("%H:%M:%S")),
            self._line([(self.machine.text(), DIM)], width),
        ]
        if not self.runs:
            return [*lines, "", self._line([("no runs here yet; q quits", DIM)], width)][:height]
        if len(self.runs) > 1:
            room = max(3, min(len(self.runs), (height - 4) // 3))
            lines += ["", *self._table(width, room)]
        run = self.runs[self.chosen or next(iter(self.runs))]
        keys = "q quit" + ("   up, down: another run" if len(self.runs) > 1 else "")
        lines += ["", *self._run(run, width, height - len(lines) - 2)]
        lines = lines[: height - 1]
        return [*lines, *[""] * (height - 1 - len(lines)), self._line([(keys, DIM)], width)]

    def _table(self, width: int, room: int) -> list[str]:
        """Return the table's head and the rows around the chosen run."""
        order = list(self.runs)
        at = order.index(self.chosen) if self.chosen in self.runs else 0
        first = max(0, min(at - room // 2, len(order) - room))
        cells = [("run", "status", "epoch", "now", "best", "time left")]
        cells += [self._cells(self.runs[folder]) for folder in order[first : first + room]]
        widths = [max(len(row[i]) for row in cells) for i in range(6)]
        widths[0] = max(12, min(widths[0], width - sum(widths[1:]) - 12))
        lines = []
        for i, row in enumerate(cells):
            is_chosen = i > 0 and order[first + i - 1] == self.chosen
            name = row[0] if len(row[0]) <= widths[0] else "..." + row[0][3 - widths[0] :]
            rest = "  ".join(f"{text:>{w}}" for text, w in zip(row[2:], widths[2:], strict=True))
            mark = ("▸ " if self.braille else "> ") if is_chosen else "  "
            colour = DIM if i == 0 else STATUS.get(row[1], "")
            bold = BOLD if is_chosen else DIM if i == 0 else ""
            parts = [(f"{mark}{name:{widths[0]}}  ", bold), (f"{row[1]:{widths[1]}}  ", colour), (rest, bold)]
            lines.append(self._line(parts, width))
        return lines

    def _cells(self, run: LiveRun) -> tuple[str, str, str, str, str, str]:
        goal, best = run.goal, _best(run)
        epochs = f"{run.epochs_done:.1f}".removesuffix(".0")
        last = run.epochs[-1].get(goal) if run.epochs and goal else None
        word = goal.partition("/")[2] if goal else ""
        left = run.seconds_left()
        return (
            printable_cell(_short_name(run.folder)),
            printable_cell(str(run.facts["status"])),
            f"{epochs}/{run.planned}" if run.planned else epochs,
            printable_cell(f"{word} {number(last)}") if isinstance(last, int | float) else "-",
            number(best) if best is not None else "-",
            duration(left) if left is not None else "-",
        )

    def _run(self, run: LiveRun, width: int, height: int) -> list[str]:
        """Return the chosen run's name, its facts and its charts."""
        facts, cells = run.facts, self._cells(run)
        words = [
            f"{name}={facts[name]}" for name in ("model", "data", "optimizer", "seed") if facts.get(name) is not None
        ]
        if len(self.runs) == 1:
            words = [f"epoch {cells[2]}", *([f"{cells[5]} left"] if cells[5] != "-" else []), *words]
        status = printable_cell(str(facts["status"]))
        head = [(f"{printable_cell(_short_name(run.folder))}  ", BOLD), (f"{status}  ", STATUS.get(status, ""))]
        lines = [self._line([*head, (printable_cell(" ".join(words)), "")], width)]
        panels = _panels(run)
        if not panels:
            return [*lines, self._line([("no metrics yet", DIM)], width)]
        across = max(1, min(width // PANEL, len(panels), 4))
        down = max(1, min((height - 1) // CHART, -(-len(panels) // across)))
        size = (width - 2 * (across - 1)) // across, (height - 1) // down
        for i in range(0, across * down, across):
            drawn = [self._panel(name, curves, *size) for name, curves in panels[i : i + across]]
            lines += ["  ".join(row) for row in zip(*drawn, strict=True)]
        return lines

    def _panel(self, name: str, curves: dict[str, Points], width: int, height: int) -> list[str]:
        """Return a chart with a title that names each curve in its colour, with its last value."""
        parts: list[Part] = [(printable_cell(name), BOLD)]
        for i, (split, curve) in enumerate(curves.items()):
            parts.append((f"  {split} {number(curve[-1][1])}", str(COLOURS[i % len(COLOURS)])))
        title = self._line(parts, width, fill=True)
        return [title, *chart(list(curves.values()), width, height - 1, self.braille, self.colour)]

    def _line(self, parts: list[Part], width: int, right: str = "", fill: bool = False) -> str:
        """Join texts with their colours, cut to `width` characters. right: a text at the end, if there is room."""
        room, line = width, ""
        for text, codes in parts:
            text = text[:room]
            room -= len(text)
            line += f"\x1b[{codes}m{text}\x1b[0m" if self.colour and codes and text else text
        if right and room > len(right):
            return line + " " * (room - len(right)) + right
        return line + " " * room if fill else line


def watch(title: str, find: Callable[[], list[Path]]) -> Iterator[str]:
    """Show the live view until q or Ctrl-C. Without a terminal, yield one drawing of it instead."""
    view = Watch(title, find)
    try:
        if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            _show(view)
        else:
            view.read()
            yield from (line.rstrip() for line in view.lines(100, 40))
    finally:
        view.machine.close()


def _show(view: Watch) -> None:
    from dlrun.output.full_screen import FullScreen

    try:
        with FullScreen() as screen:
            key = ""
            while key not in ("q", "Q", "\x1b"):
                view.move({"up": -1, "down": 1}.get(key, 0))
                if key == "":
                    view.read()
                screen.draw(view.lines(*screen.size()))
                key = screen.key(EVERY)
    except KeyboardInterrupt:
        pass  # the usual way to leave


def _panels(run: LiveRun) -> list[tuple[str, dict[str, Points]]]:
    """Return the metrics to draw, the goal first, each with its curves on val and train.

    Until there are two epochs, the train curve consists of the rows of steps (trainer.log_every).
    """
    names = list(dict.fromkeys(key for row in (run.epochs[-1:] + run.steps[-1:]) for key in row))
    bare = [name.partition("/")[2] for name in names if name.startswith(("train/", "val/", "step/"))]
    goal = (run.goal or "").partition("/")[2]
    ranked = sorted(dict.fromkeys(bare), key=lambda name: (name != goal, name != "loss"))
    panels: list[tuple[str, dict[str, Points]]] = []
    epochs, windows = thinned(run.epochs, DRAWN), thinned(run.steps, DRAWN) if len(run.epochs) < 2 else []
    for name in ranked:
        train = points(windows, f"step/{name}") or points(epochs, f"train/{name}")
        both = ("val", points(epochs, f"val/{name}")), ("train", train)
        curves: dict[str, Points] = {split: curve for split, curve in both if curve}
        if curves:
            panels.append((name, curves))
    return panels


def _best(run: LiveRun) -> float | None:
    """Return the best value of the goal so far: that of the summary, else that of the rows."""
    if isinstance(run.facts["best"], int | float):
        return run.facts["best"]
    scores, goal = run.summary.get("scores"), run.goal
    values = [y for _, y in points(run.epochs, goal)] if goal else []
    is_least = isinstance(scores, dict) and scores.get(goal) == "min"
    return (min if is_least else max)(values, default=None)


def _short_name(folder: Path) -> str:
    """Return a run's name: time and names, or the sweep's and the job's number."""
    return f"{folder.parent.name}/{folder.name}" if folder.name.isdigit() else folder.name


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def watched(which: Path | None, base: Path) -> tuple[str, Callable[[], list[Path]]]:
    """Return the view's title and the function that lists the runs. which: a run, a sweep, or None for all runs."""
    from dlrun.runs.compare import jobs_of

    if which is None:
        return str(base), lambda: all_runs(base)
    if os.path.isfile(which / "sweep.json"):
        return str(which), lambda: jobs_of(which)[::-1]
    return str(which), lambda: [which]
