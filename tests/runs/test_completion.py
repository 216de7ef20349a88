"""Completion: the words of all three commands, and what Tab inserts in a real bash, zsh and fish."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time

import pytest
from run_files import write_run

from dlrun import cli as top
from dlrun.config.completion import complete
from dlrun.config.shells import SCRIPTS, replies, split, unquoted
from dlrun.runs import cli, data_cli
from dlrun.runs.completion import complete as complete_command


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with two runs, and a folder with the commands."""
    base = tmp_path_factory.mktemp("shell")
    write_run(base / "outputs" / "day" / "one", test={"test/acc": 0.5})
    write_run(base / "other runs" / "day" / "my run", status="stopped")
    write_run(base / "swept" / "day" / "sweep" / "0")
    (base / "swept" / "day" / "sweep" / "sweep.json").write_text("{}")
    (base / "bin").mkdir()
    for name, module in {"dl-run": "__main__", "dl-runs": "runs.cli", "dl-data": "runs.data_cli"}.items():
        path = base / "bin" / name
        path.write_text(f"#!{sys.executable}\nimport sys\nfrom dlrun.{module} import main\nsys.exit(main())\n")
        path.chmod(0o755)
    return base


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["mod"], "model= model. mode="),
        (["ne"], "new"),
        (["seed=1", "ne"], ""),
        (["schema", "--v"], "--vscode"),
        (["data=digits", "model=len"], "model=lenet model=lenet_original"),
        (["-m", "model=mlp,len"], "model=mlp,lenet model=mlp,lenet_original"),
        (["trainer.epo"], "trainer.epochs="),
        (["++trainer.epo"], "++trainer.epochs="),
        (["~trac"], "~tracker= ~tracker."),
        (["model=resnet18", "schedule.war"], "schedule.warmup_fraction="),
        (["model=lenet", "model.", "nothing=[", "data.augment.fl"], "data.augment.flip="),
        (["trainer.device="], "trainer.device=auto trainer.device=cpu trainer.device=cuda trainer.device=mps"),
        (["data.augment.flip=t"], "data.augment.flip=true"),
        (["task.metrics=[f1,map"], "task.metrics=[f1,mape"),
        (["task.loss=fo"], "task.loss=focal"),
        (["optimizer.lr="], "optimizer.lr=0.001 optimizer.lr=auto"),
        (["mode=find"], "mode=find_lr mode=find_batch"),
        (["resume.all"], "resume.allow="),
        (["resume="], "resume=last resume=outputs/day/one"),
        (["output_dir=other runs", "resume=o"], "resume=other runs/day/my run"),
        (["init=out"], "init=outputs/day/one"),
        (["-m", "output_dir=swept", "sweep.resume="], "sweep.resume=last sweep.resume=swept/day/sweep"),
        (["--c"], "--cfg --config-dir"),
        (["--cfg", ""], "job hydra all"),
        (["--config-dir", "mo"], ""),
        (["--cfg", "job", "--package", "opt"], "optimizer"),
    ],
)
def test_words_of_dl_run(line, words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = replies("zsh", line, complete(line, ["new", "schema", "trust"]))
    expected = ["resume=last", "resume=outputs/day/one"] if line == ["resume="] else words.split(" ") if words else []
    if "my run" in words:
        expected = [words]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [
        (cli, ["eval"], ["evaluate"]),
        (cli, ["show", "outputs/d"], ["outputs/day/one"]),
        (cli, ["show", "last", ""], []),
        (cli, ["show", "--output-dir", "other runs", "other"], ["other runs/day/my run"]),
        (cli, ["show", "--output-dir=other runs", "other"], ["other runs/day/my run"]),
        (cli, ["compare", "last", "l"], ["last"]),
        (cli, ["watch", "l"], ["last"]),
        (cli, ["watch", "--output-dir", "swept", "swept"], ["swept/day/sweep/0", "swept/day/sweep"]),
        (cli, ["show", "--output-dir", "swept", "swept"], ["swept/day/sweep/0"]),
        (cli, ["list", "mod"], ["model="]),
        (cli, ["list", "model=m"], ["model=mlp"]),
        (cli, ["list", "status=stopped,fin"], ["status=stopped,finished"]),
        (cli, ["list", "--sort", "test"], ["test", "test/acc"]),
        (cli, ["list", "--rev"], ["--reverse"]),
        (cli, ["export", "last", "--format", "safe"], ["safetensors"]),
        (cli, ["export", "last", "--format=safe"], ["--format=safetensors"]),
        (cli, ["predict", "last", "--format", "c"], ["csv"]),
        (cli, ["evaluate", "last", "split="], ["split=val", "split=test", "split=all"]),
        (cli, ["evaluate", "last", "data=fashion"], ["data=fashion_mnist"]),
        (cli, ["evaluate", "last", "data=digits", "data.batch"], ["data.batch_size="]),
        (cli, ["evaluate", "nowhere", "data.batch"], []),
        (cli, ["evaluate", "last", "--device", "cu"], ["cuda"]),
        (cli, ["completion", "z"], ["zsh"]),
        (cli, ["nothing", ""], []),
        (data_cli, ["fet"], ["fetch"]),
        (data_cli, ["check", "fashion"], ["fashion_mnist"]),
        (data_cli, ["draw", "digits", "data.augment.fl"], ["data.augment.flip="]),
        (data_cli, ["check", "digits", "data.sampler="], ["data.sampler=none", "data.sampler=balanced"]),
        (data_cli, ["draw", "iris", "--o"], ["--out"]),
        (data_cli, ["draw", "iris", "--out", ""], []),
    ],
)
def test_words_of_dl_runs_and_dl_data(module, line, words, folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert replies("zsh", line, complete_command(line, module.COMMANDS)) == words


@pytest.mark.parametrize("shell", SCRIPTS)
@pytest.mark.parametrize(
    ("main", "line", "flag"),
    [
        (top.main, ["dl-run", "--"], "--config-dir"),
        (cli.main, ["dl-runs", "ui", "--"], "--port"),
        (cli.main, ["dl-runs", "show", "--", "--"], "--json"),
        (data_cli.main, ["dl-data", "draw", "--"], "--out"),
    ],
)
def test_two_dashes_are_completed(shell, main, line, flag, monkeypatch, capsys):
    """As each shell calls the command: argparse drops the word --, which ends the flags elsewhere."""
    words = [" ".join(line), line[-1]] if shell == "bash" else line[1:]
    monkeypatch.setattr(sys, "argv", [line[0], "completion", shell, "--words", *words])
    main()
    assert flag in map(str.strip, capsys.readouterr().out.splitlines())


def test_the_line_of_bash_is_split_as_bash_does():
    assert split("bash", ["dl-run 'a b'  c\\ d e=\"f g"]) == ["a b", "c d", "e=f g"]
    assert split("bash", ["dl-run x "]) == ["x", ""] and split("bash", ["dl-run"]) == [""]
    assert split("bash", ["dl-run 'a "]) == ["a "]
    assert unquoted("'it'\\''s'") == "it's" and unquoted('"a\\"b\\c"') == 'a"b\\c'
    assert replies("bash", ["dl-run model=le", "le"], ["model=lenet", "mode="]) == ["lenet "]
    assert replies("bash", ["dl-runs show my\\ r", "my\\ r"], ["my run"]) == ["my\\ run "]
    assert replies("bash", ["dl-runs show 'my r", "my r"], ["my run"]) == ["my run"]
    assert replies("bash", ["dl-run 'a=[b, c", "a=[b, c"], ["a=[b, cd"]) == ["a=[b, cd"]


def environment(folder):
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8", "HISTFILE": ""}


LINES = [  # what is typed, and the line after Tab
    ("dl-run ne", "dl-run new "),
    ("dl-runs ui --po", "dl-runs ui --port "),
    ("dl-run trainer.epo", "dl-run trainer.epochs="),
    ("dl-run data=digits model=alex", "dl-run data=digits model=alexnet "),
    ("dl-run resume=outputs/d", "dl-run resume=outputs/day/one "),
    ("dl-run -m model=mlp,alex", "dl-run -m model=mlp,alexnet "),
    ("dl-runs eval", "dl-runs evaluate "),
    ("dl-runs list model=m", "dl-runs list model=mlp "),
    ("dl-runs show --output-dir other\\ runs oth", "dl-runs show --output-dir other\\ runs other\\ runs/day/my\\ run "),
    ("dl-data check fashion", "dl-data check fashion_mnist "),
    ("dl-run 'task.metrics=[f1, map", "dl-run 'task.metrics=[f1, mape'"),
    ("cd . && dl-data fet", "cd . && dl-data fetch "),
]
STARTS = {
    "bash": (["bash", "-i"], ".bashrc", 'eval "$(dl-runs completion bash)"; PS1="READY "'),
    "zsh": (["zsh", "-i"], ".zshrc", 'PS1="READY "; eval "$(dl-runs completion zsh)"'),
}


@pytest.mark.parametrize(("line", "after"), LINES)
@pytest.mark.parametrize("shell", STARTS)
@pytest.mark.slow
def test_tab_completes(shell, line, after, folder):
    """Press Tab in an interactive shell in a terminal of its own."""
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    command, name, script = STARTS[shell]
    (folder / name).write_text(script + "\n")
    command = ["bash", "--rcfile", str(folder / name), "-i"] if shell == "bash" else command
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.execvpe(shell, command, environment(folder))
    read_until(terminal, lambda text: "READY" in text)
    os.write(terminal, f"{line}\t".encode())
    text = read_until(terminal, lambda text: shown(text).startswith(after), 20)
    os.write(terminal, b"\x15exit\r")
    read_until(terminal, lambda text: False, 3)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert shown(text).rstrip() == after.rstrip() and shown(text).startswith(after)


def shown(text):
    """Return the line that a terminal shows after these characters."""
    line, at = "", 0
    for each in re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|\x1b[=>]", "", text):
        if each == "\b":
            at -= 1
        elif each == "\r":
            at = 0
        elif each != "\a":
            line, at = line[:at] + each + line[at + 1 :], at + 1
    return line


def read_until(terminal, done, seconds=30.0):
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end and not done(text):
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                text += os.read(terminal, 4096).decode("utf-8", "replace")
            except OSError:  # the shell has ended
                break
    return text


@pytest.mark.parametrize(("line", "after"), LINES[:-1])
@pytest.mark.slow
def test_fish_lists_the_word(line, after, folder):
    if shutil.which("fish") is None:
        pytest.skip("no fish here")
    command = ["fish", "--no-config", "-c", "dl-runs completion fish | source; complete -C $argv[1]", line]
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True, check=False)
    found = [word.partition("\t")[0] for word in done.stdout.splitlines()]
    assert split("bash", [after.rstrip()])[-1] in found and not done.stderr


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_are_read_without_error(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    done = subprocess.run([shell, "-n"], input=SCRIPTS[shell], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and not done.stderr
    assert all(name in SCRIPTS[shell] for name in ("dl-run ", "dl-runs", "dl-data"))
