"""Checkpoints: written atomically, verified when read, never able to run code.

A file is what `torch.save` writes, with the SHA-256 of it in the zip's comment: `torch.load(path, weights_only=True)`
reads it anywhere, and a single wrong byte is found.
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

import torch

import dlrun
from dlrun.errors import CheckpointError, UserError
from dlrun.output.folders import sync_folder
from dlrun.overrides import pasteable
from dlrun.paths import read_whole

FORMAT = 1
MAKE_ROOM = "make room, then "
HASH = 64  # hexadecimal digits of a SHA-256


def save(path: Path, state: dict) -> None:
    """Write to a temporary file, sync, rename: `path` is the old file or the new one, whenever the power goes."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "version": dlrun.__version__, **state}, buffer)
    with buffer.getbuffer() as content:  # given back before the buffer goes, or Python 3.13 complains
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
                f"  expected {len(content) / 2**20:.1f} MB of room in a folder that can be written to\n"
                f"  {way_on(path.parent.parent, MAKE_ROOM)}"
            ) from None


def way_on(folder: Path, first: str = "") -> str:
    """What can be done with a run that was cut short, after what is to be done first: a resume needs a checkpoint."""
    if any(os.path.exists(folder / "checkpoints" / f"{name}.ckpt") for name in ("last", "incoming", "previous")):
        return f"what was saved before is whole: {first}resume it with dl-run {pasteable('resume', folder)}"
    return f"no checkpoint was written yet: {first}start the run again"


def load(path: Path) -> dict:
    """Read and verify. Raises CheckpointError where the file is missing, damaged, or of another format."""
    try:
        content = read_whole(path)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from None
    body, digest = content[:-HASH], content[-HASH:]
    if hashlib.sha256(body).hexdigest().encode() != digest:
        raise CheckpointError(
            f"the checkpoint {path} is damaged, or not one of dl-run's: its SHA-256 is not that of its content"
        )
    try:
        if not content.startswith(b"PK"):  # torch also reads bare pickles, which dl-run never writes
            raise pickle.UnpicklingError("it is not a zip file")
        with zipfile.ZipFile(io.BytesIO(content)) as entries:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.infolist()):
                raise pickle.UnpicklingError("its entries are compressed")  # of a few bytes many could come
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        check_tensors(state)
    except (pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"the checkpoint {path} was not written by dl-run and is not loaded: {reason}") from None
    if not isinstance(state, dict) or not {"format", "version"} <= state.keys():
        raise CheckpointError(f"the checkpoint {path} was not written by dl-run: it does not say its format")
    if type(state["format"]) is not int or state["format"] != FORMAT:
        raise CheckpointError(
            f"the checkpoint {path} has format {state['format']}, written by dl-run {state['version']}: "
            f"this is dl-run {dlrun.__version__} and reads format {FORMAT}"
        )
    return state


def check_tensors(state: object) -> None:
    """Raise ValueError where a tensor is of a kind that nothing here has: kernels trust what they are given."""
    if isinstance(state, torch.Tensor):
        is_plain = state.layout is torch.strided and state.device.type == "cpu"
        if not is_plain or state.is_quantized or state.is_complex():
            raise ValueError(f"it holds a tensor that is not a plain one: {state.dtype}, {state.layout}")
    for each in state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ():
        check_tensors(each)


def snapshot(state: object) -> object:
    """A copy on the host that later steps do not change."""
    if isinstance(state, torch.Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(snapshot(value) for value in state)
    return deepcopy(state)


def load_own(path: Path, run: object) -> dict:
    """As `load`, of this run (its id). One of an older version does not say whose it is, nor does a run without one."""
    state = load(path)
    if run and state.get("run") and state["run"] != run:
        raise CheckpointError(f"the checkpoint {path} is another run's: expected the one that this run wrote")
    return state


def tested(folder: Path, summary: dict, test: str) -> tuple[Path, Path]:
    """Where the weights are that a finished run was tested with: best.ckpt or last.ckpt; and, once the run is resumed,
    under a name of their own. test: trainer.test.
    """
    name = "best" if summary.get("best") and test == "best" else "last"
    steps = summary.get("steps")
    return folder / f"{name}.ckpt", folder / f"tested_{steps if isinstance(steps, int) else 0}.ckpt"


class Checkpoints:
    """A run's checkpoints: `last`, `previous` (the one before it) and `best`, written behind the training's back."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.last_is_good = True

    def write(self, last: dict, best: dict | None) -> None:
        """Start writing snapshots. A new best is on the disk before the `last` that knows of it."""
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
        except BaseException as error:  # handed to the training's thread, which raises it
            self.error = error

    def write_partial_best(self, best: dict) -> None:
        """The best weights are those in mid-epoch, where a limit ended the run; those before are kept to go on with."""
        self.wait()
        self.folder.mkdir(exist_ok=True)
        if (self.folder / "best.ckpt").exists():
            shutil.copyfile(self.folder / "best.ckpt", self.folder / "best_before.tmp")
            os.replace(self.folder / "best_before.tmp", self.folder / "best_before.ckpt")
        save(self.folder / "best.ckpt", best | {"is_partial": True})

    def forget_partial_best(self) -> None:
        """The epoch goes on: best.ckpt is again what it was before the limit."""
        before, best = self.folder / "best_before.ckpt", self.folder / "best.ckpt"
        os.replace(before, best) if before.exists() else best.unlink(missing_ok=True)

    def keep_tested(self, summary: dict, test: str) -> None:
        """The run is resumed after its end: the weights that it was tested with stay beside those to come."""
        now, kept = tested(self.folder, summary, test)
        if kept.exists() or not now.exists():
            return
        self.forget_tested()
        temporary = kept.with_suffix(".tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(now, temporary)
        except OSError:  # a file system without links
            shutil.copyfile(now, temporary)
        os.replace(temporary, kept)

    def forget_tested(self) -> None:
        for path in self.folder.glob("tested_*.ckpt"):
            path.unlink()

    def load(self, name: str, run: object) -> dict:
        return load_own(self.folder / f"{name}.ckpt", run)

    def wait(self) -> None:
        """Until what was started is on the disk. Raises what went wrong there."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def load_last(self, run: object = None) -> tuple[dict, str]:
        """The newest checkpoint that is whole and this run's, and a word on why it is not `last` where it is not.

        `incoming` is one that was whole on the disk when the run was killed, and not yet renamed to `last`.
        """
        found = []
        paths = [self.folder / f"{name}.ckpt" for name in ("last", "incoming", "previous")]
        for path in paths:
            if not path.exists():
                continue
            try:
                state = load_own(path, run)
            except CheckpointError as error:
                found.append(str(error))
                continue
            self.last_is_good = path == paths[0] or not paths[0].exists()
            if path == paths[2] and not found:
                found.append(f"the checkpoint {paths[0]} is missing")
            return state, "; ".join(found)
        if found:
            raise CheckpointError(
                "no checkpoint of this run can be read:\n  "
                + "\n  ".join(found)
                + "\n  expected one that is whole: start the run again"
            )
        raise CheckpointError(
            f"{self.folder} holds no checkpoint: the run was stopped before it wrote one; start it again"
        )
