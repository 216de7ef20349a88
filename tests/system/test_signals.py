"""Signals: the first one saves and stops, a second one stops at once."""

import json
import os
import signal
import time
from contextlib import suppress

import pytest
from runs import SMALL, STRAIGHT, assert_same, compose, dl_run, ended, rows, state, train, wait_for

from dlrun.system.signals import ONE_REQUEST, Signals


@pytest.fixture(autouse=True)
def hangups():
    """Under nohup, tests would ignore hangups."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_signal_handlers_are_restored(config, tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    train(tmp_path, config(), signals={2: signal.SIGINT})
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_warnings_of_slurm_save_and_stop(number, config, straight, tmp_path):
    """They may arrive twice, for the run and for the script that started it."""
    outcome = train(tmp_path, config(*STRAIGHT), signals={5: number})
    assert (outcome.reason, outcome.number) == ("signal", number)
    train(tmp_path, config(*STRAIGHT), resumed=True)
    assert_same(straight, tmp_path)
    with Signals() as signals:
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert signals.stop == number


@pytest.fixture
def pressed(monkeypatch):
    """pressed((0, number), (1, number)) receives signals at these seconds; returns (signal to stop for, killed by)."""

    def press(*pairs):
        killed, now = [], [100.0]
        monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        with Signals() as signals:
            for seconds, number in pairs:
                now[0] = 100.0 + seconds
                signal.raise_signal(number)
            return signals.stop, killed

    return press


def test_a_second_signal_stops_at_once(pressed):
    assert pressed((0, signal.SIGTERM)) == (signal.SIGTERM, [])
    assert pressed((0, signal.SIGTERM), (2, signal.SIGINT)) == (signal.SIGTERM, [signal.SIGINT])


@pytest.mark.parametrize("warning", [signal.SIGUSR1, signal.SIGHUP])
def test_sigterm_after_a_warning_is_the_first_request(warning, pressed):
    """As at SLURM's time limit; a third signal ends the run at once."""
    assert pressed((0, warning), (2, signal.SIGTERM)) == (warning, [])
    assert pressed((0, warning), (2, signal.SIGTERM), (4, signal.SIGTERM)) == (warning, [signal.SIGTERM])
    assert pressed((0, signal.SIGTERM), (2, warning)) == (signal.SIGTERM, [])


def test_a_signal_repeated_by_the_parent_counts_once(pressed):
    """systemd and SLURM signal each process of a job, and a launcher or a sweep forwards its own signal."""
    assert pressed((0, signal.SIGTERM), (0.2, signal.SIGTERM)) == (signal.SIGTERM, [])


def test_a_repeated_hangup_counts_once(monkeypatch):
    """The shell sends it, too. A command under nohup ignores it."""
    monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail("it stopped at once"))
    with Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert signals.stop == signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.stop is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_command_stops_with_the_codes_of_the_signals_and_resumes(data_dir, tmp_path):
    """SIGTERM: 143. SIGINT in an evaluation: 130. Two signals: at once. A second process on the run: refused."""
    folder, log = tmp_path / "run", tmp_path / "log"
    small = [f"data_dir={data_dir}", *SMALL, "trainer.epochs=9999", f"run_dir={folder}"]
    process = dl_run(log, *small)
    wait_for("epoch    2/9999", log, process)
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process) == 143
    assert f"checkpoint saved. Resume with: dl-run resume={folder}" in log.read_text()

    log.unlink()
    process = dl_run(log, f"resume={folder}", slow=30.0)
    wait_for("evaluating val", log, process)
    second = tmp_path / "second"
    assert ended(dl_run(second, f"resume={folder}")) == 2
    assert f"{folder} is in use" in second.read_text()
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 130
    assert json.loads((folder / "summary.json").read_text())["status"] == "stopped"

    log.unlink()
    process = dl_run(log, f"resume={folder}")
    wait_for("/9999", log, process)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(2 * ONE_REQUEST)
    with suppress(ProcessLookupError):  # it may have saved and ended
        os.kill(process.pid, signal.SIGINT)
    assert ended(process) in (-signal.SIGINT, 143)
    epochs = state(folder)["clock"]["epoch"]

    last = tmp_path / "end"
    assert ended(dl_run(last, f"resume={folder}", f"trainer.epochs={epochs + 1}")) == 0
    assert rows(folder)[-1]["epoch"] == epochs + 1
    train(tmp_path / "straight", compose(f"data_dir={data_dir}", *SMALL, f"trainer.epochs={epochs + 1}"))
    assert_same(tmp_path / "straight", folder)
