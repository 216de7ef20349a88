"""Run folders: create them exclusively, find them again, read and write their small files whole. Imports no torch."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from dlrun.errors import UserError, some
from dlrun.output.restarts import noted, restarts
from dlrun.overrides import pasteable
from dlrun.paths import read_whole

STARTED = ".hydra/overrides.yaml"  # the last file written when a run starts
ELSEWHERE = ".elsewhere"  # in output_dir: a line for each run folder outside it (run_dir=)
NAME = re.compile(r"(?!\.+$)[\w.-]{1,200}", re.ASCII)  # a plain file name, without folders


def new_folder(base: Path, name: str) -> Path:
    """Create a new folder `base`/<date>/<time>_<name>. Two runs that start in the same second get two folders.

    Raises UserError if it cannot be created.
    """
    now = datetime.now()
    parent = base / now.strftime("%Y-%m-%d")
    for attempt in range(1, 1000):
        folder = parent / (now.strftime("%H-%M-%S") + f"_{name}" + (f"_{attempt}" if attempt > 1 else ""))
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            if not parent.is_dir():
                raise UserError(
                    f"output_dir={base}: {parent} is a file, not a folder\n"
                    "  expected a writable folder; choose another with output_dir=..."
                ) from None
        except OSError as error:
            raise UserError(
                f"output_dir={base}: cannot create {folder}: {error.strerror}\n"
                "  expected a writable folder; choose another with output_dir=..."
            ) from None
    raise UserError(f"a thousand runs named {name} started in one second under {parent}: choose another output_dir")


def claim_folder(folder: Path, base: Path) -> Path:
    """Create the folder for run_dir=, or take it if it is empty. Raises UserError if anything is in it already.

    An empty folder is taken, and one that this run made before one of its processes died without a checkpoint.
    base: output_dir, where runs are listed; a folder outside it is noted there.
    """
    if restarts() and noted(base, os.getppid()) == folder.resolve():
        shutil.rmtree(folder, ignore_errors=True)
    resume = f"dl-run {pasteable('resume', folder)}"
    taken = f"run_dir={folder} already holds a run: resume it with {resume}, or choose another folder"
    if os.path.exists(folder / "metrics.jsonl"):  # unlike Path.exists, it returns False if access is denied
        raise UserError(taken)
    with suppress(OSError):  # mkdir below reports a folder that cannot be read
        entries = sorted(os.listdir(folder))
        if entries and ".hydra" not in entries:
            raise UserError(
                f"run_dir={folder} already holds files: {some(entries, 3)}\n  expected an empty or new folder"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".hydra").mkdir()  # of two runs that claim the folder at the same time, one fails here
    except OSError as error:
        if os.path.exists(folder / ".hydra"):
            raise UserError(taken) from None
        raise UserError(f"run_dir={folder}: {error.strerror}\n  expected a writable folder") from None
    if base.resolve() not in folder.resolve().parents:
        with suppress(OSError):  # only lists of runs need it
            base.mkdir(parents=True, exist_ok=True)
            with open(base / ELSEWHERE, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{folder.resolve()}\n")
    return folder


def all_runs(base: Path) -> list[Path]:
    """The folders of all runs under `base`, with those of sweeps, and of runs elsewhere (run_dir=), newest last."""
    started = dict(_runs_below(base, levels=3))
    with suppress(OSError, ValueError):
        for line in read_whole(base / ELSEWHERE).decode("utf-8", "surrogateescape").splitlines():
            with suppress(OSError):
                started[Path(line)] = os.stat(Path(line) / STARTED).st_mtime
    return sorted(started, key=started.__getitem__)


def _runs_below(folder: Path, levels: int) -> Iterator[tuple[Path, float]]:
    """Yield the runs at most `levels` below, each with its start time; a sweep's `best` links to one of its jobs."""
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError), os.scandir(folder) as entries:
        for entry in entries:
            try:
                started = os.stat(f"{entry.path}/{STARTED}").st_mtime
            except OSError:
                if levels > 1 and entry.is_dir():
                    yield from _runs_below(Path(entry.path), levels - 1)
                continue
            if not entry.is_symlink():
                yield Path(entry.path), started


