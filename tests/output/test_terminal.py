"""Terminal output: no escape sequence from a file takes effect, and a full or closed output gives no traceback."""

import json
import os
import subprocess
import sys

import pytest
from runs import command

from dlrun.errors import first_line, printable
from dlrun.output import terminal
from dlrun.output.console import header
from dlrun.output.run_folder import RunFolder
from dlrun.runs import cli as runs_cli
from dlrun.sweep.screen import Screen


@pytest.mark.parametrize(
    "text, shown",
    [
        ("\x1b]0;owned\x07", r"\x1b]0;owned\x07"),
        ("a\rb\x9bc\x7f", r"a\rb\x9bc\x7f"),
        ("gpj.\u202egnp", r"gpj.\u202egnp"),
        ("\u00fc\t\u65e5\u672c \U0001f600\n", "\u00fc\t\u65e5\u672c \U0001f600\n"),
    ],
)
def test_control_characters_are_shown_not_obeyed(text, shown):
    assert printable(text) == shown


@pytest.fixture
def hostile(tmp_path):
    """The folder of a run whose summary, config and metrics hold escape sequences."""
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text("seed: 0  # \x1b[2J\n")
    (tmp_path / ".hydra" / "overrides.yaml").write_text('- "a=\\e[2J"\n')
    summary = {"status": "\x1b[31mred", "model": "\x1b]0;m", "test": {"test/\x1b[1macc": 0.5}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "step": 1, "val/\x1b[5mloss": 1.0}) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments, expected",
    [(["show"], 0), (["show", "--config"], 0), (["show", "--json"], 0), (["evaluate"], 2), (["report"], 2)],
)
def test_no_run_folder_can_control_the_terminal(arguments, expected, hostile, monkeypatch, capsys):
    first, *more = arguments
    code, lines, err = command(monkeypatch, capsys, runs_cli.main, "dl-runs")(first, hostile, *more)
    assert code == expected and "".join(lines) + err and "\x1b" not in "".join(lines) + err


def test_no_run_can_control_the_terminal(tmp_path, capsys):
    run = RunFolder(tmp_path, {})
    run.print("class \x1b[2J")
    run.close()
    assert "\x1b" not in capsys.readouterr().out + (tmp_path / "run.log").read_text()


has_full = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")


@pytest.mark.thorough
@has_full
def test_a_run_continues_when_its_output_is_full_and_reports_it(tmp_path):
    command = ["dlrun", "data=moons", "trainer.epochs=1", f"run_dir={tmp_path}/run"]
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", *command], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("dl-run: cannot write to stdout: No space left on device\n  training continues")
    assert done.stderr.count("\n") == 2
    assert "all epochs done" in (tmp_path / "run" / "run.log").read_text()


@has_full
def test_a_sweep_continues_when_its_output_is_full_and_reports_it(monkeypatch, capsys):
    monkeypatch.setattr(terminal, "lost", lost := [])
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        screen = Screen()
        screen.show("job 1 finished")
        screen.show("job 2 finished")
    assert lost and capsys.readouterr().err.count("cannot write to") == 1


@has_full
@pytest.mark.parametrize("command", [["dlrun.runs.cli", "--help"], ["dlrun", "--cfg", "job"], ["dlrun", "--version"]])
def test_a_full_output_is_reported(command):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", *command], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert "cannot write: No space left on device" in done.stderr and "Traceback" not in done.stderr


def test_long_facts_are_several_lines_of_the_header():
    facts = {"data": "pets: 35 train\n1 of 36 images is left out", "folder": "run"}
    lines = ["dl-run 1", "  data    pets: 35 train", "          1 of 36 images is left out", "  folder  run"]
    assert header("1", facts, 10_000) == "\n".join(lines)
    assert header("1", facts, 25).splitlines()[2:4] == ["          1 of 36 images", "          is left out"]


@pytest.mark.parametrize(
    ("text", "line"),
    [("", "ValueError"), ("\n", "ValueError"), ("a\nb", "a"), ("\n a \n", "a"), ("\x1b[31m", "\\x1b[31m")],
)
def test_the_first_line_of_an_error(text, line):
    assert first_line(ValueError(text)) == line
