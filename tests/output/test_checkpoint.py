"""A checkpoint file: exact, verified, without code; every damage is found."""

import hashlib
import os
import pickle
import zipfile

import pytest
import torch
from runs import STRAIGHT, disk_full, same, train

from dlrun.errors import CheckpointError, UserError
from dlrun.output import checkpoint
from dlrun.output.checkpoint import load, save


@pytest.fixture
def path(tmp_path):
    save(tmp_path / "last.ckpt", {"components": {"net": {"w": torch.arange(300.0)}}, "lr": (0.1, 0.9)})
    return tmp_path / "last.ckpt"


def test_a_checkpoint_is_restored_and_torch_can_read_it(path):
    found = load(path)
    assert same(found["components"]["net"]["w"], torch.arange(300.0)) and found["lr"] == (0.1, 0.9)
    assert same(torch.load(path, weights_only=True), found)


def test_one_wrong_bit_anywhere_is_found(path):
    content = path.read_bytes()
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + bytes([content[at] ^ 1 << at % 8]) + content[at + 1 :])
        with pytest.raises(CheckpointError, match="last.ckpt is damaged"):
            load(path)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, 1000, -65, -64, -1])
def test_a_truncated_file_is_found(path, length):
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(CheckpointError, match="is damaged"):
        load(path)


def test_a_file_that_is_longer_is_found(path):
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="is damaged"):
        load(path)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the checkpoint .*none.ckpt: No such file"):
        load(tmp_path / "none.ckpt")


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_checkpoint_cannot_run_code(protocol, tmp_path, monkeypatch):
    """Not even with the right hash."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.ckpt"
    if protocol == "torch":
        save(path, {"state_dict": Evil()})
    else:
        body = pickle.dumps(Evil())
        path.write_bytes(body + checkpoint.hashlib.sha256(body).hexdigest().encode())
    with pytest.raises(CheckpointError, match="was not written by dl-run and is not loaded"):
        load(path)
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_another_format_is_refused(path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    with pytest.raises(
        CheckpointError, match=r"last.ckpt has format 2, written by dl-run \S+: this is dl-run \S+ and reads format 99"
    ):
        load(path)


def test_a_file_of_another_program_is_refused(path):
    torch.save({"w": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="damaged, or was not written by dl-run"):
        load(path)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_checkpoint(call, path, monkeypatch):
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, disk_full)
        with pytest.raises(UserError) as error:
            save(path, {"components": {}})
    message = str(error.value)
    assert "cannot write the checkpoint" in message and "No space left on device" in message and "make room" in message
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["last.ckpt"]


def test_torch_reads_every_checkpoint_with_weights_only(straight):
    for name in ("last", "previous", "best"):
        found = torch.load(straight / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert found["format"] == checkpoint.FORMAT and found["state_dict"]


def test_compressed_entries_are_refused(stopped, config):
    """A few bytes could unpack to gigabytes."""
    path = stopped / "checkpoints" / "last.ckpt"
    with zipfile.ZipFile(path) as found, zipfile.ZipFile(stopped / "new", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in found.infolist():
            new.writestr(entry.filename, found.read(entry))
    body = bytearray((stopped / "new").read_bytes())
    body[-2:] = (64).to_bytes(2, "little")
    path.write_bytes(bytes(body) + hashlib.sha256(body).hexdigest().encode())
    with pytest.raises(CheckpointError, match="its entries are compressed"):
        load(path)


def test_a_resume_from_another_format_is_refused(stopped, config, monkeypatch):
    for name in ("last", "previous"):
        path = stopped / "checkpoints" / f"{name}.ckpt"
        found = torch.load(path, weights_only=True)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "FORMAT", 99)
            save(path, {k: v for k, v in found.items() if k not in ("format", "version")})
    with pytest.raises(CheckpointError, match="has format 99, written by dl-run .* reads format 2"):
        train(stopped, config(*STRAIGHT), resumed=True)
