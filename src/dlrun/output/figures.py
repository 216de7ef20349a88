"""Everything that all figures share: style, fonts, ticks, silencing matplotlib. matplotlib is imported on first use."""

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import islice
from math import floor, log10
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

logging.getLogger("matplotlib").setLevel(logging.ERROR)  # messages about its font cache do not concern the user

TRAIN, VAL, GOOD, DARK, GREY = "#4c78a8", "#f58518", "#3f9b57", "#24292f", "#8a93a0"
COLOURS = (TRAIN, VAL, GOOD, "#d64550", "#62aeb3", "#a06cae", "#e48fa3", "#8f6b52", "#d9b62f", "#7f858d")
STYLE = {
    "text.parse_math": False,  # a $ in a name is a dollar
    "font.family": ["DejaVu Sans"],
    "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": DARK,
    "axes.titlesize": 11,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "text.color": DARK,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "grid.color": "#e3e7ec",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.fontsize": 9,
    "lines.solid_capstyle": "round",
}
BASE = "DejaVu Sans"  # comes with matplotlib
LIKELY = ("cjk", "noto", "emoji", "symbola", "unifont", "unicode", "gothic", "hei", "ming", "song")  # in fonts' names
FONTS = 200  # most fonts to search for a character
LONGEST = 28  # most characters of a name in a figure


def new_figure(
    width: float = 6.4, height: float = 4.4, columns: int = 1, projection: str | None = None
) -> "tuple[Figure, Any]":
    """A figure (size in inches) and its axes: one Axes, or an array of them for several columns.

    projection: "3d" for surfaces.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # without pyplot: no windows, no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns, subplot_kw={"projection": projection})


def new_grid(width: float, height: float, rows: int, columns: int) -> "tuple[Figure, list[Axes]]":
    """A figure (size in inches) and its axes, row by row."""
    figure, _ = new_figure(width, height)
    figure.clear()
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def render(make: "Callable[[], Figure]") -> np.ndarray:
    """Make a figure in the style above, whatever the user's settings, and return its pixels: (H, W, 3), uint8."""
    import matplotlib
    from cycler import cycler
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about glyphs and layouts, which the user cannot fix
        matplotlib.rcdefaults()
        style: dict[Any, Any] = STYLE | {"axes.prop_cycle": cycler(color=COLOURS)}
        matplotlib.rcParams.update(style)
        figure = make()
        _set_fonts(figure)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _set_fonts(figure: "Figure") -> None:
    """Add the fonts that the figure's texts need beside BASE."""
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # tick labels are created when they are requested
    texts = figure.findobj(Text)
    needed = {font for text in texts for c in text.get_text() if (font := font_with(c)) not in (None, BASE)}
    if needed:
        for text in texts:
            text.set_fontfamily([BASE, *sorted(needed)])


def drawable(words: Iterable[str], instead: Sequence[str] | None = None, most: int = LONGEST) -> list[str]:
    """Words that can be drawn: long ones are cut to `most` characters, those that no font can draw are replaced.

    instead: the replacements; None for their numbers: #0, #1 and so on.
    """
    texts = []
    for i, word in enumerate(words):
        if not can_draw(word):
            word = f"#{i}" if instead is None else instead[i]
        texts.append(word if len(word) <= most else word[: most - 3] + "...")
    return texts


def key(labels: Iterable[str]) -> str:
    """The key to the numbers that `drawable` returns: a line for each; empty if all labels can be drawn."""
    lines = [f"#{i}  {label}" for i, label in enumerate(labels) if not can_draw(label)]
    return "\n".join(line.encode("utf-8", "backslashreplace").decode() for line in lines)


def can_draw(word: str) -> bool:
    """Whether installed fonts have all characters of a word."""
    return word.isprintable() and all(font_with(character) for character in word)


@cache
def font_with(character: str) -> str | None:
    """The family of an installed font that has a character, preferably BASE; None if none has it."""
    from matplotlib import font_manager

    if " " <= character <= "~":  # matplotlib brings BASE, which has them; reading its list of characters takes 0.05 s
        return BASE
    if ord(character) in _characters(font_manager.findfont(BASE)):
        return BASE
    fonts = {font.name: font.fname for font in font_manager.fontManager.ttflist}
    ranked = sorted(fonts, key=lambda name: not any(word in name.lower() for word in LIKELY))
    return next((name for name in islice(ranked, FONTS) if ord(character) in _characters(fonts[name])), None)


@cache
def _characters(path: str) -> frozenset[int]:
    """The characters that a font can draw; none if it has only bitmaps, or is the "last resort" font of boxes."""
    from matplotlib.ft2font import FT2Font

    try:
        font = FT2Font(path)
        font.set_size(10, 100)
        return (
            frozenset() if "LastResort" in path or "Last Resort" in font.family_name else frozenset(font.get_charmap())
        )
    except (OSError, RuntimeError, ValueError):
        return frozenset()


def ink(colour: Sequence[float]) -> str:
    """The text colour, dark or white, that is readable on a colour (red, green, blue in [0, 1])."""
    return "white" if np.dot(colour[:3], (0.299, 0.587, 0.114)) < 0.55 else DARK


def short(value: float, _: object = None) -> str:
    """The text of a tick: 0.25, 150k, 1.5M. The second argument is the tick's position, which matplotlib passes."""
    for least, size, unit in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= least:
            return f"{value / size:g}{unit}"
    return f"{value:.6g}"


def plain_ticks(axis: "Axis", whole: bool = False, most: int = 7) -> None:
    """Set ticks at round numbers, at most `most`, in one format. whole: integers only."""
    from matplotlib.ticker import MaxNLocator

    def text(value: float, _: object) -> str:
        low, high = sorted(axis.get_view_interval())
        step = min(np.diff(axis.get_majorticklocs()), default=0)
        decimals = max(0, -floor(log10(step) + 1e-9)) if step > 0 else 7
        if decimals > 6 or max(abs(low), abs(high)) >= 1e4:
            return short(value if abs(value) > 1e-9 * (high - low) else 0.0)
        return f"{value + 0.0:.{decimals}f}".replace(f"-{0:.{decimals}f}", f"{0:.{decimals}f}")

    axis.set_major_locator(MaxNLocator(most, integer=whole, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(text)


def scaled(axes: "Axes", values: Sequence[float] | np.ndarray) -> None:
    """Make the y-axis logarithmic if the values span two decades or more; set plain numbers as ticks."""
    from matplotlib.ticker import LogLocator, NullFormatter

    if len(values) and min(values) > 0 and max(values) >= 100 * min(values):
        axes.set_yscale("log")
        subs = (1, 2, 5) if max(values) < 2000 * min(values) else (1,)
        axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=9))
        axes.yaxis.set_major_formatter(short)
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        plain_ticks(axes.yaxis)
