"""The part `stacks` of scripts/bench: many seeds as one network against one run, each a command with start and plots.

The rows of the book's studies and of MNIST have seconds and a comparison with sweep.stack=off instead.
"""

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

SEEDS = (  # what, the command, seeds, most times the time of one run
    ("moons mlp", ["data=moons"], 64, 3.0),
    ("the default run (digits)", [], 64, 12.0),
    ("VAE, digits", ["model=vae", "data=digits"], 16, 5.0),
    ("WGAN-GP, gaussians", ["model=wgan_gp", "trainer.epochs=5"], 16, 5.0),
    ("CartPole PPO", ["model=ppo"], 16, 5.0),
)
BOOK, BOOK_SECONDS = ("moons_depth", "moons_dropout", "moons_l2"), 30.0  # 10 seeds each, together
LARGE = ("mlp", "lenet")  # on MNIST: `auto` must not cost more than one after another
LIMIT = ["trainer.max_steps=400", "seeds=4"]


def stacks(bench: Any, run: list[str]) -> None:
    """Add the rows. run: the command dl-run."""

    def seconds(*overrides: str) -> float:
        folder = Path(tempfile.mkdtemp(dir=bench.folder))
        try:
            return bench.seconds(*run, "trainer.device=cpu", f"output_dir={folder}", *overrides)
        finally:
            shutil.rmtree(folder)

    for what, words, seeds, most in SEEDS:
        many = f"{what}, {seeds} seeds"
        bench.versus(what, "one", partial(seconds, *words), {many: partial(seconds, *words, f"seeds={seeds}")}, most)

    def book() -> float:
        return sum(seconds(f"experiment={name}", "seeds=10", "sweep.stack=auto", "sweep.jobs=2") for name in BOOK)

    bench.judge("overfitting, 10 seeds each", bench.measure("book", {"book": book})["book"], "limit", BOOK_SECONDS, 1.0)
    for net in LARGE:
        words, what = [f"model={net}", "data=mnist", *LIMIT], f"MNIST {net}, 4 seeds, auto"
        bench.versus(what, "off", partial(seconds, *words, "sweep.stack=off"), {what: partial(seconds, *words)}, 1.05)
