"""Curves as text: two by four dots in each character, as Braille patterns. No torch here."""

from collections.abc import Sequence
from math import isfinite, log10

from dlrun.output.console import column, number

BASE = 0x2800  # the empty Braille pattern
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))  # bit of each dot, by column and row
COLOURS = (36, 33, 35, 32, 34, 31)  # ANSI: cyan, yellow, magenta, green, blue, red

Points = Sequence[tuple[float, float]]


def chart(curves: Sequence[Points], width: int, height: int, braille: bool = True, colour: bool = True) -> list[str]:
    """Return a chart of `height` lines, each `width` characters wide: an axis of values on the left, x below.

    curves: finite points with ascending x; the first is drawn last, above the others. braille: False draws a star in
    each character, for terminals without Unicode.
    """
    points = [point for curve in curves for point in curve]
    if not points or height < 3 or width < 16:
        return [f"{'no values yet':{width}}"[:width], *[" " * width] * (height - 1)]
    xs, ys = [[point[i] for point in points] for i in (0, 1)]
    low, high = _widened(min(ys), max(ys))
    labels = _labels(low, high)
    margin = max(map(len, labels))
    canvas = _Canvas(width - margin - 2, height - 1, braille)
    left, right = min(xs), max(xs)
    for i in reversed(range(len(curves))):
        canvas.draw([(_share(x, left, right), _share(y, low, high)) for x, y in curves[i]], i)
    lines = []
    for row, text in enumerate(canvas.lines(colour)):
        label = labels[0] if row == 0 else labels[1] if row == height - 2 else ""
        lines.append(f"{label:>{margin}} {'┤' if braille and label else '│' if braille else '|'}{text}")
    ends = [number(left) if left % 1 else f"{left:.0f}", number(right) if right % 1 else f"{right:.0f}"]
    gap = width - margin - 2 - len(ends[0])
    return [*lines, f"{'':{margin + 2}}{ends[0]}{ends[1] if left < right else '':>{gap}}"]


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return limits that differ, for curves of one value."""
    return (low, high) if high > low else (low - (abs(low) or 1.0) * 0.05, high + (abs(high) or 1.0) * 0.05)


def _labels(low: float, high: float) -> list[str]:
    """Return the upper and the lower limit with enough digits to differ."""
    texts = column([high, low])
    if texts[0] == texts[1]:
        decimals = min(12, max(0, 1 - int(log10(high - low))))
        texts = [f"{high:.{decimals}f}", f"{low:.{decimals}f}"]
    return texts


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.0


class _Canvas:
    """A grid of characters, each with its dots and the curve that drew in it last."""

    def __init__(self, width: int, height: int, braille: bool) -> None:
        self.width, self.height, self.braille = width, height, braille
        self.across, self.down = (2, 4) if braille else (1, 1)
        self.cells: dict[tuple[int, int], list[int]] = {}  # by row and column: bits, number of the curve

    def draw(self, points: Points, curve: int) -> None:
        """Draw a line through points, whose coordinates are shares of the width and the height, in [0, 1]."""
        most_x, most_y = self.width * self.across - 1, self.height * self.down - 1
        places = [(round(x * most_x), round((1 - y) * most_y)) for x, y in points]
        for (x0, y0), (x1, y1) in zip(places, places[1:] or places, strict=False):
            steps = max(abs(x1 - x0), abs(y1 - y0), 1)
            for i in range(steps + 1):
                self._dot(x0 + round((x1 - x0) * i / steps), y0 + round((y1 - y0) * i / steps), curve)

    def _dot(self, x: int, y: int, curve: int) -> None:
        cell = self.cells.setdefault((y // self.down, x // self.across), [0, curve])
        cell[0] |= DOTS[x % 2][y % 4]
        cell[1] = curve

    def lines(self, colour: bool) -> list[str]:
        """Return the rows of characters, with ANSI colours or without."""
        return ["".join(self._character(row, i, colour) for i in range(self.width)) for row in range(self.height)]

    def _character(self, row: int, i: int, colour: bool) -> str:
        if (row, i) not in self.cells:
            return " "
        bits, curve = self.cells[row, i]
        text = chr(BASE + bits) if self.braille else "*"
        return f"\x1b[{COLOURS[curve % len(COLOURS)]}m{text}\x1b[0m" if colour else text


def points(rows: Sequence[dict], name: str, axis: str = "epoch") -> list[tuple[float, float]]:
    """Return the finite values of a metric over an axis of the rows."""
    pairs = [(row.get(axis), row.get(name)) for row in rows]
    return [(x, y) for x, y in pairs if isinstance(x, int | float) and isinstance(y, int | float) and isfinite(y)]
