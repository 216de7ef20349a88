"""Every command in a message works: it is taken out of the message and run, or at least composed."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from finished_runs import trained
from omegaconf import OmegaConf
from runs import SMALL, write_mnist
from toys import composed, options

from dlrun import cli
from dlrun.config import consent
from dlrun.config.build import build
from dlrun.config.check import check
from dlrun.config.compose import compose
from dlrun.config.extras import install
from dlrun.config.pairing import CONFIGS
from dlrun.config.usage import USAGE
from dlrun.errors import CheckpointError
from dlrun.overrides import quoted
from dlrun.spec import Image
from dlrun.train import weights

OTHER = "data.batch_size=99"
PLACEHOLDERS = {"<more>": "3", "...": ""}


@pytest.fixture
def dl_run(monkeypatch, capsys, tmp_path, undrawn):
    """Run the command in this process; returns (exit code, stdout and stderr together)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dl-run", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as leave:
            code = leave.code
        return code, "".join(capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return trained(
        tmp_path_factory.mktemp("digits") / "a run", ["data=digits", "model.hidden=[4]", "data.batch_size=99"]
    )


def advised(text: str) -> list[list[str]]:
    """The arguments of each command in a message, placeholders filled in."""
    found = []
    for command in re.findall(r"dl-run ((?:-m )?\S*=.*)", text):
        for placeholder, value in PLACEHOLDERS.items():
            command = command.replace(placeholder, value)
        found.append(shlex.split(command))
    return found


@pytest.mark.thorough(but=["schedule"])
@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ("optimizer.lr=1e-4", {"optimizer.lr": 1e-4, "model.hidden": [4], "init": "RUN"}),
        ("schedule=cosine", {"schedule._target_": "dlrun.optim.schedules.cosine", "model.hidden": [4], "init": "RUN"}),
        ("model=linear", {"model._target_": "dlrun.models.linear.linear", "init": None}),
        ("model.hidden=[5]", {"model.hidden": [5], "init": None}),
    ],
    ids=["lr", "schedule", "model", "hidden"],
)
def test_a_change_that_a_resumed_run_refuses_comes_with_a_command_that_works(dl_run, digits, tmp_path, change, keys):
    """The new run is like the old one in all its other overrides; it starts from its weights if they fit."""
    code, text = dl_run(f"resume={digits}", change)
    assert code == 2
    (command,) = advised(text)
    code, output = dl_run(*command, "run_dir=new")
    assert code == 0, output
    config = OmegaConf.load(tmp_path / "new" / ".hydra" / "config.yaml")
    expected = keys | {"init": keys["init"] and str(digits), "data.batch_size": 99, "trainer.epochs": 1}
    assert {key: OmegaConf.select(config, key) for key in expected} == expected


def test_the_advised_command_finds_data_by_its_relative_path(dl_run, tmp_path, monkeypatch):
    """The command works from any folder: ./it's mail.csv is relative to the folder that the run was started in."""
    rows = [f"good nice {i},a\nbad poor {i},b\n" for i in range(20)]
    (tmp_path / "it's mail.csv").write_text("text,label\n" + "".join(rows))
    given = ["data=text_folder", "model=bag_of_words", 'data.root="./it\'s mail.csv"', "trainer.epochs=1"]
    assert dl_run(*given, "run_dir=run")[0] == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, text = dl_run("resume=../run", "optimizer.lr=1e-4")
    assert code == 2
    (command,) = advised(text)
    code, output = dl_run(*command, "run_dir=new")
    assert code == 0, output


def test_a_finished_run_comes_with_a_command_that_continues_it(dl_run, digits, tmp_path):
    folder = shutil.copytree(digits, tmp_path / "it's a run")
    code, text = dl_run(f"resume={quoted(folder)}")
    assert code == 2
    (command,) = advised(text)
    assert dl_run(*command)[0] == 0


