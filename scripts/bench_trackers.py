"""What a tracker costs a run's steps: the part `trackers` of scripts/bench.

bench_trackers.py EPOCHS ROUNDS [tracker ...]

Train MNIST mlp in one process, in turns without and with each tracker that is installed (Trackio, W&B offline, MLflow
on SQLite), and print JSON: the seconds of each run's training steps by the clock and of the processor, without start,
validation and end. The step of a run waits for nothing that a tracker does, so the rest is what the two share: cores.
"""

import json
import os
import sys
import tempfile
import time
from contextlib import redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from filelock import FileLock

from dlrun.train import engine

NAMES = ("trackio", "wandb", "mlflow")
WORDS = ("model=mlp", "data=mnist", "trainer.log_every=20", "trainer.device=cpu")


def main(epochs: str, rounds: str, *names: str) -> None:
    import dlrun

    train_epoch, spent = engine.train_epoch, [0.0, 0.0]

    def timed(*args: Any) -> str | None:
        began = time.perf_counter(), time.process_time()
        try:
            return train_epoch(*args)
        finally:
            spent[0] += time.perf_counter() - began[0]
            spent[1] += time.process_time() - began[1]

    engine.train_epoch = timed
    contestants = ["none", *(names or [name for name in NAMES if find_spec(name)])]
    found: dict[str, list[list[float]]] = {name: [] for name in contestants}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["TRACKIO_DIR"] = str(Path(folder) / "trackio")
        for turn in range(int(rounds) + 1):  # the first one warms up
            for name in contestants if turn % 2 else contestants[::-1]:
                spent[:] = 0.0, 0.0
                with redirect_stdout(sys.stderr):
                    length = f"trainer.epochs={epochs if turn else 1}"
                    run = dlrun.train(*WORDS, f"tracker={name}", length, f"output_dir={folder}")
                (run.folder / "tracking").mkdir(exist_ok=True)
                with FileLock(run.folder / "tracking" / f"{name}.lock"):  # until the tracker has sent everything
                    pass
                if turn:
                    found[name].append(list(spent))
    ratios = {
        name: [median(each[i] / alone[i] for each, alone in zip(runs, found["none"], strict=True)) for i in (0, 1)]
        for name, runs in found.items()
    }
    print(json.dumps({"seconds": found, "ratios": ratios}))


if __name__ == "__main__":
    main(*sys.argv[1:])
