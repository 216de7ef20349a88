"""A page of HTML that stands alone: pictures and style are inside, there are no scripts. No torch here."""

from base64 import b64encode
from html import escape
from pathlib import Path

from dlrun.after.written import whole

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1b1f24; max-width: 1100px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #d0d7de; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
td { padding: .2rem .8rem .2rem 0; text-align: right; white-space: nowrap; }
td:first-child { text-align: left; }
.facts td { text-align: left; white-space: normal; } .facts td:first-child { color: #57606a; white-space: nowrap; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.figures img { max-width: min(100%, 520px); }
.samples { display: flex; flex-wrap: wrap; gap: .9rem; } figure { margin: 0; max-width: 260px; }
.samples img { width: 112px; image-rendering: pixelated; border: 1px solid #d0d7de; }
figcaption { font-size: 13px; } .wrong { color: #b42318; }
pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; font-size: 13px; }
@media print { details[open] pre { white-space: pre-wrap; } }
"""


def page(title: str, sections: list[tuple[str, str]]) -> str:
    """sections: headings and their HTML; those without any are left out."""
    body = "".join(f"<h2>{escape(head)}</h2>\n{html}\n" for head, html in sections if html)
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
    view = '<meta name="viewport" content="width=device-width">\n'
    return f"{head}{view}<style>{STYLE}</style>\n<h1>{escape(title)}</h1>\n{body}</html>\n"


def facts(found: dict[str, str]) -> str:
    """Names and values, a line each."""
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>\n" for name, value in found.items())
    return f'<table class="facts">{rows}</table>'


def picture(png: bytes, name: str) -> str:
    return f'<img src="data:image/png;base64,{b64encode(png).decode()}" alt="{escape(name)}">'


def figures(folder: Path) -> str:
    """All PNGs of a folder, the curves of the loss and the accuracy first."""
    order = {"loss": 0, "acc": 1, "confusion_matrix": 2}
    paths = sorted(folder.glob("*.png"), key=lambda path: (order.get(path.stem, 3), path.stem))
    return f'<div class="figures">{"".join(picture(p.read_bytes(), p.stem) for p in paths)}</div>' if paths else ""


def sample(inner: str, caption: str, is_wrong: bool) -> str:
    """inner: HTML of what was given; caption: what was said of it."""
    kind = ' class="wrong"' if is_wrong else ""
    return f"<figure>{inner}<figcaption{kind}>{escape(caption)}</figcaption></figure>"


def folded(summary: str, text: str) -> str:
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def write(path: Path, html: str) -> str:
    """The whole page or nothing. Gives a line about it."""
    with whole(path) as temporary:
        temporary.write_text(html, encoding="utf-8")
    return f"{path}  {path.stat().st_size / 1e3:,.0f} kB"
