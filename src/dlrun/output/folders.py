"""Run folders: made exclusively, found again, read and written whole. No torch here."""

import json
import os
import re
import shutil
import socket
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from dlrun.errors import UserError
from dlrun.overrides import pasteable
from dlrun.paths import read_whole

STARTED = ".hydra/overrides.yaml"  # written last when a run starts
ELSEWHERE = ".elsewhere"  # under output_dir: the folders that run_dir= made, a line each
NAME = re.compile(r"(?!\.+$)[\w.-]{1,200}", re.ASCII)  # of a file, where a file names it: no path


def new_folder(base: Path, name: str) -> Path:
    """A folder of its own under `base`/<date>, made exclusively: two runs in one second get two."""
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
                    f"output_dir={base}: there is a file where the folder {parent} should be\n"
                    "  expected a folder that can be written to; choose another with output_dir=..."
                ) from None
        except OSError as error:
            raise UserError(
                f"output_dir={base}: cannot make {folder}: {error.strerror}\n"
                "  expected a folder that can be written to; choose another with output_dir=..."
            ) from None
    raise UserError(f"a thousand runs named {name} in one second under {parent}: choose another output_dir")


def claim_folder(folder: Path, base: Path) -> Path:
    """Make the folder that was asked for by run_dir=. Raises UserError where a run, or anything else, is in it already.

    An empty folder is taken, and one that this run made before a process of it died without a checkpoint. base: where
    runs are looked for; one that lies elsewhere is noted there.
    """
    if restarts() and _noted(base) == folder.resolve():
        shutil.rmtree(folder, ignore_errors=True)
    on = pasteable("resume", folder)
    taken = f"run_dir={folder} holds a run already: go on with it by {on}, or choose another folder"
    if os.path.exists(folder / "metrics.jsonl"):  # unlike Path.exists, false where it cannot be known
        raise UserError(taken)
    with suppress(OSError):  # what is not there, or cannot be read, is told below
        held = sorted(os.listdir(folder))
        if held and ".hydra" not in held:
            more = f" and {len(held) - 3} more" if len(held) > 3 else ""
            raise UserError(
                f"run_dir={folder} holds files already: {', '.join(held[:3])}{more}\n"
                "  expected a folder that is empty, or not there yet"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".hydra").mkdir()  # of two runs that ask for it at once one gets it
    except OSError as error:
        if os.path.exists(folder / ".hydra"):
            raise UserError(taken) from None
        raise UserError(f"run_dir={folder}: {error.strerror}\n  expected a folder that can be written to") from None
    if base.resolve() not in folder.resolve().parents:
        with suppress(OSError):  # it is only for finding it again
            base.mkdir(parents=True, exist_ok=True)
            with open(base / ELSEWHERE, "a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{folder.resolve()}\n")
    return folder


def all_runs(base: Path) -> list[Path]:
    """The folders of the runs under `base`, its sweeps, and elsewhere by run_dir=; the newest last."""
    found = {path.parent.parent for pattern in ("*/*", "*/*/*") for path in base.glob(f"{pattern}/{STARTED}")}
    with suppress(OSError, ValueError):
        lines = read_whole(base / ELSEWHERE).decode("utf-8", "surrogateescape").splitlines()
        found |= {Path(line) for line in lines if os.path.isfile(Path(line) / STARTED)}
    found = {folder for folder in found if not folder.is_symlink()}  # a sweep's best is one of its jobs
    return sorted(found, key=lambda folder: (folder / STARTED).stat().st_mtime)


def refuse_links(folder: Path) -> None:
    """Raise UserError where a sweep would write through a link in its folder, to a file that may be anybody's."""
    for path in [*folder.iterdir(), *(folder / "logs").glob("*")]:
        if path.is_symlink() and path.name != "best":
            raise UserError(
                f"{path} is a link to {os.readlink(path)}, which would be written to\n"
                "  expected a file of this folder's own: put a copy in its place"
            )


