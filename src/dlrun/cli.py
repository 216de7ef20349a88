"""The `dl-run` command: parse, check, run. It prints all user errors. torch is imported only for a valid config."""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import hydra
import hydra._internal.hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

import dlrun
from dlrun.config.auto import auto_keys, value_of
from dlrun.config.build import of_runner
from dlrun.config.check import check
from dlrun.config.explain import explain
from dlrun.config.flags import read_flags
from dlrun.config.limits import nothing_to_do, number, reached
from dlrun.config.loader import Loader
from dlrun.config.pairing import CONFIGS
from dlrun.config.saved import new_run_arguments, plain, portable, read_config
from dlrun.config.usage import usage
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
)
from dlrun.output.json_line import ENDING, FLAG, one_json_line
from dlrun.output.terminal import complain, complain_of_disk, is_of_disk, open_streams, silence
from dlrun.overrides import key_of, passed_on, pasteable, quoted

if TYPE_CHECKING:
    from dlrun.train.session import Session

LIMITS = ("epochs", "max_steps", "max_time", "patience", "min_delta", "stop_at")
RESUMABLE = ("trainer.device", "data_dir", *(f"trainer.{name}" for name in LIMITS))


def main() -> None:
    """Run `dl-run`. Exit codes: 0 done, 1 a run failed, 2 user error, 128 + N stopped by signal N after saving."""
    open_streams()
    is_json = FLAG in sys.argv[1:]
    while FLAG in sys.argv[1:]:
        sys.argv.remove(FLAG)
    with one_json_line() if is_json else nullcontext():
        run_command()


def run_command() -> None:
    """Do what sys.argv says."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra raises its errors instead of printing them
    hydra._internal.hydra.ConfigLoaderImpl = Loader
    flags, completing = argparse.Namespace(config_dir=None), False
    try:
        if "--version" in sys.argv[1:]:
            print(f"dl-run {dlrun.__version__}")
            return
        if sys.argv[1:2] == ["schema"]:
            from dlrun.config.editor import schema_command

            print(schema_command(sys.argv[2:]))
            return
        flags = parse_flags()
        if flags.help:
            print(usage(flags.config_dir))
            return
        completing = flags.shell_completion and any(o.startswith("query=") for o in flags.overrides)
        with redirect_stderr(StringIO()) if completing else nullcontext():  # the shell reprints the line itself
            hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)()
        sys.stdout.flush()
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        is_resumed = any(key_of(argument) == "resume" for argument in sys.argv[1:])
        hint = "the run is unchanged and can be resumed again" if is_resumed else "there is nothing to resume"
        fail(f"stopped before the first step: {hint}", 130)
    except BrokenPipeError:  # for example dl-run --help | head
        silence(sys.stdout)
    except Exception as error:
        if is_of_disk(error):
            complain_of_disk("dl-run", error)
            sys.exit(2)
        if is_ours(error):
            raise
        if completing:
            sys.exit(2)
        fail(explain(error, sys.argv[1:], flags.config_dir))


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error and exit."""
    ENDING.error = message
    complain("dl-run", message)
    if int(os.environ.get("RANK", 0)):
        time.sleep(2)  # rank 0 must exit first if all processes fail: the launcher prints the first error
    sys.exit(code)


def is_ours(error: Exception) -> bool:
    """Whether a run or the sweeper raised this, which is a bug. Anything else comes from Hydra reading user input."""
    if isinstance(error, HydraException | OmegaConfBaseException | YAMLError):
        return False
    return any(frame.f_code.co_name in ("job", "sweep") for frame, _ in traceback.walk_tb(error.__traceback__))


