"""Resume a run with its own config and, where they may change, new values of some keys."""

import os
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import OmegaConf

from dlrun.config.build import build, of_runner
from dlrun.config.check import check
from dlrun.config.extras import install
from dlrun.config.missing_code import require_code
from dlrun.config.own_failures import own_failures
from dlrun.config.saved import is_location_key, new_run_arguments, plain, portable, read_config, where_moved
from dlrun.errors import DataError, UserError, printable
from dlrun.output.folders import find_run, read_summary, require_plain, status_of
from dlrun.output.json_line import ENDING
from dlrun.output.restarts import restarts
from dlrun.output.tracking import require_apart, require_installed
from dlrun.overrides import key_of, pasteable, quoted
from dlrun.train.limits import refuse_finished
from dlrun.train.start import Done, Request, join_processes, locked, train, write_config

if TYPE_CHECKING:
    from dlrun.train.session import Session

LIMITS = ("epochs", "max_steps", "max_time", "patience", "min_delta", "stop_at")
SAVING = (
    "log_every",
    "histograms",
    "gradient_norms",
    "keep",
    "keep_every",
    *(f"checkpoint_{n}" for n in ("every_steps", "every_minutes", "gap")),
)
RESUMABLE = ("trainer.device", "data_dir", *(f"trainer.{name}" for name in (*LIMITS, *SAVING)), "tracker")
SECTIONS = ("data", "optimizer", "trainer")  # that the keys above and below are in
CHANGEABLE = ("optimizer.lr",)  # only with resume.allow=changes, as then the run is another one


def resume(request: Request) -> Done:
    """Resume a run with its own config and new limits.

    The folder is locked before its config and summary are read: no other process changes them meanwhile.
    """
    folder = find_run(*(os.path.expanduser(str(request.config[key])) for key in ("resume", "output_dir")))
    ENDING.folder = folder
    require_plain(folder)
    with locked(folder) as release:
        run, done = read_resumed(folder, request), read_summary(folder)
        if status_of(done) == "finished":
            if restarts():  # a process died after the run finished
                return Done(folder)
            if run.data_locations and run.is_only_moved:
                return _moved(folder, run)
            refuse_finished(folder, build(run.config["trainer"]), done)
        expected = f"expected the number that it was started with: dl-run {pasteable('resume', folder)}"
        here = f"resume={quoted(folder.resolve())}"  # pins `last`, which may name another run in the child processes
        arguments = [here if key_of(argument) == "resume" else argument for argument in request.arguments]
        if join_processes(run.config, arguments, expected, release) != run.config["trainer"]["processes"]:
            raise UserError(
                f"resume={folder}: torchrun started {os.environ['WORLD_SIZE']} processes, but the run had one\n"
                f"  {expected}"
            )
        run.config["data"] |= request.data
        session = _resumed_session(folder, run)
        session.in_memory = bool(request.data)
        return train(session, folder, True, request.is_guest, run.text)


class ResumedConfig(NamedTuple):
    """The config of a run that is resumed: plain and checked, the choice of each group, and config.yaml's new text.

    changes: old and new values of CHANGEABLE keys. data_locations: new values of the keys that name where the data is.
    is_only_moved: whether nothing else changes.
    """

    config: dict
    names: dict[str, str]
    text: str
    changes: dict[str, tuple[object, object]]
    data_locations: dict[str, object]
    is_only_moved: bool


def read_resumed(folder: Path, request: Request) -> ResumedConfig:
    """Read a run's config, with the request's changes. Raises UserError if a change is not of a RESUMABLE key."""
    changes, data_locations, is_only_moved = {}, {}, True
    if (allowed := request.config.resume_allow) not in (None, "changes"):
        raise UserError(f"resume.allow={allowed}: expected changes, or null")
    try:
        saved, names = read_config(folder)
    except UserError as error:
        raise UserError(f"resume={error}") from None
    before = plain(saved)
    if odd := next((name for name in SECTIONS if not isinstance(before.get(name, {}), dict)), None):
        raise UserError(
            f"resume={folder}: {odd}={before[odd]!r} in {folder / '.hydra' / 'config.yaml'}\n"
            "  expected a mapping, as dl-run wrote it"
        )
    for override in request.words:
        key = key_of(override)
        if is_place := is_location_key(before, key):
            _check_place(before, override)
        if key in RESUMABLE or key.startswith("tracker.") or is_place:
            OmegaConf.update(saved, key, OmegaConf.select(request.config, key), merge=False, force_add=True)
            if key == "data_dir" or key.startswith("data."):
                data_locations[key] = OmegaConf.select(saved, key)
            else:
                is_only_moved = False
        elif key in CHANGEABLE and request.config.resume_allow == "changes":
            changes[key] = (OmegaConf.select(saved, key), OmegaConf.select(request.config, key))
            OmegaConf.update(saved, key, changes[key][1], merge=False)
            is_only_moved = False
        elif key not in ("resume", "resume.allow", "resume_allow", "output_dir"):
            or_allow = f", or {override} with resume.allow=changes" if key in CHANGEABLE else ""
            typed = override.removeprefix("++")  # added by the command line
            allowed = ", ".join((*RESUMABLE, "tracker.*"))
            raise UserError(
                f"{typed} cannot change in a resumed run: it continues with its own config\n"
                f"  expected only: {allowed}{or_allow}; and data.root, data.file, ... if the data moved\n"
                f"  for any other change start a new run: dl-run {new_run_arguments(folder, typed)}"
            )
    config = plain(saved, request.arguments)
    require_code(config, f"resume={folder}")
    try:
        check(config, names)
    except UserError as error:
        raise UserError(f"resume={folder}: {error}") from None
    if data_locations:
        saved = portable(saved)
    require_installed(config.get("tracker") or (), install)
    require_apart(config.get("tracker") or (), folder, config["output_dir"])
    return ResumedConfig(config, names, OmegaConf.to_yaml(saved), changes, data_locations, is_only_moved)


def _check_place(config: dict, override: str) -> None:
    """Raise UserError for a file that the run did not read: it is no new place of its data."""
    *parents, name = key_of(override).split(".")
    section = reduce(dict.__getitem__, parents, config)
    if section[name] is None and override.partition("=")[2] != "null":
        keys = [".".join([*parents, key]) for key, place in section.items() if place is not None]
        places = [key for key in keys if is_location_key(config, key)]
        raise UserError(
            f"{override.removeprefix('++')}: the run read no {key_of(override)}, so it is no new place of its data\n"
            f"  expected {' or '.join([*places, 'data_dir'])}"
        )


def _resumed_session(folder: Path, run: ResumedConfig) -> "Session":
    """Build a resumed run. Its weights come from the checkpoint, so those that it started from are not read."""
    from dlrun.train.session import Session

    config = run.config | {"init": None, "model": run.config["model"] | dict.fromkeys(of_runner(run.config["model"]))}
    try:
        with own_failures():
            return Session(config, run.names, changes=run.changes)
    except DataError as error:
        raise where_moved(error, folder, config) from None


def _moved(folder: Path, run: ResumedConfig) -> Done:
    """Keep the new place of a finished run's data in its config, if the data there is the same."""
    from dlrun.output.failures import within_memory, writing_to
    from dlrun.train.finished import FinishedRun

    with within_memory():
        FinishedRun(folder, run.data_locations).load_data(download=False)
    with writing_to(folder):
        write_config(folder, {"config": run.text})
    print(printable(f"{folder}: its data is unchanged at the new place, which its config names now"))
    return Done(folder)
