"""Checkpoints: written atomically, verified when read, and unable to run code.

A file is the zip that `torch.save` writes, with its SHA-256 as the zip's comment. `torch.load(path, weights_only=True)`
reads it anywhere, and dl-run detects a single wrong byte.
"""

import hashlib
import io
import os
import pickle
import shutil
import struct
import threading
import zipfile
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TypeVar, cast

import torch

import dlrun
from dlrun.errors import CheckpointError, UserError
from dlrun.output.folders import read_summary, status_of, sync_folder
from dlrun.overrides import pasteable
from dlrun.paths import read_whole

StateT = TypeVar("StateT")
FORMAT = 2
MAKE_ROOM = "make room, then "
HASH = 64  # hexadecimal digits of a SHA-256


def save(path: Path, state: dict) -> None:
    """Write to a temporary file, sync, rename: after a power cut `path` is either the old file or the new one.

    Raises UserError if the file cannot be written.
    """
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": dlrun.__version__, **state}, buffer)
    with buffer.getbuffer() as content:  # Python 3.13 warns if the buffer is freed before its view is released
        content[-2:] = struct.pack("<H", HASH)  # the length of the zip's comment
        digest = hashlib.sha256(content).hexdigest().encode()
        temporary = path.with_suffix(".tmp")
        try:
            with open(temporary, "wb") as file:
                file.write(content)
                file.write(digest)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise UserError(
                f"cannot write the checkpoint {path}: {error.strerror}\n"
                f"  expected {len(content) / 2**20:.1f} MB of free space in a writable folder\n"
                f"  {recovery_hint(path.parent.parent, MAKE_ROOM)}"
            ) from None


def recovery_hint(folder: Path, first: str = "") -> str:
    """How to continue a run that was cut short: resume it if it has a checkpoint, else start it again.

    first: an instruction to put before that, such as MAKE_ROOM.
    """
    if any(os.path.exists(folder / "checkpoints" / f"{name}.ckpt") for name in ("last", "incoming", "previous")):
        return f"the checkpoints saved earlier are whole: {first}resume with dl-run {pasteable('resume', folder)}"
    return f"no checkpoint was written yet: {first}start the run again"


def load(path: Path) -> dict:
    """Read and verify a checkpoint. Raises CheckpointError if it is missing, damaged, or of another format."""
    try:
        content = read_whole(path)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    body, digest = content[:-HASH], content[-HASH:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError(
            f"the checkpoint {path} is damaged, or was not written by dl-run: its SHA-256 does not match its content"
        )
    try:
        if not content.startswith(b"PK"):  # torch.load also accepts bare pickles, which dl-run never writes
            raise pickle.UnpicklingError("it is not a zip file")
        with zipfile.ZipFile(io.BytesIO(content)) as entries:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.infolist()):
                raise pickle.UnpicklingError("its entries are compressed")  # a small file could expand without limit
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        check_tensors(state)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"the checkpoint {path} was not written by dl-run and is not loaded: {reason}") from None
    if not isinstance(state, dict) or not {"format", "version"} <= state.keys():
        raise CheckpointError(f"the checkpoint {path} was not written by dl-run: it states no format")
    if type(state["format"]) is not int or state["format"] != FORMAT:
        raise CheckpointError(
            f"the checkpoint {path} has format {state['format']}, written by dl-run {state['version']}: "
            f"this is dl-run {dlrun.__version__} and reads format {FORMAT}"
        )
    return state


def check_tensors(state: object) -> None:
    """Raise ValueError unless every tensor is dense, real and on the CPU: kernels do not check for other kinds."""
    if isinstance(state, torch.Tensor):
        is_plain = state.layout is torch.strided and state.device.type == "cpu"
        if not is_plain or state.is_quantized or state.is_complex():
            raise ValueError(f"it holds a tensor of an unexpected kind: {state.dtype}, {state.layout}")
    for each in state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ():
        check_tensors(each)


def snapshot(state: StateT) -> StateT:
    """Deep copy with all tensors on the CPU, so that later training steps do not change it."""
    return cast(StateT, _copied(state))


def _copied(state: object) -> object:
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: _copied(value) for key, value in state.items()}
    if isinstance(state, float | int | str):
        return state
    if isinstance(state, list | tuple):
        return type(state)(_copied(value) for value in state)
    return deepcopy(state)


