"""The examples of docs/extend.md: every file is written as printed, every command runs."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from dlrun import cli
from dlrun.config import signatures

pytestmark = pytest.mark.usefixtures("undrawn")

TEXT = (Path(__file__).parents[1] / "docs" / "extend.md").read_text(encoding="utf-8")
FILES = re.findall(r"^`([\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
COMMANDS = re.findall(r"^\$ dl-run (.*)$", TEXT, re.MULTILINE)


@pytest.fixture
def dl_run(tmp_path, monkeypatch):
    """Run a printed command in a folder with all printed files; returns the run's folder."""
    for path, text in FILES:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(signatures, "ALLOWED", frozenset({"mynets"}))

    def run(command):
        monkeypatch.setattr(sys, "argv", ["dl-run", *shlex.split(command)])
        cli.main()

    forget_modules()  # left by another test
    yield run
    forget_modules()


def forget_modules():
    for module in [name for name in sys.modules if name.partition(".")[0] == "mynets"]:
        del sys.modules[module]


def test_every_file_and_command_is_found_and_every_file_used():
    """A command names the option of a YAML; a command or a YAML names the module of a Python file."""
    assert len(FILES) == TEXT.count("```python") + TEXT.count("```yaml") and len(COMMANDS) == TEXT.count("\n$ ")
    options = {path: text for path, text in FILES if path.startswith("my/configs/")}
    users = [*COMMANDS, *options.values()]
    unused = [path for path in options if not any(f"{option_of(path)} " in f"{each} " for each in COMMANDS)]
    unused += [
        path
        for path, _ in FILES
        if path not in options and not any(f"{path.removesuffix('.py').replace('/', '.')}." in each for each in users)
    ]
    assert not unused


def option_of(path):
    return f"{Path(path).parent.name}={Path(path).stem}"


@pytest.mark.thorough(but=["1", "8"])
@pytest.mark.parametrize("command", COMMANDS, ids=[f"{i}" for i in range(len(COMMANDS))])
def test_every_command_runs(dl_run, command):
    dl_run(f"{command} run_dir=run")
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["status"] == "finished" and summary["test"]


@pytest.mark.thorough
def test_the_users_own_task_resumes_to_the_bit(dl_run):
    from runs import assert_same

    (command,) = (each for each in COMMANDS if "task=mixup" in each)
    dl_run(f"{command} run_dir=whole")
    dl_run(f"{command} run_dir=part trainer.max_steps=30")
    dl_run("resume=part trainer.max_steps=null")
    assert_same(Path("whole"), Path("part"))
