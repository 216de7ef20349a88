"""Completion in real shells: bash, zsh and fish, of all three commands."""

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

from dlrun.runs.completion import SCRIPTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working folder with a run, and a folder with the commands."""
    base = tmp_path_factory.mktemp("shell")
    write_run(base / "outputs" / "day" / "one")
    (base / "bin").mkdir()
    for name, module in {"dl-run": "__main__", "dl-runs": "runs.cli", "dl-data": "runs.data_cli"}.items():
        path = base / "bin" / name
        path.write_text(f"#!{sys.executable}\nimport sys\nfrom dlrun.{module} import main\nsys.exit(main())\n")
        path.chmod(0o755)
    return base


def environment(folder):
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    return {"PATH": path, "HOME": str(folder), "TERM": "dumb", "LC_ALL": "C.UTF-8"}


LINES = [
    ("dl-run mod", "model="),
    ("dl-run ne", "new"),
    ("dl-run trainer.epo", "trainer.epochs="),
    ("dl-run data=digits model=len", "model=lenet"),
    ("dl-runs eval", "evaluate"),
    ("dl-runs show outputs/d", "outputs/day/one"),
    ("dl-runs list --rev", "--reverse"),
    ("dl-runs export last --format safe", "safetensors"),
    ("dl-data fet", "fetch"),
    ("dl-data check fashion", "fashion_mnist"),
    ("dl-data draw fashion", "fashion_mnist"),
]


def in_bash(folder, line):
    """What bash would insert: the completion function of the command, called as by readline."""
    # with "=" ending words, as in an interactive shell
    words = re.findall(r"=|[^=\s]+", line) + ([""] if line.endswith((" ", "=")) else [])
    quoted = " ".join(f"'{word}'" for word in words)
    script = f"""
    eval "$(dl-runs completion bash)"
    COMP_WORDBREAKS=$' \\t\\n"\\'><=;|&(:'
    COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({quoted}) COMP_CWORD={len(words) - 1}
    function=$(complete -p {words[0]} | sed 's/.*-F \\([a-z_]*\\).*/\\1/')
    $function {words[0]}
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], cwd=folder, env=environment(folder), capture_output=True, text=True)
    before = line.rpartition("=")[0].rpartition(" ")[2] + "=" if "=" in line.split()[-1] else ""
    return [before + word for word in done.stdout.split()], done.stderr


def in_fish(folder, line):
    command = "dl-runs completion fish | source; complete -C $argv[1]"
    done = subprocess.run(
        ["fish", "--no-config", "-c", command, line],
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
    )
    return [word.partition("\t")[0] for word in done.stdout.splitlines()], done.stderr


def in_zsh(folder, line):
    """Press Tab in an interactive zsh in a terminal of its own; returns its line with the completion."""
    (folder / ".zshrc").write_text('PS1="READY "; eval "$(dl-runs completion zsh)"\n')
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(folder)
        os.execvpe("zsh", ["zsh", "-i"], environment(folder))
    text = read_until(terminal, "READY")
    os.write(terminal, f"{line}\t".encode())
    text = read_until(terminal, None, seconds=20, done=lambda now: len(now.replace(line, "", 1).strip()) > 0)
    os.write(terminal, b"\x15exit\r")
    read_until(terminal, None, seconds=3, done=lambda now: False)
    os.waitpid(pid, 0)
    os.close(terminal)
    found = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]|[\x07\r]|.\x08", "", text)
    return [found.strip().split(" ")[-1]], ""


def read_until(terminal, word, seconds=30.0, done=None):
    text, end = "", time.monotonic() + seconds
    while time.monotonic() < end and not (word in text if word else False):
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                text += os.read(terminal, 4096).decode("utf-8", "replace")
            except OSError:  # the shell has ended
                break
        elif done and done(text):
            break
    return text


@pytest.mark.parametrize(("line", "word"), LINES)
@pytest.mark.parametrize("shell", [in_bash, in_fish], ids=["bash", "fish"])
@pytest.mark.slow
def test_words_are_completed(shell, line, word, folder):
    if shutil.which(shell.__name__[3:]) is None:
        pytest.skip(f"no {shell.__name__[3:]} here")
    found, err = shell(folder, line)
    assert word in found and not err, (found, err)
    assert all(each.startswith(line.split()[-1]) for each in found)


@pytest.mark.parametrize(("line", "word"), [LINES[1], LINES[4], LINES[8]])
@pytest.mark.slow
def test_words_are_completed_in_zsh(line, word, folder):
    if shutil.which("zsh") is None:
        pytest.skip("no zsh here")
    found, _ = in_zsh(folder, line)
    assert found[0].endswith(word), found


@pytest.mark.parametrize("shell", SCRIPTS)
def test_scripts_are_read_without_error(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    done = subprocess.run([shell, "-n"], input=SCRIPTS[shell], capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr
    assert all(name in SCRIPTS[shell] for name in ("dl-run ", "dl-runs", "dl-data"))