def find_run(which: str, output_dir: str, key: str = "resume=") -> Path:
    """The folder of a run; `last` is the one that was started last. Raises UserError where there is none.

    key: what `which` was given as, for messages.
    """
    if which != "last":
        folder = Path(which)
        if which and os.path.isfile(folder / ".hydra" / "config.yaml"):
            return folder
        why = (
            "this folder is not a run's (it has no .hydra/config.yaml)"
            if which and os.path.exists(folder)
            else "no such folder"
        )
        raise UserError(f"{key}{which}: {why}\n  expected a run's folder, as dl-run prints it, or {key}last")
    started = all_runs(Path(output_dir))
    if not started:
        where = Path(output_dir).resolve()
        elsewhere = "output_dir=..." if key else "--output-dir DIR"
        raise UserError(f"{key}last: there is no run under {where}\n  expected one; {elsewhere} looks elsewhere")
    last = started[-1]
    if key == "resume=" and (last.parent / "sweep.json").is_file():
        raise UserError(
            f"resume=last: the last run is {last}, job {last.name} of a sweep, whose results would not change with it\n"
            f"  expected the sweep: dl-run -m {pasteable('sweep.resume', last.parent)}\n"
            f"  or the job alone, by its folder: dl-run {pasteable('resume', last)}"
        )
    return last


def within(folder: Path, *names: str) -> Path:
    """The path of names, in a folder that may be a stranger's. Raises UserError where it leads out."""
    path = folder
    for name in names:
        path = path / name
        if not NAME.fullmatch(name) or os.path.islink(path):
            raise UserError(
                f"{str(path)!r} leads out of the folder {folder}\n"
                "  expected a file or a folder inside it, and no link; it is neither read nor changed"
            )
    return path


def restarts() -> int:
    """How often this process was started in the place of one that died, by `launch` or by torchrun."""
    return max(int(os.environ.get(name) or 0) for name in ("DL_RUN_RESTART", "TORCHELASTIC_RESTART_COUNT"))


def note_start(base: Path, folder: Path) -> None:
    """Where a launcher started this process: so that those which it starts in its place find the run.

    Notes of launchers that are gone are removed: a launcher may be killed, and torchrun knows of none.
    """
    if "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return
    for path in base.glob(f".torchrun-{socket.gethostname()}-*"):
        pid = path.name.rpartition("-")[2]
        if os.name == "posix" and pid.isdecimal() and not _is_alive(int(pid)):
            path.unlink(missing_ok=True)
    write_whole(_note(base, os.getppid()), f"{folder.resolve()}")


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or no number of a process
        pass
    return True


def died_before(base: Path) -> Path | None:
    """The run that this process is to go on with, because one of those which trained it together died."""
    if not restarts():
        return None
    folder = _noted(base)
    names = ("last", "previous", "incoming")
    if folder and any((folder / "checkpoints" / f"{name}.ckpt").exists() for name in names):
        return folder
    return None


def _noted(base: Path) -> Path | None:
    """The folder of the run that this process's launcher started first."""
    try:
        return Path(read_whole(_note(base, os.getppid())).decode())
    except (OSError, ValueError):
        return None


def forget_start(base: Path) -> None:
    """For the launcher, at its end: what `note_start` wrote is not needed any more."""
    with suppress(OSError):
        _note(base, os.getpid()).unlink()


def _note(base: Path, launcher: int) -> Path:
    return base / f".torchrun-{socket.gethostname()}-{launcher}"


def read_summary(folder: Path) -> dict:
    """summary.json, or nothing where the run did not come to write it, or something else did."""
    try:
        found = json.loads(read_whole(folder / "summary.json"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def status_of(summary: dict) -> object:
    """What a run does now, or did last: a finished one that was resumed since keeps its results."""
    resumed = summary.get("resumed")
    return resumed.get("status") if isinstance(resumed, dict) else summary.get("status")


def require_plain(folder: Path) -> None:
    """Raise UserError where a run's folder holds a link, a pipe or a device: what is written would go elsewhere."""
    for path in sorted(folder.rglob("*")):
        is_taken = path.is_dir() and path.suffix in (".ckpt", ".json", ".jsonl", ".log", ".tmp", ".yaml")
        if path.is_symlink() or is_taken or not (path.is_file() or path.is_dir()):
            kind = "a folder" if is_taken else "a pipe or a device"
            raise UserError(
                f"{path} is {f'a link to {os.readlink(path)}' if path.is_symlink() else kind}\n"
                "  expected files and folders in a run's folder, as dl-run writes them\n"
                "  put the file itself there, or remove it if it is not the run's"
            )


def write_whole(path: Path, text: str, durable: bool = False) -> None:
    """Replace a small file at once: readers see the old text or the new one.

    durable: it is on the disk when this returns, whenever the power goes.
    """
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    with open(temporary, "x", encoding="utf-8") as file:  # "w" would follow a link
        file.write(text)
        if durable:
            file.flush()
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in this folder last through a power cut (where the system can)."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        with suppress(OSError):  # not every file system can
            os.fsync(handle)
        os.close(handle)
