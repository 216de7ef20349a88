"""The command: parse, check, run. The only place that prints the user's errors. No torch until a config is known to be right."""

import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dlrun.build import CONFIGS, check
from dlrun.errors import UserError
from dlrun.explain import explain
from dlrun.folders import claim_folder, find_run, new_folder, read_summary

RESUMABLE = ("trainer.epochs", "trainer.device", "trainer.max_steps", "trainer.max_time", "trainer.patience", "trainer.min_delta")


def main() -> None:
    """Exit codes: 0 done, 1 a run failed, 2 the user's error, 130 and 143 stopped by a signal and saved."""
    for flag in ("-m", "--multirun"):  # Hydra wants flags before overrides, people do not
        if flag in sys.argv[2:]:
            sys.argv.remove(flag)
            sys.argv.insert(1, flag)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors come here as they are, instead of being printed
    try:
        hydra.main(version_base="1.3", config_path=str(CONFIGS), config_name="config")(job)()
        sys.stdout.flush()
    except (HydraException, OmegaConfBaseException) as error:
        fail(explain(error, sys.argv[1:]))
    except UserError as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped before the first step: there is nothing to resume", 130)
    except BrokenPipeError:  # as in dl-run --help | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(message: str, code: int = 2) -> NoReturn:
    print(f"dl-run: {message}", file=sys.stderr)
    sys.exit(code)


def job(composed: DictConfig) -> float | None:
    """One run, new or resumed. Gives the best value of the goal metric, for sweepers."""
    try:
        return _resume(composed) if composed.resume else _start(composed)
    except UserError as error:
        if HydraConfig.get().mode == hydra.types.RunMode.MULTIRUN:  # another sweeper's job, in its process
            raise
        fail(str(error), getattr(error, "exit_code", 2))


def _start(composed: DictConfig) -> float | None:
    context = HydraConfig.get()
    names = dict(context.runtime.choices)
    config = plain(composed)
    check(config, names)
    from dlrun.session import Session, write_config

    session = Session(config, names)
    wanted = config["run_dir"] or (context.run.dir if context.run.dir != "." else None)
    name = f"{names['model']}_{names['data']}"
    folder = claim_folder(Path(wanted)) if wanted else new_folder(Path(config["output_dir"]), name)
    write_config(
        folder,
        {
            "config": OmegaConf.to_yaml(composed),
            "hydra": OmegaConf.to_yaml(OmegaConf.create({"hydra": context})),
            "overrides": OmegaConf.to_yaml(context.overrides.task),
        },
    )
    return _finish(session, folder, resumed=False)


def _resume(composed: DictConfig) -> float | None:
    folder = find_run(composed.resume, composed.output_dir)
    changes = [o for o in HydraConfig.get().overrides.task if o.split("=")[0] not in ("resume", "output_dir")]
    for change in changes:
        if change.split("=")[0] not in RESUMABLE:
            raise UserError(
                f"{change} cannot change in a run that is resumed: it goes on with its own config\n"
                f"  expected only: {', '.join(RESUMABLE)}\n"
                f"  for anything else start a new run from its weights: dl-run init={folder} {change}"
            )
    saved = OmegaConf.load(folder / ".hydra" / "config.yaml")
    for change in changes:
        key = change.split("=")[0]
        OmegaConf.update(saved, key, OmegaConf.select(composed, key))
    choices = OmegaConf.load(folder / ".hydra" / "hydra.yaml").hydra.runtime.choices
    names = dict(choices)
    config = plain(saved)
    check(config, names)
    if read_summary(folder).get("status") == "finished" and not changes:
        raise UserError(
            f"resume={composed.resume}: the run in {folder} is finished\n"
            f"  expected one that was stopped, or a new limit: dl-run resume={folder} trainer.epochs=<more>"
        )
    from dlrun.session import Session, write_config

    config["init"] = None  # its weights are in its checkpoint
    session = Session(config, names)
    return _finish(session, folder, resumed=True, on_lock=lambda: write_config(folder, {"config": OmegaConf.to_yaml(saved)}))


def _finish(session: object, folder: Path, resumed: bool, on_lock: object = None) -> float | None:
    """Train, with the folder locked. Leaves with a signal's exit code where one stopped the run."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=0):
            if on_lock:
                on_lock()
            outcome, value = session.start(folder, resumed)
    except Timeout:
        raise UserError(f"{folder} is in use: another process is training this run; wait for it, or stop it first") from None
    if outcome.reason == "signal":
        sys.exit(128 + outcome.number)
    return value


def plain(config: DictConfig) -> dict:
    """Plain dicts and lists, interpolations resolved."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
