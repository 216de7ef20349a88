"""Build a self-contained HTML page with embedded images and style and without scripts. No torch here."""

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from pathlib import Path
from struct import unpack

from dlrun.output.written import whole
from dlrun.paths import read_whole

WIDE = 1.8  # the ratio of width to height above which a figure has its own row
STYLE = """
:root { --ink: #24292f; --soft: #57606a; --line: #d8dde3; --card: #f6f8fa; --wrong: #b42318; }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); max-width: 1120px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .8rem; padding-bottom: .3rem; }
h2 { border-bottom: 1px solid var(--line); } p { color: var(--soft); }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td { padding: .15rem .8rem .15rem 0; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { padding: .15rem .8rem .15rem 0; color: var(--soft); font-weight: normal; border-bottom: 1px solid var(--line); }
.numbers th, .numbers td { text-align: right; } .numbers th:first-child, .numbers td:first-child { text-align: left; }
td:first-child { color: var(--soft); overflow-wrap: normal; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 1rem; }
.figures figure { border: 1px solid var(--line); border-radius: 6px; padding: .5rem; display: flex; margin: 0; }
.figures img { max-width: 100%; max-height: 560px; margin: auto; object-fit: contain; }
.figures + .figures { margin-top: 1rem; } .figures .wide { grid-column: 1 / -1; }
.samples { display: grid; gap: 1rem; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); --columns: 4; }
.samples.images { --columns: 6; }
@media (max-width: 960px) { .samples { --columns: 3; } .samples.images { --columns: 4; } }
@media (max-width: 640px) { .samples { --columns: 2; } .samples.images { --columns: 3; } }
.samples figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .6rem; font-size: 13px; }
.samples figure { display: flex; flex-direction: column; gap: .5rem; min-width: 0; }
.samples img { width: 100%; image-rendering: pixelated; border-radius: 3px; }
.samples td { padding: .05rem .6rem .05rem 0; } .samples td + td { text-align: right; padding-right: 0; }
.samples table { width: 100%; } .samples p { margin: 0; color: var(--ink); overflow-wrap: anywhere; }
figcaption { font-variant-numeric: tabular-nums; margin-top: auto; overflow-wrap: anywhere; }
figcaption span { display: block; } .name { color: var(--soft); } .wrong { color: var(--wrong); }
pre { background: var(--card); padding: .8rem; overflow-x: auto; font-size: 13px; border-radius: 6px; }
@media print { details[open] pre { white-space: pre-wrap; } }
"""


def page(title: str, sections: list[tuple[str, str]]) -> str:
    """Return the page. sections: (heading, HTML); sections without HTML are left out."""
    body = "".join(f"<h2>{escape(head)}</h2>\n{html}\n" for head, html in sections if html)
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
    view = '<meta name="viewport" content="width=device-width">\n'
    return f"{head}{view}<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n{body}</html>\n"


def facts(values: dict[str, str]) -> str:
    """Return a table of names and values."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in values.items())
    return f'<table class="facts">{rows}</table>'


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table of texts with a head; all columns but the first are aligned right."""
    lines = [f"<tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr>"]
    lines += [f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows]
    return '<table class="numbers">' + "\n".join(lines) + "</table>"


def image(png: bytes, name: str) -> str:
    """Return an embedded PNG with `name` as its alternative text."""
    return f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(name)}">'


def figures(folder: Path, curves: Sequence[str]) -> str:
    """Return all PNGs of a folder: first those named in `curves`, in that order, then the others, wide ones last."""
    shown = {path.stem: read_whole(path) for path in sorted(folder.glob("*.png")) if path.is_file()}
    others = sorted(shown.keys() - set(curves), key=lambda name: (bool(_wide(shown[name])), name))
    grids = []
    for names in ([name for name in curves if name in shown], others):
        boxes = [f"<figure{_wide(shown[name])}>{image(shown[name], name)}</figure>" for name in names]
        grids.append(f'<div class="figures">{"".join(boxes)}</div>' if boxes else "")
    return "".join(grids)


def _wide(png: bytes) -> str:
    width, height = unpack(">II", png[16:24].ljust(8, b"\0"))  # where a PNG has them; a damaged one may end before
    return ' class="wide"' if width > WIDE * height else ""


def lines(series: list[list[float]]) -> str:
    """Curves of numbers at equal steps, in one frame, as an SVG; darker ones come first."""
    low, high = min(map(min, series)), max(map(max, series))
    width, height, curves = 220, 70, []
    for i, values in enumerate(series[:6]):
        across = width / max(1, len(values) - 1)
        points = [
            f"{k * across:.1f},{height * (high - value) / ((high - low) or 1):.1f}" for k, value in enumerate(values)
        ]
        curves.append(
            f'<polyline points="{" ".join(points)}" fill="none" stroke="#1f5f99" opacity="{1 / (1 + i):.2f}"/>'
        )
    return f'<svg viewBox="-2 -2 {width + 4} {height + 4}" width="{width}">{"".join(curves)}</svg>'


def samples(cells: list[str], are_images: bool) -> str:
    """Return samples in equal cells. Twelve fill whole rows, since every number of columns divides 12."""
    kind = "samples images" if are_images else "samples"
    return f'<div class="{kind}">{"".join(cells)}</div>' if cells else "<p>none</p>"


def sample(inner: str, lines: list[str], is_wrong: bool, name: str = "") -> str:
    """Return one sample. inner: HTML of the input; lines: target and prediction; name: name of its file, if any."""
    kind = ' class="wrong"' if is_wrong else ""
    caption = "".join(f"<span{kind}>{escape(line)}</span>" for line in lines)
    caption += f'<span class="name">{escape(name)}</span>' if name else ""
    return f"<figure>{inner}<figcaption>{caption}</figcaption></figure>"


def collapsible(summary: str, text: str) -> str:
    """Return text that is hidden until the reader opens it."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def write(path: Path, html: str) -> str:
    """Write a page, whole or not at all, and return a line with its path and size."""
    with whole(path) as temporary:
        temporary.write_text(html, encoding="utf-8", errors="backslashreplace")
    return f"{path}  {path.stat().st_size / 1e3:,.0f} kB"
