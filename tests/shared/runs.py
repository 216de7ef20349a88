"""Runs for the tests: composed as on the command line, on images so small that they train in milliseconds."""

import errno
import json
import multiprocessing
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

torch.set_num_threads(1)  # in all processes: the rounding of sums depends on the number of threads
CONFIGS = Path(__file__).parents[2] / "configs"
# new processes start within milliseconds: they are forks of a process that has imported everything
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["dlrun.system.forkserver_preload", "dlrun.train.session", "hydra.main"]
    + ["matplotlib.figure", "matplotlib.backends.backend_agg"]
)
DEVICE = os.environ.get("DL_RUN_TEST_DEVICE", "cpu")  # or cuda, where there is one
SMALL = [  # a run of 2 epochs of 4 steps; the last batch of an epoch is smaller
    "data=mnist", "data.source.download=false", "data.val_fraction=0.2", "data.batch_size=16", "trainer.epochs=2",
    f"trainer.device={DEVICE}", f"trainer.deterministic={str(DEVICE != 'cpu').lower()}",
    "trainer.log_every=3", "trainer.checkpoint_gap=0", "model.hidden=[16]",
]  # fmt: skip
STRAIGHT = ("model.dropout=0.2", "trainer.monitor=loss")  # of the run `straight`: its second epoch is the best


class Killed(BaseException):
    """Stands for SIGKILL where a test must be quick."""


@contextmanager
def undrawn() -> Iterator[None]:
    """Draw no plots inside: they take most of the time of a small run."""
    with patch("dlrun.output.plot_files.PlotFiles._plot"), patch("dlrun.output.plots.curves"):
        yield


@cache
def compose(*overrides: str) -> tuple[dict, dict]:
    """The checked config of these overrides as plain values, and the options chosen in all groups."""
    from toys import composed, names_of

    from dlrun.config.check import check

    config, names = deepcopy(composed(*overrides)), names_of(*overrides)
    check(config, names)
    return config, names


def write_mnist(root: Path, train: int = 72, test: int = 20, side: int = 28) -> Path:
    """Write images in MNIST's layout under `root`: noise, and a bright row for the class. Returns `root`."""
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
    """Train a run, or resume it, and return its outcome.

    signals: signal numbers by the step in which they arrive. nan_at: steps whose batch is NaN.
    finish: test and draw at the end.
    """
    from dlrun.train.session import Session

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(int.from_bytes(os.urandom(7), "big"))  # no run may depend on earlier random numbers
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


def die(folder: Path, config: tuple[dict, dict], step: int) -> None:
    """Train a run that ends at a step as if by SIGKILL."""
    from dlrun.tasks.supervised import Supervised

    learn = Supervised.step

    def dying(self: Supervised, batch: tuple, clock: object) -> dict:
        if clock.step == step:
            raise Killed
        return learn(self, batch, clock)

    with patch.object(Supervised, "step", dying):
        train(folder, config)


def begin() -> None:
    """Unblock the signals: the parent of these forks blocks them, like that of sweeps and of A3C."""
    from dlrun.system.signals import STOPPING

    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)


def child(folder: Path, config: tuple[dict, dict], **keys: object) -> None:
    """Call `train` in a separate process, without output."""
    begin()
    sys.stdout = open(os.devnull, "w")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(folder, config, **keys)


def dl_run(log: Path, *arguments: str, slow: float = 0.0, **env: object) -> multiprocessing.Process:
    """Start dl-run in a separate process that prints to `log`. slow: seconds by which to delay every evaluation."""
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
    """Wait until the process has printed `text`."""
    deadline = time.monotonic() + seconds
    while not (log.exists() and text in log.read_text()):
        printed = log.read_text() if log.exists() else "it printed nothing"
        assert process.is_alive() and time.monotonic() < deadline, printed
        time.sleep(0.01)


def ended(process: multiprocessing.Process) -> int | None:
    """The exit code of a process; None if it still runs after a minute."""
    process.join(60)
    return process.exitcode


def disk_full(*arguments: object, **keys: object) -> None:
    """Stands for a function that writes to a full disk."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def copy_config(run: Path, folder: Path, old: str = "", new: str = "") -> Path:
    """Copy only the config of a run, with `old` replaced by `new`. Returns `folder`."""
    (folder / ".hydra").mkdir(parents=True)
    for path in (run / ".hydra").iterdir():
        text = path.read_text()
        (folder / ".hydra" / path.name).write_text(text.replace(old, new) if path.name == "config.yaml" else text)
    return folder


def weights_of(session: object) -> dict:
    """A copy of the weights of a session's network."""
    from dlrun.output.checkpoint import snapshot

    return snapshot(session.task.net.state_dict())


def rows(folder: Path) -> list[dict]:
    """The rows of metrics.jsonl without times."""
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
    """The content of a checkpoint without times and the run's id."""
    from dlrun.output.checkpoint import load

    found = load(folder / "checkpoints" / f"{name}.ckpt")
    found["clock"].pop("seconds")
    found.pop("run")  # its id
    if "metrics" in found:
        found["metrics"] = {k: v for k, v in found["metrics"].items() if not k.startswith("time/")}
    return found


def assert_same(a: Path, b: Path) -> None:
    """Assert that two runs ended with the same bits and logged the same numbers."""
    assert rows(a) == rows(b)
    last_a, last_b = state(a), state(b)
    for key in last_a.keys() | last_b.keys():
        assert same(last_a[key], last_b[key]), f"last.ckpt differs in {key}"
    assert same(state(a, "best"), state(b, "best")), "best.ckpt differs"


def command(monkeypatch, capsys, main: Callable[[], None], *first: str) -> Callable[..., tuple[int, list[str], str]]:
    """A function that runs a command in this process with `first` and more arguments: (exit code, lines, stderr)."""

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
