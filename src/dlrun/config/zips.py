"""Read zip(a=choice(...),b=choice(...)), which sweeps several keys together.

Source: Hydra's own plan, docs/design/zipped_sweeps.md. Hydra 1.3 cannot read zip(...); its parser reads the values.
"""

import re

from dlrun.errors import UserError

ZIP = re.compile(r"\s*(?:(?P<name>[\w./]+)=)?zip\((?P<inner>.*)\)\s*", re.S)
CLOSING = {"(": ")", "[": "]", "{": "}"}


def is_zip(argument: str) -> bool:
    """Whether an argument has the form zip(...) or name=zip(...)."""
    return ZIP.fullmatch(argument) is not None


def pairs_of(argument: str) -> list[tuple[str, str]]:
    """Return the keys of a zip, each with its values as text. Raises UserError for fewer than two keys."""
    pairs = []
    match = ZIP.fullmatch(argument)
    for part in _split(match["inner"] if match else ""):
        key, equals, value = part.strip().partition("=")
        if not equals or not key or not value:
            raise UserError(
                f"{argument}: cannot read {part.strip()!r}\n  expected zip(key=choice(...),key=choice(...)), "
                "such as 'pair=zip(model.hidden=choice([32],[64]),optimizer.lr=choice(0.1,0.01))'"
            )
        pairs.append((key, value))
    keys = [key.lstrip("+") for key, _ in pairs]
    if len(set(keys)) < len(keys) or len(keys) < 2:
        why = "it has a key twice" if len(keys) > 1 else "it has only one key"
        raise UserError(f"{argument}: {why}\n  expected two or more different keys, with the same number of values")
    return pairs


def _split(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
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
