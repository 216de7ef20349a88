"""The Python interface: the words of the command line as function calls, and trained runs as objects.

    import dlrun
    run = dlrun.train("model=lenet", "data=mnist", "trainer.epochs=3")
    run.summary["test"], run.metrics, run.module, run.predict(image)

Errors are `dlrun.UserError`s with the texts of the command line. docs/python.md. No torch until a config is valid.
"""

import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from dlrun.api.command import run_command
from dlrun.api.host import as_guest
from dlrun.api.memory import Samples, given, refuse_others
from dlrun.api.run import Run
from dlrun.api.sweeps import Sweep
from dlrun.api.words import Words, as_words, in_python
from dlrun.config import consent
from dlrun.config.compose import compose
from dlrun.config.project import output_dir
from dlrun.config.saved import container, read_config
from dlrun.errors import UserError
from dlrun.output.folders import all_runs, find_run
from dlrun.overrides import OTHER_KEYS, key_of, quoted
from dlrun.train.resume import resume as resume_run
from dlrun.train.start import Done, Request, start

__all__ = ["Run", "Sweep", "allow", "load", "resume", "runs", "sweep", "train"]


def train(
    *words: Words,
    x: Samples = None,
    y: Samples = None,
    x_val: Samples = None,
    y_val: Samples = None,
    x_test: Samples = None,
    y_test: Samples = None,
    config_dir: str | Path | None = None,
) -> Run:
    """Train a run and return it.

    words: those of the command line, or dictionaries: "model=lenet", {"trainer": {"epochs": 3}}. x, y: samples in
    memory instead of a data set: arrays or tensors (N, ...) with N targets, a frame of polars or pandas (y: a column's
    name, or targets), or a torch Dataset of (x, y); splits that are not given are cut from them. config_dir: a folder
    with options of your own. Raises UserError; KeyboardInterrupt after a checkpoint if it is interrupted.
    """
    samples = given(x, y, x_val, y_val, x_test, y_test)
    overrides = [*samples.words, *_of_one_run(words)]
    flags = _config_flags(config_dir)
    config, hydra = compose(overrides, None if config_dir is None else _path(config_dir, "config_dir"))
    if config.mode != "train":
        raise UserError(
            f"mode={config.mode}: dlrun.train trains\n  expected the command line: dl-run mode={config.mode} ..."
        )
    if config.get("resume") is not None:
        raise UserError(f"resume={config.resume}: expected dlrun.resume({str(config.resume)!r})")
    if _is_launched(config.trainer.processes, samples.data):
        return Run(run_command([*overrides, *flags]))
    with as_guest():
        done = start(Request(config, hydra, [*overrides, *flags], True, samples.data))
    return _ended(done, samples.data)


def resume(
    run: "str | Path | Run" = "last",
    *words: Words,
    x: Samples = None,
    y: Samples = None,
    x_val: Samples = None,
    y_val: Samples = None,
    x_test: Samples = None,
    y_test: Samples = None,
) -> Run:
    """Resume a run, to the bit, and return it.

    run: a folder, "last" or a Run. words: what may change, such as "trainer.epochs=5", or "data.file=new.csv" if the
    data moved. x, y, ...: the samples, if it was trained on samples in memory; they must be the same.
    """
    changes = _of_one_run(words)
    base = next((w.partition("=")[2] for w in reversed(changes) if key_of(w) == "output_dir"), output_dir())
    folder = _folder(run, base, "resume=")
    samples = given(x, y, x_val, y_val, x_test, y_test)
    saved, names = read_config(folder)
    if samples.data:
        section, target = container(saved.get("data"), resolve=False), saved.data.get("target")
        refuse_others(samples, section, folder, names, target)
    memory = samples.data or (run.memory if isinstance(run, Run) else {})
    overrides = [f"resume={quoted(folder)}", *changes]
    config, hydra = compose([f"++{o}" if o.startswith(OTHER_KEYS) else o for o in overrides])
    if _is_launched(saved.trainer.processes, memory):
        return Run(run_command(overrides))
    with as_guest():
        done = resume_run(Request(config, hydra, overrides, True, memory))
    return _ended(done, memory)


