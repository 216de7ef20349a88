"""Start one run, new or resumed, from the config that Hydra composed. torch is imported only for a valid config."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from dlrun.config.auto import auto_keys, value_of
from dlrun.config.build import build, of_runner
from dlrun.config.check import check
from dlrun.config.extras import install
from dlrun.config.flags import config_flags
from dlrun.config.saved import new_run_arguments, plain, portable, read_config
from dlrun.errors import DataError, UserError, printable
from dlrun.output.folders import (
    claim_folder,
    died_before,
    find_run,
    forget_start,
    new_folder,
    note_start,
    noted,
    read_summary,
    require_plain,
    restarts,
    status_of,
    write_whole,
)
from dlrun.output.json_line import ENDING
from dlrun.output.tracking import require_installed
from dlrun.overrides import key_of, pasteable, quoted
from dlrun.train.limits import refuse_finished

if TYPE_CHECKING:
    from dlrun.train.session import Session

LIMITS = ("epochs", "max_steps", "max_time", "patience", "min_delta", "stop_at")
RESUMABLE = ("trainer.device", "data_dir", *(f"trainer.{name}" for name in LIMITS), "tracker")


def start(composed: DictConfig) -> float | None:
    """Train a new run, or show its network (mode=summary). Returns the best value of the goal, or None."""
    names = dict(HydraConfig.get().runtime.choices)
    config = plain(composed)
    chosen = auto_keys(config)
    check(config, names)
    require_installed(config.get("tracker") or (), install)
    if config["mode"] == "summary":
        from dlrun.train.summary import summary

        print(printable(summary(config, names)))
        return None
    config["trainer"]["processes"] = join_processes(config, "expected the same number in both")
    own = [str(key) for key in composed if key != "sweep"]  # the section of a sweep is not a run's
    composed = OmegaConf.masked_copy(portable(composed), own)
    from dlrun.train.session import Session

    session = Session(config, names, chosen)
    folder, resumed = session.dist.broadcast_object(
        (Path(), False) if session.dist.rank else _open_folder(session, composed)  # rank 0's is broadcast
    )
    if resumed and status_of(read_summary(folder)) == "finished":  # a process died after the run finished
        return None
    with locked(folder):
        return train(session, folder, resumed)


def _open_folder(session: "Session", composed: DictConfig) -> tuple[Path, bool]:
    """The folder of a new run, with its config; or that of a run that died before, and whether it is resumed."""
    from dlrun.output.failures import writing_to

    base = Path(session.config["output_dir"]).expanduser()
    if before := died_before(base):
        return before, True
    wanted, context = session.config["run_dir"], HydraConfig.get()
    name = f"{session.names['model']}_{session.names['data']}"
    folder = claim_folder(Path(wanted).expanduser(), base) if wanted else new_folder(base, name)
    ENDING.folder = folder
    OmegaConf.update(composed, "trainer.processes", session.dist.size)
    for key in session.chosen:
        OmegaConf.update(composed, key, value_of(session.config, key))
    texts = {
        "config": composed,
        "hydra": OmegaConf.create({"hydra": context}),
        "overrides": [*context.overrides.task, *config_flags(sys.argv[1:])],
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


def resume(composed: DictConfig) -> float | None:
    """Resume a run with its own config and new limits. Returns the best value of the goal, or None.

    The folder is locked before its config and summary are read: no other process changes them meanwhile.
    """
    folder = find_run(*(os.path.expanduser(str(composed[key])) for key in ("resume", "output_dir")))
    ENDING.folder = folder
    require_plain(folder)
    with locked(folder) as release:
        run, done = read_resumed(folder, composed), read_summary(folder)
        if status_of(done) == "finished":
            if restarts():  # a process died after the run finished
                return None
            refuse_finished(folder, build(run.config["trainer"]), done)
        expected = f"expected the number that it was started with: dl-run {pasteable('resume', folder)}"
        here = f"resume={quoted(folder.resolve())}"  # pins `last`, which may name another run in the child processes
        sys.argv[1:] = [here if key_of(argument) == "resume" else argument for argument in sys.argv[1:]]
        if join_processes(run.config, expected, release) != run.config["trainer"]["processes"]:
            raise UserError(
                f"resume={folder}: torchrun started {os.environ['WORLD_SIZE']} processes, but the run had one\n"
                f"  {expected}"
            )
        return train(_resumed_session(folder, run), folder, resumed=True, text=run.text)


class ResumedConfig(NamedTuple):
    """The config of a run that is resumed: plain and checked, the choice of each group, and config.yaml's new text."""

    config: dict
    names: dict[str, str]
    text: str


def read_resumed(folder: Path, composed: DictConfig) -> ResumedConfig:
    """Read a run's config, with the command line's changes. Raises UserError if a change is not of a RESUMABLE key."""
    try:
        saved, names = read_config(folder)
    except UserError as error:
        raise UserError(f"resume={error}") from None
    for override in HydraConfig.get().overrides.task:
        key = key_of(override)
        if key in RESUMABLE:
            OmegaConf.update(saved, key, OmegaConf.select(composed, key), merge=False, force_add=True)
        elif key not in ("resume", "output_dir"):
            raise UserError(
                f"{override} cannot change in a resumed run: it continues with its own config\n"
                f"  expected only: {', '.join(RESUMABLE)}\n"
                f"  for any other change start a new run: dl-run {new_run_arguments(folder, override)}"
            )
    config = plain(saved)
    try:
        check(config, names)
    except UserError as error:
        raise UserError(f"resume={folder}: {error}") from None
    require_installed(config.get("tracker") or (), install)
    return ResumedConfig(config, names, OmegaConf.to_yaml(saved))


def _resumed_session(folder: Path, run: ResumedConfig) -> "Session":
    """Build a resumed run. Its weights come from the checkpoint, so those that it started from are not read."""
    from dlrun.train.session import Session

    config = run.config | {"init": None, "model": run.config["model"] | dict.fromkeys(of_runner(run.config["model"]))}
    try:
        return Session(config, run.names)
    except DataError as error:  # drop the lines that suggest keys of new runs
        lines = [line for line in str(error).splitlines() if "=..." not in line]
        elsewhere = f"dl-run {pasteable('resume', folder)} data_dir=<folder>"
        raise DataError("\n".join([*lines, f"  put it there, or name its folder: {elsewhere}"])) from None


def join_processes(config: dict, expected: str, before_launch: Callable[[], object] = lambda: None) -> int:
    """Return the number of training processes. Unless torchrun did, start them here, wait for them and exit."""
    trainer = config["trainer"]
    asked, started = trainer["processes"], os.environ.get("WORLD_SIZE") if "RANK" in os.environ else None
    if started is not None or asked > 1:
        from dlrun.system.launch import follow_launcher, launch
    if started is None and asked > 1:
        before_launch()
        base = Path(config["output_dir"]).expanduser()
        try:
            sys.exit(launch(sys.argv[1:], asked, trainer["max_restarts"]))
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


def train(session: "Session", folder: Path, resumed: bool, text: str | None = None) -> float | None:
    """Train in a locked folder and return the best goal value. Exits with 128 + N after signal N.

    text: the new config.yaml of a resumed run.
    """
    outcome, value = session.start(folder, resumed, None if session.dist.rank else text)
    if outcome.reason == "signal":
        sys.exit(128 + (outcome.number or 0))
    return value
