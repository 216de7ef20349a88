"""A progress bar in a notebook's output, with the interface of tqdm's that `Bar` uses. It needs no widgets."""

import sys
import time
from html import escape
from typing import Any

REFRESH = 0.3  # seconds between two drawings of the bar


def is_notebook() -> bool:
    """Whether a kernel of Jupyter runs this: then standard error is shown, but cannot be drawn over."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return hasattr(shell, "kernel")


class NotebookBar:
    """total, initial: units of work. desc: the text before the bar."""

    def __init__(self, total: int, initial: int, desc: str, unit: str) -> None:
        from IPython.display import HTML, display

        self.html, self.total, self.done, self.desc, self.unit = HTML, total, initial, desc, unit
        self.more, self.began, self.initial, self.drawn = "", time.monotonic(), initial, time.monotonic()
        self.handle: Any = display(HTML(self._page()), display_id=True)

    def update(self, count: int) -> None:
        self.done += count
        if time.monotonic() - self.drawn >= REFRESH:
            self._draw()

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        self.more = text

    def set_description(self, text: str) -> None:
        self.desc = text
        self._draw()

    def close(self) -> None:
        """Remove the bar; what the run prints stays."""
        self.handle.update(self.html(""))

    def _draw(self) -> None:
        self.drawn = time.monotonic()
        self.handle.update(self.html(self._page()))

    def _page(self) -> str:
        speed = (self.done - self.initial) / max(1e-9, time.monotonic() - self.began)
        words = [f"{self.done:,}/{self.total:,}", f"{speed:,.0f} {self.unit}/s" if speed else "", self.more]
        text = escape(", ".join(filter(None, words)))
        return (
            f'<div style="font-family: monospace">{escape(self.desc)} '
            f'<progress value="{min(self.done, self.total)}" max="{self.total}"></progress> {text}</div>'
        )