def parse_flags() -> argparse.Namespace:
    """Parse the flags, which may stand between overrides, and reorder sys.argv to overrides, then flags, for Hydra."""
    for argument in sys.argv[1:]:
        if not argument.isprintable() and any("\ud800" <= letter <= "\udfff" for letter in argument):
            raise UserError(f"{argument}: these bytes are not valid text\n  expected UTF-8, in a UTF-8 locale")
    flags = read_flags(sys.argv[1:])
    rest = sys.argv[1:]
    for override in flags.overrides:
        rest.remove(override)
    sys.argv[1:] = [*flags.overrides, *rest]
    again = next((o for o in flags.overrides if key_of(o) in ("sweep.resume", "sweep.join")), None)
    if again and flags.multirun:
        sys.argv[1:] = stored_command(again, flags.overrides)
        read_flags(sys.argv[1:])  # arguments stored in a folder or a database are checked like typed ones
    return flags


def stored_command(again: str, overrides: list[str]) -> list[str]:
    """Return the command line that resumes or joins a sweep: the stored one, with changes to how jobs are run."""
    from dlrun.sweep.opening import reopen

    parser = OverridesParser.create()
    which, *bases = (
        str(parser.parse_override(o).value()) for o in (again, *(o for o in overrides if key_of(o) == "output_dir"))
    )
    key = key_of(again)
    folder, command = reopen(key, which, bases[-1] if bases else "outputs", overrides)
    return [f"{key}={quoted(folder)}", *command]


def job(composed: DictConfig) -> float | None:
    """Train one run, new or resumed. Returns the best value of the goal metric, for sweepers."""
    try:
        for override in OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False):
            if key_of(override).split(".")[0].split("@")[0] == "sweep":
                raise UserError(f"{override} needs a sweep, and this is one run\n  expected dl-run -m {override} ...")
        return _start(composed) if composed.get("resume") is None else _resume(composed)
    except UserError as error:
        if HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN:  # a job in the sweeper's own process
            raise
        fail(str(error), getattr(error, "exit_code", 2))


def _start(composed: DictConfig) -> float | None:
    context = HydraConfig.get()
    names = dict(context.runtime.choices)
    config = plain(composed)
    chosen = auto_keys(config)
    check(config, names)
    if config["mode"] == "summary":
        from dlrun.train.summary import summary

        print(printable(summary(config, names)))
        return None
    config["trainer"]["processes"] = _together(config, "expected the same number in both")
    composed = OmegaConf.masked_copy(portable(composed), [key for key in composed if key != "sweep"])  # not a run's
    from dlrun.output.failures import writing_to
    from dlrun.train.session import Session, write_config

    session = Session(config, names, chosen)
    base, folder = Path(config["output_dir"]).expanduser(), None
    if session.dist.rank == 0:
        folder = died_before(base)
    resumed = folder is not None
    if session.dist.rank == 0 and not resumed:
        wanted = config["run_dir"]
        name = f"{names['model']}_{names['data']}"
        folder = claim_folder(Path(wanted).expanduser(), base) if wanted else new_folder(base, name)
        ENDING.folder = folder
        with writing_to(folder):
            note_start(base, folder)
        OmegaConf.update(composed, "trainer.processes", session.dist.size)
        for key in chosen:
            OmegaConf.update(composed, key, value_of(session.config, key))
        flags = passed_on(get_args_parser().parse_args(sys.argv[1:]))
        write_config(
            folder,
            {
                "config": OmegaConf.to_yaml(composed),
                "hydra": OmegaConf.to_yaml(OmegaConf.create({"hydra": context})),
                "overrides": OmegaConf.to_yaml([*context.overrides.task, *flags]),
            },
        )
    folder, resumed = session.dist.broadcast_object((folder, resumed))
    if resumed and status_of(read_summary(folder)) == "finished":  # a process died after the run finished
        return None
    return _finish(session, folder, resumed)


