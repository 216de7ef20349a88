"""Use the whole terminal for a live view, and restore it after a key, Ctrl-C, Ctrl-Z or a signal. No torch here."""

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable
from types import FrameType

ENTER, LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"  # the alternate screen without a cursor, and back
KEYS = {"\x1b[A": "up", "\x1bOA": "up", "k": "up", "\x1b[B": "down", "\x1bOB": "down", "j": "down"}


class FullScreen:
    """Draws lines over the whole terminal and reads keys.

    Signals that end the process end the block first, so that the terminal gets its old content back.
    """

    def __init__(self) -> None:
        self.keyboard = sys.stdin.fileno() if sys.stdin and sys.stdin.isatty() else None
        self.saved = termios.tcgetattr(self.keyboard) if self.keyboard is not None else None
        self.handlers: dict[int, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> "FullScreen":
        for number, handler in ((signal.SIGTERM, _end), (signal.SIGHUP, _end), (signal.SIGTSTP, self._pause)):
            self.handlers[number] = signal.signal(number, handler)
        self._take()
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def size(self) -> tuple[int, int]:
        """Return the number of columns and lines."""
        terminal = os.get_terminal_size(sys.stdout.fileno())
        return terminal.columns or 80, terminal.lines or 24

    def draw(self, lines: list[str]) -> None:
        """Draw lines from the top. Old content is overwritten in place, since clearing it first would flicker."""
        sys.stdout.write("\x1b[H" + "".join(f"{line}\x1b[K\r\n" for line in lines[:-1]) + f"{lines[-1]}\x1b[K\x1b[J")
        sys.stdout.flush()

    def key(self, seconds: float) -> str:
        """Wait for a key: "up", "down", a letter, or "" if none came in time."""
        ready, _, _ = select.select([] if self.keyboard is None else [self.keyboard], [], [], seconds)
        if not ready:
            return ""
        text = os.read(ready[0], 32).decode("utf-8", "replace")
        return KEYS.get(text, text) or "q"  # an empty text: the terminal is gone

    def _take(self) -> None:
        if self.keyboard is not None:
            tty.setcbreak(self.keyboard)
        sys.stdout.write(ENTER)
        sys.stdout.flush()

    def _give_back(self) -> None:
        sys.stdout.write(LEAVE)
        sys.stdout.flush()
        if self.keyboard is not None and self.saved is not None:
            termios.tcsetattr(self.keyboard, termios.TCSADRAIN, self.saved)

    def _pause(self, number: int, frame: FrameType | None) -> None:
        """On Ctrl-Z, restore the terminal while the process is stopped."""
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
