"""Tokenisation: words of any script, characters, or words as Keras splits them.

Source: Keras's text_to_word_sequence (the book, section 11.5), for `keras`, and for ASCII text in `words`.
"""

import re
from unicodedata import category, normalize

from dlrun.types import Tokenization

FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'  # Keras's filters, without the apostrophe
_TO_SPACES = str.maketrans(FILTERS + "\r", " " * (len(FILTERS) + 1))  # \r: Windows files give the same words
_UNSPACED = ((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))  # Thai, Lao; Burmese; Khmer
_MARKS = "".join(chr(c) for low, high in _UNSPACED for c in range(low, high + 1) if category(chr(c))[0] == "M")
_LETTERS = "".join(f"{chr(low)}-{chr(high)}" for low, high in _UNSPACED)
# tokens of one character: kana, Bopomofo and ideographs, and each letter of _UNSPACED with its marks
_ALONE = re.compile(
    f"[\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
    f"\U00020000-\U0003ffff]|[{_LETTERS}][{_MARKS}]*"
)


class _Breaks(dict):
    """A table for str.translate that replaces characters between words by blanks. Entries are made when needed."""

    def __missing__(self, code: int) -> str:
        self[code] = replacement = self._replace(chr(code))
        return replacement

    def _replace(self, letter: str) -> str:
        kind = category(letter)
        if letter == "\u2019":  # the typographic apostrophe
            return "'"
        if letter == "'" or kind[0] in "LN":
            return letter
        if kind == "So":  # each emoji is a word
            return f" {letter} "
        if kind == "Cf" and letter != "\u200b" or "\ufe00" <= letter <= "\ufe0f":  # joiners, soft hyphens, variants
            return ""
        return letter if kind[0] == "M" else " "


_BREAKS = _Breaks()


def split_text(text: str, tokens: Tokenization) -> list[str]:
    """Split a text into tokens, in lower case.

    words: split at blanks and punctuation of any script; in scripts without blanks each letter is a word. characters:
    each character is a token, and any number of blanks is one blank. keras: split at ASCII blanks and punctuation only.
    """
    if tokens == "characters":
        return list(" ".join(normalize("NFC", text).lower().split()))
    if tokens == "keras":
        return [word for word in text.lower().translate(_TO_SPACES).split(" ") if word]
    if text.isascii():
        return text.lower().translate(_BREAKS).split()
    return _ALONE.sub(r" \g<0> ", normalize("NFKC", text).lower().translate(_BREAKS)).split()


def join_tokens(tokens: list[str], kind: Tokenization) -> str:
    """Join tokens to a text that `split_text` would split into them."""
    return ("" if kind == "characters" else " ").join(tokens)
