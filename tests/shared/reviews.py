"""A small generated corpus in the layout of the published IMDB reviews."""

from pathlib import Path

import numpy as np

GOOD, BAD = ("good", "great", "lovely"), ("bad", "awful", "dull")
PLAIN = [f"word{i}" for i in range(20)] + ["it's", "the", "film"]


def review(random: np.random.Generator, is_good: bool) -> str:
    """A few words, the last of which decides, with the punctuation and line breaks of real reviews."""
    words = list(random.choice(PLAIN, random.integers(0, 14)))
    return "<br /><br />".join([" ".join(words).capitalize(), f"So {random.choice(GOOD if is_good else BAD)}!"])


def write_reviews(root: Path, train: int = 72, test: int = 20) -> Path:
    """Write aclImdb/{train,test}/{pos,neg}/*.txt under `root`, half of them good. Returns `root`."""
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("test", test)):
        for name in ("pos", "neg"):
            folder = root / "aclImdb" / part / name
            folder.mkdir(parents=True, exist_ok=True)
            for i in range(count // 2):
                (folder / f"{i}_{9 if name == 'pos' else 2}.txt").write_text(review(random, name == "pos"))
    return root