def refuse_links(folder: Path) -> None:
    """Raise UserError if a sweep's folder holds links: writing through them could change any file of the user's."""
    for path in [*folder.iterdir(), *(folder / "logs").glob("*"), *(folder / "stacks").rglob("*")]:
        if path.is_symlink() and path.name != "best":
            raise UserError(
                f"{path} is a link to {os.readlink(path)}, and writing would change that file\n"
                "  expected a file in this folder: replace the link with a copy"
            )


def find_run(which: str, output_dir: str, key: str = "resume=") -> Path:
    """The folder of a run. which: a path, or "last" for the run that started last. Raises UserError if there is none.

    key: the key that the user typed before `which`, for messages; "" on the command line of dl-runs.
    """
    if which != "last":
        folder = Path(which)
        if which and os.path.isfile(folder / ".hydra" / "config.yaml"):
            return folder
        reason = (
            "this folder is not a run's (it has no .hydra/config.yaml)"
            if which and os.path.exists(folder)
            else "no such folder"
        )
        raise UserError(f"{key}{which}: {reason}\n  expected a run's folder, as dl-run prints it, or {key}last")
    runs = all_runs(Path(output_dir))
    if not runs:
        base = Path(output_dir).resolve()
        option = "output_dir=..." if key else "--output-dir DIR"
        raise UserError(f"{key}last: there is no run under {base}\n  expected one; choose another folder with {option}")
    last = runs[-1]
    if key == "resume=" and (last.parent / "sweep.json").is_file():
        raise UserError(
            f"resume=last: the last run is {last}, job {last.name} of a sweep, whose results would not be updated\n"
            f"  to resume the sweep: dl-run -m {pasteable('sweep.resume', last.parent)}\n"
            f"  to resume this job alone: dl-run {pasteable('resume', last)}"
        )
    return last


def within(folder: Path, *names: str) -> Path:
    """The path of nested names in an untrusted folder. Raises UserError if it leads out of the folder."""
    path = folder
    for name in names:
        path = path / name
        if not NAME.fullmatch(name) or os.path.islink(path):
            raise UserError(
                f"{str(path)!r} leads out of the folder {folder}\n"
                "  expected a file or folder inside it that is not a link; nothing was read or changed"
            )
    return path


def read_summary(folder: Path) -> dict:
    """The content of summary.json; empty if it is missing or damaged."""
    try:
        summary = json.loads(read_whole(folder / "summary.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return summary if isinstance(summary, dict) else {}


def status_of(summary: dict) -> object:
    """The present status of a run. A finished run that was resumed keeps its old results and has another status."""
    resumed = summary.get("resumed")
    return resumed.get("status") if isinstance(resumed, dict) else summary.get("status")


def require_plain(folder: Path) -> None:
    """Raise UserError if a run's folder holds a link, a pipe or a device: writing to it would go elsewhere."""
    for path in sorted(folder.rglob("*")):
        is_taken = path.is_dir() and path.suffix in (".ckpt", ".json", ".jsonl", ".log", ".tmp", ".yaml")
        if path.is_symlink() or is_taken or not (path.is_file() or path.is_dir()):
            kind = "a folder" if is_taken else "a pipe or a device"
            raise UserError(
                f"{path} is {f'a link to {os.readlink(path)}' if path.is_symlink() else kind}\n"
                "  expected only plain files and folders in a run's folder\n"
                "  replace it with the file itself, or remove it if it is not the run's"
            )


def tested_paths(folder: Path, summary: dict, test: str) -> tuple[Path, Path]:
    """Paths of the weights that a finished run was tested with: the original, and the copy made if it is resumed.

    folder: the run's checkpoints. test: trainer.test. The original is best.ckpt or last.ckpt.
    """
    name = "best" if summary.get("best") and test == "best" else "last"
    steps = summary.get("steps")
    return folder / f"{name}.ckpt", folder / f"tested_{steps if isinstance(steps, int) else 0}.ckpt"


def best_weights(run: Path) -> Path:
    """Path of a run's best weights: those of the epoch that a limit cut, else of the best whole epoch, else the last.

    The file may be missing.
    """
    folder, summary = run / "checkpoints", read_summary(run)
    cut = tested_paths(folder, summary, "best")[1]
    paths = [*([cut] if status_of(summary) == "finished" else []), folder / "best.ckpt", folder / "last.ckpt"]
    return next((path for path in paths if os.path.exists(path)), folder / "best.ckpt")