def load_of_run(path: Path, run: str | None) -> dict:
    """Load a checkpoint and check that it belongs to the run with this id. Raises CheckpointError if it does not.

    Not checked if the id is empty or if the file has none, as in older versions.
    """
    state = load(path)
    if run and state.get("run") and state["run"] != run:
        raise CheckpointError(f"the checkpoint {path} belongs to another run: expected one that this run wrote")
    return state


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


class Checkpoints:
    """A run's checkpoints: `last` and `previous` (the one before it), written by a background thread, and `best`.

    A finished run may have tested_<steps>.ckpt too: the weights that it was tested with, if `best` and `last` hold
    others. They do if a limit cut the epoch of the best weights, or while the run is resumed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.last_is_good = True

    def write(self, last: dict, best: dict | None) -> None:
        """Start writing snapshots. A new best is on the disk before the `last` that refers to it."""
        self.wait()
        self.thread = threading.Thread(target=self._write, args=(last, best), name="checkpoint")
        self.thread.start()

    def _write(self, last: dict, best: dict | None) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            if best is not None:
                save(self.folder / "best.ckpt", best)
            newest = self.folder / "last.ckpt"
            incoming = self.folder / "incoming.ckpt"
            save(incoming, last)
            if newest.exists() and self.last_is_good:
                os.replace(newest, self.folder / "previous.ckpt")
            os.replace(incoming, newest)
            sync_folder(self.folder)
            self.last_is_good = True
        except BaseException as error:  # `wait` raises it in the training thread
            self.error = error

    def keep_epoch(self, state: dict, epoch: int) -> None:
        """Start writing epoch_<n>.ckpt, a snapshot like that of the best epoch."""
        self.wait()
        self.thread = threading.Thread(target=self._keep_epoch, args=(state, epoch), name="checkpoint")
        self.thread.start()

    def _keep_epoch(self, state: dict, epoch: int) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
            save(self.folder / f"epoch_{epoch}.ckpt", state)
        except BaseException as error:  # `wait` raises it in the training thread
            self.error = error

    def forget_epochs(self, kept: set[int]) -> None:
        """Remove the files of all other epochs."""
        for path in self.folder.glob("epoch_*.ckpt"):
            number = path.stem.removeprefix("epoch_")
            if number.isdecimal() and int(number) not in kept:
                path.unlink(missing_ok=True)

    def write_tested(self, best: dict, steps: int) -> None:
        """Write the weights that a run is tested with if a limit cut its last epoch: best.ckpt is of whole epochs."""
        self.wait()
        self.folder.mkdir(exist_ok=True)
        save(self.folder / f"tested_{steps}.ckpt", best)

    def keep_tested(self, summary: dict, test: str) -> None:
        """Copy the weights that a finished run was tested with, since resuming it will replace them."""
        original, copy = tested_paths(self.folder, summary, test)
        if copy.exists() or not original.exists():
            return
        self.forget_tested()
        temporary = copy.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(original, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(original, temporary)
        os.replace(temporary, copy)

    def forget_tested(self, steps: int | None = None) -> None:
        """Remove tested weights, since the run was tested again; keep those of this number of steps."""
        for path in self.folder.glob("tested_*.ckpt"):
            if path.name != f"tested_{steps}.ckpt":
                path.unlink()

    def load(self, name: str, run: str | None) -> dict:
        """Load <name>.ckpt of the run with this id; see `load_of_run`."""
        return load_of_run(self.folder / f"{name}.ckpt", run)

    def wait(self) -> None:
        """Wait until the background thread has written its checkpoint. Raises the thread's error, if any."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def load_last(self, run: str | None = None) -> tuple[dict, str]:
        """The newest checkpoint that is whole and of this run, and why it is not `last` ("" if it is).

        `incoming` exists if the run was killed after writing a checkpoint and before renaming it to `last`. Raises
        CheckpointError if there is none.
        """
        failures = []
        paths = [self.folder / f"{name}.ckpt" for name in ("last", "incoming", "previous")]
        for path in paths:
            if not path.exists():
                continue
            try:
                state = load_of_run(path, run)
            except CheckpointError as error:
                failures.append(str(error))
                continue
            self.last_is_good = path == paths[0] or not paths[0].exists()
            if path == paths[2] and not failures:
                failures.append(f"the checkpoint {paths[0]} is missing")
            return state, "; ".join(failures)
        if failures:
            raise CheckpointError(
                "no checkpoint of this run can be read:\n  "
                + "\n  ".join(failures)
                + "\n  expected a whole one: start the run again"
            )
        raise CheckpointError(f"{self.folder} holds no checkpoint: the run stopped before it wrote one; start it again")