def _resume(composed: DictConfig) -> float | None:
    folder = find_run(*(os.path.expanduser(str(composed[key])) for key in ("resume", "output_dir")))
    ENDING.folder = folder
    require_plain(folder)
    try:
        saved, names = read_config(folder)
    except UserError as error:
        raise UserError(f"resume={error}") from None
    changes = {}
    for override in HydraConfig.get().overrides.task:
        key = key_of(override)
        if key in RESUMABLE:
            changes[key] = OmegaConf.select(composed, key)
        elif key not in ("resume", "output_dir"):
            raise UserError(
                f"{override} cannot change in a resumed run: it continues with its own config\n"
                f"  expected only: {', '.join(RESUMABLE)}\n"
                f"  for any other change start a new run: dl-run {new_run_arguments(folder, override)}"
            )
    before, as_read = plain(saved), OmegaConf.to_yaml(saved)
    for key, value in changes.items():
        OmegaConf.update(saved, key, value, force_add=True)
    config = plain(saved)
    try:
        check(config, names)
    except UserError as error:
        raise UserError(f"resume={folder}: {error}") from None
    expected = f"expected the number that it was started with: dl-run {pasteable('resume', folder)}"
    here = f"resume={quoted(folder.resolve())}"  # pins `last`, which may name another run in the child processes
    sys.argv[1:] = [here if key_of(argument) == "resume" else argument for argument in sys.argv[1:]]
    if _together(config, expected) != config["trainer"]["processes"]:
        raise UserError(
            f"resume={folder}: torchrun started {os.environ['WORLD_SIZE']} processes, but the run had one\n  {expected}"
        )
    done = read_summary(folder)
    is_finished = status_of(done) == "finished"
    if is_finished and (limit := reached(config["trainer"], before.get("trainer"), done)):
        if restarts():  # a process died after the run finished
            return None
        raise nothing_to_do(folder, done, limit)
    from dlrun.train.session import Session

    config["init"] = None  # the weights come from the checkpoint
    config["model"] |= dict.fromkeys(of_runner(config["model"]))
    try:
        session = Session(config, names)
    except DataError as error:  # drop the lines that suggest keys of new runs
        lines = [line for line in str(error).splitlines() if "=..." not in line]
        elsewhere = f"dl-run {pasteable('resume', folder)} data_dir=<folder>"
        raise DataError("\n".join([*lines, f"  put it there, or name its folder: {elsewhere}"])) from None
    if is_finished and number(done, "steps") >= config["trainer"]["epochs"] * session.steps_per_epoch:
        raise nothing_to_do(folder, done, "epochs")  # max_steps was the end of the last epoch

    def on_lock() -> None:
        now = read_summary(folder)  # a run that only just stopped may be resumed
        is_over = status_of(now) == "finished" and now != done
        if is_over or OmegaConf.to_yaml(read_config(folder)[0]) != as_read:
            raise UserError(f"{folder}: another process resumed this run meanwhile\n  run the command again")

    return _finish(session, folder, resumed=True, on_lock=on_lock, config=OmegaConf.to_yaml(saved))


def _together(config: dict, expected: str) -> int:
    """Return the number of training processes. Unless torchrun did, start them here, wait for them and exit."""
    trainer = config["trainer"]
    asked, started = trainer["processes"], os.environ.get("WORLD_SIZE") if "RANK" in os.environ else None
    if started is not None or asked > 1:
        from dlrun.system.launch import follow_launcher, launch
    if started is None and asked > 1:
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


def _finish(
    session: "Session",
    folder: Path,
    resumed: bool,
    on_lock: Callable[[], None] | None = None,
    config: str | None = None,
) -> float | None:
    """Train with the folder locked and return the best goal value. Exits with 128 + N after signal N."""
    from filelock import FileLock, Timeout

    if session.dist.rank:  # rank 0 holds the lock
        outcome, value = session.start(folder, resumed)
        return sys.exit(128 + outcome.number) if outcome.reason == "signal" else value
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
        if on_lock:
            on_lock()
        outcome, value = session.start(folder, resumed, config)
    finally:
        lock.release()
    if outcome.reason == "signal":
        sys.exit(128 + outcome.number)
    return value
