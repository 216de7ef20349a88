"""zip(a=choice(...),b=choice(...)): values that go together.

Source: Hydra's own plan, docs/design/zipped_sweeps.md. Hydra 1.3 cannot read it: its own parser sees the values only.
"""

import re

from dlrun.errors import UserError

ZIP = re.compile(r"\s*(?:(?P<name>[\w./]+)=)?zip\((?P<inner>.*)\)\s*", re.S)
CLOSING = {"(": ")", "[": "]", "{": "}"}


def is_zip(argument: str) -> bool:
    return ZIP.fullmatch(argument) is not None


def members(argument: str) -> list[tuple[str, str]]:
    """The keys of a zip with their values as written. Raises UserError where it has not two keys or more."""
    found = []
    for part in _split(ZIP.fullmatch(argument)["inner"]):
        key, equals, value = part.strip().partition("=")
        if not equals or not key or not value:
            raise UserError(
                f"{argument}: cannot read {part.strip()!r}\n  expected zip(key=choice(...),key=choice(...)), "
                "as in 'pair=zip(model.hidden=choice([32],[64]),optimizer.lr=choice(0.1,0.01))'"
            )
        found.append((key, value))
    keys = [key.lstrip("+") for key, _ in found]
    if len(set(keys)) < len(keys) or len(keys) < 2:
        why = "one key is there twice" if len(keys) > 1 else "there is nothing to go with its one key"
        raise UserError(f"{argument}: {why}\n  expected two different keys or more, each with as many values")
    return found


def _split(text: str) -> list[str]:
    """At the commas that stand in no brackets and no quotes."""
    parts, depth, quote, start = [], [], "", 0
    for i, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote and text[i - 1] != "\\" else quote
        elif letter in "'\"":
            quote = letter
        elif letter in CLOSING:
            depth.append(CLOSING[letter])
        elif depth and letter == depth[-1]:
            depth.pop()
        elif letter == "," and not depth:
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]