def load(run: str | Path = "last", output_dir: str | Path | None = None) -> Run:
    """Return a run from its folder. run: the folder, or "last" for the newest in output_dir. Reads no data."""
    return Run(_folder(run, output_dir, ""))


def runs(output_dir: str | Path | None = None) -> list[Run]:
    """List all runs in a folder, with those of sweeps, the newest last. Raises UserError if there is no such folder."""
    if output_dir is not None and not _path(output_dir, "output_dir").is_dir():
        raise UserError(f"{output_dir}: there is no such folder\n  expected the folder of runs, such as 'outputs'")
    return [Run(folder) for folder in all_runs(_path(output_dir or _default(), "output_dir"))]


def sweep(*words: Words, config_dir: str | Path | None = None, **samples: object) -> Sweep:
    """Run a sweep or a search and return it: sweep("model=mlp,linear", "seed=0,1,2", "sweep.jobs=2").

    A list as a value is one value; several values are written as on the command line. Each job is a process, so
    samples in memory (x=, y=, ...) are refused. Raises UserError if no job finishes.
    """
    if samples:
        raise UserError(
            f"{', '.join(f'{name}=...' for name in samples)}: a sweep takes words alone, and trains in other processes,"
            " which have no samples of this one\n"
            "  expected samples in a file: data=arrays data.file=samples.npz; or dlrun.train for each setting"
        )
    return Sweep(run_command(["-m", *as_words(words), *_config_flags(config_dir)]))


def allow(*packages: str) -> None:
    """Let configs name code of these packages of yours, in this process: what DL_RUN_ALLOW does for the command."""
    for package in packages:
        if not isinstance(package, str) or not all(map(str.isidentifier, package.split("."))):
            raise UserError(f"{package!r}: expected the name of a package, such as 'mynets'")
    consent.allowed.update(packages)


def _of_one_run(words: Iterable[Words]) -> list[str]:
    """Return overrides. Raises UserError for a flag of the command line, and for what asks for several runs."""
    overrides = as_words(words)
    for word in overrides:
        if word in ("-m", "--multirun") or key_of(word) == "seeds":
            raise UserError(f"{word} asks for several runs\n  expected dlrun.sweep(...) with the same words")
        if word.startswith("-"):
            raise UserError(f"{word} is a flag of the command line\n  expected words such as 'trainer.epochs=3'")
    return overrides


def _config_flags(config_dir: str | Path | None) -> list[str]:
    return [] if config_dir is None else [f"--config-dir={os.path.abspath(_path(config_dir, 'config_dir'))}"]


def _default() -> str:
    return output_dir()


def _folder(run: "str | Path | Run", base: str | Path | None, key: str) -> Path:
    if isinstance(run, Run):
        return run.folder
    with in_python():
        return find_run(str(_path(run, "run")), str(_path(base or _default(), "output_dir")), key)


def _path(value: object, name: str) -> Path:
    """A path with ~ expanded. Raises UserError for another object."""
    if not isinstance(value, str | PathLike):
        raise UserError(f"{name}={value!r}: expected a path{' or a Run' if name == 'run' else ''}")
    return Path(os.path.expanduser(value))


def _is_launched(processes: object, memory: dict[str, object]) -> bool:
    """Whether other processes have to train. Raises UserError if the samples are in the memory of this one."""
    if not isinstance(processes, int) or processes < 2:
        return False
    if memory:
        raise UserError(
            f"trainer.processes={processes}: samples in memory belong to one process\n"
            "  expected trainer.processes=1, or the samples in a file: data=arrays data.file=samples.npz"
        )
    return True


def _ended(done: Done | None, memory: dict[str, object]) -> Run:
    if done is None:
        raise UserError("no run was trained")
    if done.signal:
        raise KeyboardInterrupt(
            f"stopped, checkpoint saved: dlrun.resume({str(done.folder)!r}{', x=..., y=...' if memory else ''})"
        )
    return Run(done.folder, memory)