def test_moved_data_comes_with_a_command_that_finds_it(dl_run, tmp_path):
    write_mnist(tmp_path / "data")
    own = [*SMALL, f"data_dir={tmp_path}/data", "trainer.epochs=1"]
    assert dl_run(*own, "run_dir=run")[0] == 0
    (tmp_path / "data").rename(tmp_path / "moved")
    code, text = dl_run("resume=run", "trainer.epochs=2")
    assert code == 2 and "data.root=" not in text
    (command,) = advised(text)
    assert command == ["resume=run", "data_dir=<folder>"]
    code, output = dl_run("resume=run", "trainer.epochs=2", f"data_dir={tmp_path}/moved")
    assert code == 0, output


@pytest.mark.thorough
def test_weights_of_another_form_come_with_the_key_to_set():
    spec, node = Image((1, 32, 32), 10), composed("model=resnet18", "model.width=2")["model"]
    config = {"model": node, "init": "tv.pth"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "read_weights", lambda *_: build(node | {"form": "imagenet"})(spec).state_dict())
        with pytest.raises(CheckpointError, match="another model's.*(?s:.*)\n  they fit with model.form=imagenet$"):
            weights.start_from(build(node)(spec), spec, config)
        assert "tensors loaded" in weights.start_from(build(node | {"form": "imagenet"})(spec), spec, config)


@pytest.mark.slow
@pytest.mark.parametrize("given", [["seed=0,1"], ["sweep.jobs=2"]])
def test_a_sweep_without_its_flag_comes_with_a_command_that_works(dl_run, given):
    code, text = dl_run(*given)
    commands = advised(text.replace("), or a list", "\n"))
    assert code == 2 and commands[0][0] == "-m"
    assert subprocess.run([sys.executable, "-m", "dlrun", *commands[0], "trainer.epochs=1"]).returncode == 0


def test_missing_extras_come_with_a_command_for_pip():
    for extra in ("optuna", "export", "submitit", "video"):
        python, *flags, package = shlex.split(install(extra))[:5]
        assert (
            python == sys.executable
            and flags == ["-m", "pip", "install"]
            and re.match(r"[a-z-]+(\[.*\])?[<>]", package)
        )


EXAMPLES = [line.strip() for line in USAGE.splitlines() if line.startswith("  dl-run") and "[" not in line[:16]]


@pytest.mark.slow
@pytest.mark.parametrize("line", EXAMPLES)
def test_the_examples_of_the_help_work(dl_run, line):
    command = shlex.split(re.split(r"\s{2,}", line)[0])[1:]
    if any("=last" in word for word in command):
        pytest.skip("needs what was started before")
    if "-m" in command or "seeds=32" in command:  # Hydra shows no sweep: its first job is composed
        command = [word.partition(",")[0] for word in command if word not in ("-m", "seeds=32") and "(" not in word]
    is_run = command[:1] not in [[name] for name in cli.SUBCOMMANDS] and "--cfg" not in command
    if command == ["trust"]:
        Path("dl-run.yaml").write_text("data_dir: data\n")
    code, output = dl_run(*command, *(["--cfg", "job"] if is_run else []))
    assert code == 0, output


def header_commands(path: Path) -> list[str]:
    """The commands in a config's comments; one may continue in the next line."""
    return re.findall(
        r"^# +(?:DL_RUN_ALLOW=\S+ )?dl-run (.*?)(?:  .*)?$", re.sub(r" \\\n# +", " ", path.read_text()), re.M
    )


HEADERS = {
    f"{group}/{option}": header_commands(CONFIGS / group / f"{option}.yaml")
    for group in ("data", "model", "experiment")
    for option in options(group)
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HEADERS)
def test_the_commands_in_the_headers_of_configs_work(name, tmp_path, monkeypatch):
    assert HEADERS[name]
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "data.py").write_text("def loaders():\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(consent, "allowed", {"mynets"})
    for command in HEADERS[name]:
        words = [word for word in shlex.split(command) if word != "-m"]
        if not any("," in word and "[" not in word for word in words):
            check(OmegaConf.to_container(compose(words)[0], resolve=True))
