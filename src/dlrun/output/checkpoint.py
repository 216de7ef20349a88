"""Checkpoints: written atomically, verified when read, and unable to run code.

A file is the zip that `torch.save` writes, with its SHA-256 as the zip's comment. `torch.load(path, weights_only=True)`
reads it anywhere, and dl-run detects a single wrong byte. docs/runs.md lists the entries; train/state.py collects them.
"""

import hashlib
import io
import os
import pickle
import struct
import zipfile
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import TypeVar, cast

import torch

import dlrun
from dlrun.errors import CheckpointError, UserError
from dlrun.output.restarts import has_checkpoint
from dlrun.output.written import sync_folder
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
    buffer = packed({"format": FORMAT, "version": dlrun.__version__, **state})
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


def packed(state: dict) -> io.BytesIO:
    """The file of a checkpoint, in memory. Raises MemoryError if there is too little for it."""
    buffer = io.BytesIO()
    try:
        torch.save(state, buffer)
    except RuntimeError as error:
        if not isinstance(error.__context__, MemoryError) and "unexpected pos" not in str(error):
            raise
        # torch completes its zip after a write that failed, and this second error hides the first
        raise MemoryError("a checkpoint does not fit into memory") from error
    return buffer


def recovery_hint(folder: Path, first: str = "") -> str:
    """Explain how to continue an interrupted run: resume it if it has a checkpoint, else start it again.

    first: an instruction to put before that, such as MAKE_ROOM.
    """
    if has_checkpoint(folder):
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
