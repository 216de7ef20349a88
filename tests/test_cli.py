"""The command: help, flags, exit codes and streams. A refused run leaves nothing behind."""

import subprocess
import sys
from pathlib import Path

import pytest

from dlrun import cli


def test_help_lists_the_groups_and_examples(dl_run):
    code, out, err = dl_run("--help")
    assert (code, err) == (0, "")
    for text in (
        "model       a2c, ",
        "lenet,",
        "data        anime_faces, arrays, auto_mpg",
        "dl-run resume=last",
        "--cfg job",
        "-m model=",
    ):
        assert text in out
    assert "{groups}" not in out and all(len(line) <= 120 for line in out.splitlines())


@pytest.mark.thorough(but=["80"])
@pytest.mark.parametrize("width", [80, 60, 30])
def test_lists_are_as_wide_as_the_terminal(dl_run, monkeypatch, width):
    """In help, keys, options and pairings no line is longer, except for a single word; no word is broken."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = dl_run("--help")[1]
    groups = out[out.index("  data  ") : out.index("keys (")]
    texts = [out] if width == 80 else [groups]
    for command in ("modle=mlp", "trainer.epoch=2", "model=mlpp", "optimizer=sgd +optimizer.typo=1"):
        texts.append(dl_run(*command.split())[2].partition("\n")[2])
    texts.append(dl_run("model=resnet18", "data=moons")[2].partition("classes=2)\n")[2])
    for text in texts:
        assert text and all(len(line) <= width or len(line.split()) < 3 for line in text.splitlines()), text
    for word in ("adversarial_autoencoder,", "q_learning,", "checkpoint_every_minutes,", "weight_decay", "pokemon"):
        assert any(word in text.split() for text in texts)


def test_help_lists_the_users_options(dl_run, tmp_path):
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "quantum.yaml").touch()
    assert "quantum" in dl_run("--config-dir", "mine", "-h")[1]


def test_version_is_that_of_dl_run(dl_run):
    code, out, _ = dl_run("--version")
    assert code == 0 and out.startswith("dl-run ") and "ydra" not in out


def test_a_run_ends_with_0_and_shows_its_folder(dl_run, tmp_path):
    code, out, err = dl_run("trainer.epochs=1", "output_dir=my runs")
    assert code == 0, err
    (folder,) = (tmp_path / "my runs").glob("*/*")
    assert {".hydra", "metrics.jsonl", "summary.json", "checkpoints", "run.log"} <= {p.name for p in folder.iterdir()}
    assert folder.name in out


def test_a_process_exits_with_2_and_prints_to_stderr(tmp_path):
    """Once as a real process: exit code and streams."""
    command = [sys.executable, "-m", "dlrun", "trainer.epoch=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dl-run: trainer.epoch=3: trainer has no 'epoch'; did you mean 'trainer.epochs'?\n")
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -m dlrun --help | true"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""


def test_bytes_that_are_not_text_are_refused(refused):
    assert refused("run_dir='caf\udce9'").startswith("run_dir='caf\\xe9': these bytes are not valid text")


@pytest.mark.parametrize(
    "arguments, message", [(["resume=run"], "the run is unchanged and can be resumed again"), ([], "nothing")]
)
def test_an_early_interrupt_reports_what_can_be_resumed(arguments, message, dl_run, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("dlrun.train." + ("resume.find_run" if arguments else "start.check"), stopped)
    code, _, err = dl_run(*arguments)
    assert code == 130 and message in err


def test_the_config_folder_is_that_of_the_checkout():
    assert (cli.CONFIGS / "config.yaml").is_file() and Path(cli.CONFIGS).is_absolute()
