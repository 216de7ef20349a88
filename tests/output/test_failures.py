"""Failures of the machine: a full disk, a folder that is removed, no memory, no terminal."""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from functools import partial

import pytest
import torch
from runs import disk_full, state, train

from dlrun.errors import UserError
from dlrun.output import checkpoints
from dlrun.output.run_folder import RunFolder
from dlrun.train.session import Session

pytestmark = pytest.mark.usefixtures("undrawn")


def test_a_run_on_a_full_disk_reports_it_and_can_be_resumed(config, tmp_path, monkeypatch):
    train(tmp_path, config(), signals={4: signal.SIGTERM})
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", disk_full)
        with pytest.raises(UserError, match=f"No space left on device[^$]*resume={tmp_path}"):
            train(tmp_path, config(), resumed=True)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    assert not list(tmp_path.rglob("*.tmp"))
    train(tmp_path, config(), resumed=True)
    assert state(tmp_path)["clock"]["step"] == 8


@pytest.mark.parametrize("what", ["log", "write_summary", "print"])
def test_a_full_disk_is_reported_by_every_writer_of_a_run(what, config, tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, what, disk_full)
    with pytest.raises(
        UserError, match=f"cannot write to the run's folder {tmp_path}: No space left on device\n  expected"
    ):
        train(tmp_path, config())


def test_a_disk_that_is_full_before_the_first_checkpoint_is_reported(config, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save", lambda path, state: disk_full())
        with pytest.raises(UserError) as error:
            train(tmp_path, config())
    assert error.value.exit_code == 1
    assert "no checkpoint was written yet: make room, then start the run again" in str(error.value)
    assert "resume=" not in str(error.value) and "Errno" not in "".join(capsys.readouterr())


def test_a_folder_that_is_removed_during_the_run_is_reported(config, tmp_path, monkeypatch):
    def step(batch, clock):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return learn(batch, clock)

    made = Session(*config())
    learn, made.task.step = made.task.step, step
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="run was removed during the run\n  expected"):
        made.start(tmp_path / "run", resumed=False)


@pytest.mark.parametrize("broken", ["full", "closed", None])
def test_a_run_continues_without_standard_output(broken, config, tmp_path, monkeypatch):
    terminal = open("/dev/full" if broken == "full" and os.path.exists("/dev/full") else os.devnull, "w")
    if broken == "closed":
        terminal.close()
    monkeypatch.setattr("sys.stdout", terminal if broken else None)
    monkeypatch.setattr("dlrun.output.terminal.lost", [])
    train(tmp_path, config(), finish=True)
    assert "all epochs done" in (tmp_path / "run.log").read_text()
    with suppress(OSError):
        terminal.close()


def test_too_little_memory_for_a_checkpoint_is_reported(config, tmp_path, monkeypatch):
    """torch hides the cause: it completes its zip after the write that failed."""

    def fails(*arguments):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 470")

    monkeypatch.setattr("dlrun.output.checkpoint.torch.save", fails)
    with pytest.raises(UserError, match="^out of memory: a checkpoint does not fit into memory\n"):
        Session(*config()).start(tmp_path, resumed=False)


@pytest.mark.parametrize(
    "error, message",
    [
        (MemoryError("Unable to allocate 7.28 TiB for an array"), "cannot allocate 7.28 TiB more"),
        (RuntimeError("can't allocate memory: you tried to allocate 25600000000 bytes."), "cannot allocate 23.8 GiB"),
        (RuntimeError("can't allocate memory: you tried to allocate 46000000 bytes."), "cannot allocate 43.9 MiB"),
        (RuntimeError("can't start new thread"), "can't start new thread"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), ".*Cannot allocate memory"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "cannot allocate 2.00 GiB more"),
    ],
)
def test_too_little_memory_is_reported(error, message, config, tmp_path, monkeypatch):
    def fails(*arguments):
        raise error

    made = Session(*config())
    made.task.step = fails
    with pytest.raises(UserError, match=f"out of memory: {message}[^$]*reduce the model"):
        made.start(tmp_path, resumed=False)
    monkeypatch.setattr("dlrun.train.assemble.prepare_net", fails)
    with pytest.raises(UserError, match=f"out of memory: {message}"):
        Session(*config())


def test_a_device_without_space_is_reported(config, tmp_path):
    """metrics.jsonl is a link to /dev/full, which accepts nothing."""
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(UserError, match="cannot write to the run's folder .*No space left on device"):
        train(tmp_path, config())


@pytest.mark.slow
@pytest.mark.parametrize("words", [[], ["-m", "seed=0,1"], ["seeds=2", "sweep.stack=2"]])
def test_a_command_on_a_full_disk_ends_with_1(words, tmp_path):
    """Really: no file of the processes may have more than 99 kB, and the first checkpoint needs more."""
    limited = partial(resource.setrlimit, resource.RLIMIT_FSIZE, (99_000, 99_000))
    command = [sys.executable, "-m", "dlrun", "--json", "data=digits", "trainer.epochs=1", *words]
    command += [f"output_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited)
    found = json.loads(done.stdout)
    assert done.returncode == found["exit_code"] == 1 and found["status"] == "failed", done
    assert "File too large" in done.stderr and "Traceback" not in done.stderr
    assert found.get("jobs") in (None, {"failed": 2})
