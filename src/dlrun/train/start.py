"""Start one run, new or resumed, from a request. torch is imported only for a valid config.

Both the command line (cli.py) and Python (api/) make a Request and call `start` or `resume`.
"""

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig, OmegaConf

from dlrun.config.auto import auto_keys, value_of
from dlrun.config.check import check
from dlrun.config.extras import install
from dlrun.config.flags import config_flags
from dlrun.config.own_failures import own_failures
from dlrun.config.saved import container, plain, portable
from dlrun.errors import UserError, printable
from dlrun.output.folders import claim_folder, new_folder, read_summary, status_of
from dlrun.output.json_line import ENDING
from dlrun.output.restarts import died_before, forget_start, note_start, noted
from dlrun.output.tracking import require_apart, require_installed
from dlrun.output.written import write_whole
from dlrun.overrides import key_of

if TYPE_CHECKING:
    from dlrun.train.session import Session


class Request(NamedTuple):
    """A run that is asked for.

    config: composed from the words, without Hydra's section. hydra: that section. arguments: the words and the flags,
    as a command line has them. is_guest: whether the process is another program's, whose signals are left to it.
    data: keys of the data section whose values are in this program's memory.
    """

    config: DictConfig
    hydra: DictConfig
    arguments: Sequence[str]
    is_guest: bool = False
    data: Mapping[str, object] = {}

    @property
    def words(self) -> list[str]:
        """The overrides, such as trainer.epochs=3."""
        return [str(word) for word in container(self.hydra.overrides, resolve=False)["task"]]


class Done(NamedTuple):
    """A run that ended or was stopped.

    value: the best of its goal, or None. signal: the number of the one that stopped it, or None.
    """

    folder: Path
    value: float | None = None
    signal: int | None = None


def start(request: Request) -> Done | None:
    """Train a new run; or print the result of another mode, and return None."""
    for word in request.words:
        if key_of(word).split(".")[0].split("@")[0] == "sweep":
            raise UserError(f"{word} needs a sweep, and this is one run\n  expected dl-run -m {word} ...")
    composed, names = request.config, dict(request.hydra.runtime.choices)
    config = plain(composed, request.arguments)
    chosen = auto_keys(config)
    check(config, names)
    require_installed(config.get("tracker") or (), install)
    require_apart(config.get("tracker") or (), config["run_dir"], config["output_dir"])
    if config["mode"] != "train":
        with own_failures():
            print(printable(_measured(config, names, chosen)))
        return None
    config["trainer"]["processes"] = join_processes(config, request.arguments, "expected the same number in both")
    own = [str(key) for key in composed if key != "sweep"]  # the section of a sweep is not a run's
    composed = OmegaConf.masked_copy(portable(composed), own)
    from dlrun.train.session import Session

    config["data"] |= request.data
    with own_failures():
        session = Session(config, names, chosen)
    session.in_memory = bool(request.data)
    folder, resumed = session.dist.broadcast_object(
        (Path(), False) if session.dist.rank else _open_folder(session, composed, request)  # rank 0's is broadcast
    )
    if resumed and status_of(read_summary(folder)) == "finished":  # a process died after the run finished
        return Done(folder)
    with locked(folder):
        return train(session, folder, resumed, request.is_guest)


def _measured(config: dict, names: dict[str, str], chosen: list[str]) -> str:
    """Run a mode other than train, and return the text to print."""
    mode = config["mode"]
    if mode == "summary":
        from dlrun.train.summary import summary

        return summary(config, names)
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else torch's profiler prints its start and stop
    from dlrun.train.find_batch import find_batch
    from dlrun.train.find_lr import find_lr
    from dlrun.train.step_time import step_time

    config["trainer"]["processes"] = int(os.environ.get("WORLD_SIZE", config["trainer"]["processes"]))
    if config["trainer"]["processes"] > 1:
        raise UserError(f"mode={mode} measures one process\n  expected trainer.processes=1")
    return {"find_lr": find_lr, "find_batch": find_batch, "time": step_time}[mode](config, names, chosen)


def _open_folder(session: "Session", composed: DictConfig, request: Request) -> tuple[Path, bool]:
    """The folder of a new run, with its config; or that of a run that died before, and whether it is resumed."""
    from dlrun.output.failures import writing_to

    base = Path(session.config["output_dir"]).expanduser()
    if before := died_before(base):
        return before, True
    wanted = session.config["run_dir"]
    name = f"{session.names['model']}_{session.names['data']}"
    folder = claim_folder(Path(wanted).expanduser(), base) if wanted else new_folder(base, name)
    ENDING.folder = folder
    OmegaConf.update(composed, "trainer.processes", session.dist.size)
    for key in session.chosen:
        OmegaConf.update(composed, key, value_of(session.config, key))
    texts = {
        "config": composed,
        "hydra": OmegaConf.create({"hydra": request.hydra}),
        "overrides": [*request.words, *config_flags(list(request.arguments))],
    }
    with writing_to(folder):
        note_start(base, folder)
        write_config(folder, {name: OmegaConf.to_yaml(content) for name, content in texts.items()})
    return folder, False


def write_config(folder: Path, texts: dict[str, str]) -> None:
    """Write .hydra/: config.yaml, hydra.yaml and, as the last file, overrides.yaml (output/folders.py, STARTED)."""
    (folder / ".hydra").mkdir(exist_ok=True)
    for name, text in texts.items():
        write_whole(folder / ".hydra" / f"{name}.yaml", text)


def join_processes(
    config: dict, arguments: Sequence[str], expected: str, before_launch: Callable[[], object] = lambda: None
) -> int:
    """Return the number of training processes. Unless torchrun did, start them here, wait for them and exit."""
    trainer = config["trainer"]
    asked, started = trainer["processes"], os.environ.get("WORLD_SIZE") if "RANK" in os.environ else None
    if started is not None or asked > 1:
        from dlrun.system.launch import follow_launcher, launch
    if started is None and asked > 1:
        before_launch()
        base = Path(config["output_dir"]).expanduser()
        try:
            code, ENDING.error = launch(list(arguments), asked, trainer["max_restarts"])
            sys.exit(code)
        finally:
            ENDING.folder = ENDING.folder or noted(base, os.getpid())
            forget_start(base)
    if started is not None and asked not in (1, int(started)):
        raise UserError(f"trainer.processes={asked}, but torchrun started {started}\n  {expected}")
    if started is not None:
        follow_launcher()
    return int(started or 1)


@contextmanager
def locked(folder: Path) -> Iterator[Callable[[], object]]:
    """Lock a run's folder; yields a function that unlocks it early. Rank 0 holds the lock for all processes.

    Raises UserError if another process trains the run, or if the folder cannot be written to.
    """
    if "WORLD_SIZE" in os.environ and int(os.environ.get("RANK", 0)):
        yield lambda: None
        return
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder} is in use: another process is training this run\n  wait for it, or stop it"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write to the run's folder {folder}: {error.strerror}") from None
    try:
        yield lock.release
    finally:
        lock.release()


def train(session: "Session", folder: Path, resumed: bool, is_guest: bool, text: str | None = None) -> Done:
    """Train in a locked folder. text: the new config.yaml of a resumed run."""
    try:
        with own_failures(folder / "run.log"):
            outcome, value = session.start(folder, resumed, None if session.dist.rank else text, is_guest)
    except UserError as error:
        if session.is_training:
            error.code = 1  # such as a full disk: the command was right
        raise
    return Done(folder, value, outcome.number if outcome.reason == "signal" else None)
