"""Runs for the tests: composed as on the command line, on images small enough to train on in no time."""

import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np
import torch

torch.set_num_threads(1)  # in all of its processes alike: sums of other numbers of threads are rounded otherwise
CONFIGS = Path(__file__).parents[1] / "configs"
# processes that start in no time, because one that has imported everything is their parent
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["dlrun.system.forkserver_preload", "dlrun.train.session", "torch.utils.tensorboard", "hydra.main", "runs"]
    + ["matplotlib.figure", "matplotlib.backends.backend_agg"]
)
DEVICE = os.environ.get("DL_RUN_TEST_DEVICE", "cpu")  # or cuda, where there is one
SMALL = [  # a run of 2 epochs of 4 steps, the last of them with a smaller batch
    "data=mnist", "data.source.download=false", "data.val_fraction=0.2", "data.batch_size=16", "trainer.epochs=2",
    f"trainer.device={DEVICE}", f"trainer.deterministic={str(DEVICE != 'cpu').lower()}",
    "trainer.log_every=3", "trainer.checkpoint_gap=0", "model.hidden=[16]",
]  # fmt: skip


@cache
def compose(*overrides: str) -> tuple[dict, dict]:
    """The config of these overrides, checked and plain, and the groups' choices."""
    from toys import composed, names_of

    from dlrun.config.check import check

    config, names = deepcopy(composed(*overrides)), names_of(*overrides)
    check(config, names)
    return config, names


def write_mnist(root: Path, train: int = 72, test: int = 20, side: int = 28) -> Path:
    """Images in MNIST's layout under `root`: noise with a bright row where the class says. Gives `root`."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for part, count in (("train", train), ("t10k", test)):
        y = random.integers(0, 10, count, dtype=np.uint8)
        x = random.integers(0, 128, (count, side, side), dtype=np.uint8)
        x[np.arange(count), 2 * y] += 100
        for kind, array in (("images-idx3", x), ("labels-idx1", y)):
            head = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
            (folder / f"{part}-{kind}-ubyte").write_bytes(head + array.tobytes())
    return root


def train(
    folder: Path, config: tuple[dict, dict], *, resumed: bool = False, signals: dict[int, int] | None = None,
    nan_at: tuple[int, ...] = (), finish: bool = False,
) -> object:  # fmt: skip
    """A run, or the rest of one. signals: by the step that they come in. nan_at: steps whose batch is not a number.

    finish: test and draw at the end too. Gives the outcome.
    """
    from dlrun.train.session import Session

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(int.from_bytes(os.urandom(7), "big"))  # no run may depend on what was drawn before
    session = Session(*config)
    if not finish:
        session.finish = lambda training, outcome: None
    learn = session.task.step

    def step(batch: tuple, clock: object) -> dict:
        if clock.step in nan_at:
            batch = batch[0] * float("nan"), batch[1]
        metrics = learn(batch, clock)
        if signals and clock.step in signals:
            signal.raise_signal(signals.pop(clock.step))
        return metrics

    session.task.step = step
    return session.start(folder, resumed)[0]


def begin() -> None:
    """A fork of one that blocks the signals, as that of sweeps and of A3C does: a process has one for all."""
    from dlrun.system.signals import STOPPING

    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def child(folder: Path, config: tuple[dict, dict], **keys: object) -> None:
    """`train` in a process of its own, which says nothing."""
    begin()
    sys.stdout = open(os.devnull, "w")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(folder, config, **keys)


def dl_run(log: Path, *arguments: str, slow: float = 0.0, **env: object) -> multiprocessing.Process:
    """dl-run in a process of its own, its words in `log`. slow: seconds that every evaluation takes longer."""
    process = FORKS.Process(target=_command, args=(arguments, log, slow, env), daemon=True)
    process.start()
    return process


def _command(arguments: tuple[str, ...], log: Path, slow: float, env: dict) -> None:
    begin()
    os.environ.update({key: str(value) for key, value in env.items()})
    sys.argv, sys.stdout = ["dl-run", *arguments], open(log, "a", buffering=1)
    sys.stderr = sys.stdout
    from dlrun.cli import main
    from dlrun.tasks.supervised import Supervised

    evaluate = Supervised.evaluate

    def slowly(self: Supervised, data: object, split: str) -> dict:
        if slow:
            print(f"evaluating {split}")
            time.sleep(slow)
        return evaluate(self, data, split)

    Supervised.evaluate = slowly
    main()


def wait_for(text: str, log: Path, process: multiprocessing.Process, seconds: float = 60) -> None:
    """Until the process has said so."""
    patience = time.monotonic() + seconds
    while not (log.exists() and text in log.read_text()):
        said = log.read_text() if log.exists() else "it said nothing"
        assert process.is_alive() and time.monotonic() < patience, said
        time.sleep(0.01)


def ended(process: multiprocessing.Process) -> int | None:
    """Its exit code; None where it goes on and on."""
    process.join(60)
    return process.exitcode


def rows(folder: Path) -> list[dict]:
    """metrics.jsonl without the times."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not k.startswith("time/")} for line in lines]


def same(a: object, b: object) -> bool:
    """Equal in structure, types and bits."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or a != a and b != b)


def state(folder: Path, name: str = "last") -> dict:
    """What a checkpoint holds, without the times and the run's id."""
    from dlrun.output.checkpoint import load

    found = load(folder / "checkpoints" / f"{name}.ckpt")
    found["clock"].pop("seconds")
    found.pop("run")  # its id
    if "metrics" in found:
        found["metrics"] = {k: v for k, v in found["metrics"].items() if not k.startswith("time/")}
    return found


def assert_same(a: Path, b: Path) -> None:
    """Two runs ended with the same bits and logged the same numbers."""
    assert rows(a) == rows(b)
    last_a, last_b = state(a), state(b)
    for key in last_a.keys() | last_b.keys():
        assert same(last_a[key], last_b[key]), f"last.ckpt differs in {key}"
    assert same(state(a, "best"), state(b, "best")), "best.ckpt differs"


def command(monkeypatch, capsys, main: Callable[[], None], *first: str) -> Callable[..., tuple[int, list[str], str]]:
    """A command of this process, with its first words: given the others, its exit code, its lines and stderr."""

    def run(*arguments: object) -> tuple[int, list[str], str]:
        monkeypatch.setattr(sys, "argv", [*first, *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as error:
            code = error.code
        out, err = capsys.readouterr()
        return code, out.splitlines(), err

    return run
