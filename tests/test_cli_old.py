"""What the command says to the user: exit codes and the text of errors. A refused run leaves nothing behind."""

import argparse
import gc
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import zip_longest
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from filelock import FileLock
from omegaconf import OmegaConf
from runs import same, state

from dlrun import cli
from dlrun.config import signatures
from dlrun.config.flags import args_parser
from dlrun.output.checkpoint import load, save
from dlrun.overrides import pasteable, quoted


@pytest.fixture
def dl_run(monkeypatch, capsys, tmp_path):
    """Run the command in this process and in an empty folder: gives (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it: restored after the test
    monkeypatch.setattr(signatures, "ALLOWED", frozenset())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dl-run", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as error:
            code = error.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def refused(dl_run, tmp_path):
    """Run the command, which must refuse: gives the text of the error."""

    def run(*arguments, left=()):
        code, _, err = dl_run(*arguments)
        assert code == 2, err
        assert err.startswith("dl-run: ") and "Traceback" not in err and "HYDRA" not in err
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(left)
        return err.removeprefix("dl-run: ")

    return run


def test_a_group_that_is_to_be_chosen(dl_run, tmp_path):
    """Hydra leaves it out where it asks for the mode."""
    text = (cli.CONFIGS / "config.yaml").read_text()
    assert "schedule: constant" in text
    (tmp_path / "mine.yaml").write_text(text.replace("schedule: constant", "schedule: ???"))
    mine = ["--config-dir", str(tmp_path), "--config-name=mine", "mode=summary"]
    code, _, err = dl_run(*mine)
    assert code == 2 and "You must specify 'schedule', e.g, schedule=<OPTION>\n" in err and "cosine" in err
    assert dl_run(*mine, "schedule=cosine")[0] == 0


@pytest.mark.parametrize("given", [["mode=summary"], ["mode=summary", "experiment=moons_l2", "hydra.mode=RUN"]])
def test_a_config_is_composed_once(given, dl_run, monkeypatch):
    """Hydra alone would do so twice, to see whether an experiment is a sweep: what it asks for is what it is given."""
    composed, compose = [], cli.Loader._load_configuration_impl

    def counting(self, **keys):
        composed.append(compose(self, **keys))
        return composed[-1]

    monkeypatch.setattr(cli.Loader, "_load_configuration_impl", counting)
    code, out, err = dl_run(*given)
    assert code == 0 and "multiply-adds" in out, err
    (config,) = composed
    assert config.hydra.mode.name == "RUN" and list(config.hydra.overrides.hydra) == ["hydra.mode=RUN"]
    assert list(config.hydra.overrides.task) == [each for each in given if "hydra" not in each]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a finished run of one epoch."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    argv, here = sys.argv, os.getcwd()
    try:
        os.chdir(folder.parent)
        sys.argv = ["dl-run", "trainer.epochs=1", f"run_dir={folder}"]
        cli.main()
    finally:
        sys.argv = argv
        os.chdir(here)
    return folder


# --- the command itself -----------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("width", [80, 60, 30])
def test_lists_are_as_wide_as_the_terminal(dl_run, monkeypatch, width):
    """Of help, keys, options and pairings: no line is longer, unless it is one word, and no word is broken."""
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


def test_version_is_the_runners(dl_run):
    code, out, _ = dl_run("--version")
    assert code == 0 and out.startswith("dl-run ") and "ydra" not in out


@pytest.mark.parametrize(
    "arguments",
    [
        ("trainer.epochs=7", "--cfg", "job", "seed=3", "-p", "trainer"),
        ("--cfg", "job", "-p", "trainer", "trainer.epochs=7"),
    ],
)
def test_flags_may_stand_anywhere(dl_run, arguments):
    code, out, err = dl_run(*arguments)
    assert (code, err) == (0, "")
    assert "epochs: 7" in out and out.startswith("# @package trainer")


def test_a_run_ends_with_0_and_shows_its_folder(dl_run, tmp_path):
    code, out, err = dl_run("trainer.epochs=1", "output_dir=my runs")
    assert code == 0, err
    (folder,) = (tmp_path / "my runs").glob("*/*")
    assert {".hydra", "metrics.jsonl", "summary.json", "checkpoints", "run.log"} <= {p.name for p in folder.iterdir()}
    assert folder.name in out


def test_as_a_process_too(tmp_path):
    """Once for real: exit code and streams."""
    command = [sys.executable, "-m", "dlrun", "trainer.epoch=3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dl-run: trainer.epoch=3: trainer has no 'epoch'; did you mean 'trainer.epochs'?\n")
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -m dlrun --help | true"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stderr == ""


# --- flags, groups, options, keys -------------------------------------------------------------------------------------

WRONG = {
    "-x": "unrecognized arguments: -x\n  expected overrides, such as trainer.epochs=3, and the flags that dl-run",
    "--cfg nothing": "argument --cfg/-c: invalid choice: 'nothing'",
    "--resolve": "--resolve needs --cfg\n  expected dl-run --cfg job --resolve",
    "--experimental-rerun config.pickle": "--experimental-rerun loads a pickle, which can run any code",
    "--config-name other": "there is no config 'other'\n  expected a file other.yaml",
    "--config-dir nowhere": "nowhere' not found",
    "foo": "cannot read 'foo'\n  expected key=value, such as trainer.epochs=5",
    "=3": "cannot read '=3'\n  expected key=value",
    "model.hidden=[1": "cannot read the value in 'model.hidden=[1'\n  expected a number, a word, a list",
    'init=a"b': "cannot read the value in 'init=a\"b'",
    "data=": "data=: no such option\n  expected one of: anime_faces, arrays, auto_mpg,",
    "task.loss=crossentropy": "task.loss: there is no 'crossentropy'; did you mean 'cross_entropy'?",
    "model=resnet": "model=resnet: no such option; did you mean 'resnet",
    "data=mnits": "data=mnits: no such option; did you mean 'mnist'?\n  expected one of: anime_faces,",
    "optimizer=adamax": "optimizer=adamax: no such option; did you mean 'adam",
    "experiment=nothing_at_all": "experiment=nothing_at_all: no such option\n  expected one of: acrobot_ppo",
    "model=transformer": "model=transformer: no such option\n  expected one of: a2c,",
    "~data=moons": "~data=moons: a run needs one option of 'data'\n  expected one of: anime_faces,",
    "~experiment=moons": "~experiment=moons: experiment has another value\n  expected ~experiment, or its value",
    "trainer.monitor=''": "trainer.monitor= is not measured here\n  expected one of: val/loss, val/acc",
    "trainer.processes=100000000000": "trainer.processes=100000000000: expected an integer in [1, 100]",
    "trainer.epochs=9223372036854775808": "=9223372036854775808: expected an integer of at most 1,000,000,000",
    "model.hidden=[64,2000000]": "model.hidden=[64, 2000000]: expected a list, each an integer of at most 1,000,000",
    "optimizer.lr=100000000000000000000": "expected a number > 0; write a number this large with a point or an",
    "data.spec.classes=-1": "data.spec.classes=-1: expected an integer in [2, 100000] or null",
    "data.spec.shape=[0,8,8]": "expected a list of 3: an integer >= 1, an integer >= 1, an integer >= 1",
    "data.source=null": "data.source=None: expected a mapping with a _target_",
    "modl=mlp": "modl=mlp: there is no key 'modl'; did you mean 'model'?\n  expected one of: data, data_dir, init,",
    "trainer.epoch=3": "trainer.epoch=3: trainer has no 'epoch'; did you mean 'trainer.epochs'?\n  trainer has:",
    "trainer.lr=1": "trainer.lr=1: trainer has no 'lr'; did you mean 'optimizer.lr'?",
    "trainer.lrr=1": "trainer.lrr=1: trainer has no 'lrr'; did you mean 'optimizer.lr'?",
    "trianer.epochs=3": "trianer.epochs=3: there is no key 'trianer.epochs'; did you mean 'trainer.epochs'?",
    "trainer.epochs.foo=3": "trainer.epochs.foo=3: there is no key 'trainer.epochs.foo'",
    "sed=1": "sed=1: there is no key 'sed'; did you mean 'seed'?",
    "epochs=3": "epochs=3: there is no key 'epochs'; did you mean 'trainer.epochs'?",
    "data.lr_multipliers=4": "data.lr_multipliers=4: data has no 'lr_multipliers'; did you mean 'task.lr_multipliers'?",
    "lr=0.1": "lr=0.1: there is no key 'lr'; did you mean 'optimizer.lr'?",
    "+foo=1": "there is no key 'foo'\n    expected one of: data, data_dir, init,",
    "+model.foo=1": "model.foo: mlp has no 'foo'\n    mlp has: activation, dropout, hidden, ",
    "++trainer.foo=1": "trainer.foo: Trainer has no 'foo'\n    Trainer has: checkpoint_every_minutes,",
    "init=nope": "init=nope: cannot read the checkpoint nope: No such file or directory\n  expected a run's folder",
    "++foo=1": "there is no key 'foo'",
    "+trainer.epoch=3": "trainer.epoch: Trainer has no 'epoch'; did you mean 'epochs'?",
    "++optimizer.beta=0.9": "optimizer.beta: adam has no 'beta'; did you mean 'betas'?",
    "+trainer.epochs=5": "+trainer.epochs=5: trainer.epochs is already set\n  expected trainer.epochs=5,",
    "+data=digits": "+data=digits: data is already set\n  expected data=digits, without the +",
    "+data.spec._partial_=true": "data.spec._partial_: Image has no '_partial_'",
    "~model": "~model: a run needs one option of 'model'\n  expected one of: a2c,",
    "~trainer": "the section 'trainer' is missing: choose an option with trainer=...",
    "~trainer.epochs": "trainer.epochs is missing: Trainer needs it",
    "~foo": "~foo: there is no key 'foo'",
    "~trainer.foo": "~trainer.foo: there is no key 'trainer.foo'\n  dl-run --cfg job shows all keys",
    "trainer=null": "trainer=null: not an option of trainer\n  expected one of: default",
    "schedule=[cosine,step]": "schedule=[...]: several options at once; expected one",
    "data@model=digits": "data@model=digits: expected data=digits, without a package",
    "model=mlp,lenet": "model=mlp,lenet: several values for one run\n  expected one value, a sweep (dl-run -m model",
    "hydra.foo=1": "hydra.foo=1: hydra has no 'foo'",
    "hydra.mode=x": "hydra.mode=x: Invalid value 'x'",
    "trainer.epochs=${x}": "trainer.epochs: Interpolation key 'x' not found",
    "trainer.epochs=${trainer.epochs}": "an interpolation refers to itself",
    "data_dir=${oc.env:NOT_THERE}": "data_dir: NOT_THERE is not set in the environment\n  expected NOT_THERE=...",
    "-m trainer.patience=sort(null,3)": "sort takes no null\n  expected the values in the order of the jobs: null,3",
    "-m trainer.patience=range(null,3)": "range takes no null\n  expected the values in the order of the jobs: null,3",
    "-m seed=sort(a,3)": "sort does not take these values\n  expected sort as in sort(3,1)",
    "-m seed=chioce(1,2)": "there is no function 'chioce'; did you mean 'choice'?\n  expected one of: choice, range,",
    "seed=sort(3,1)": "several values for one run\n  expected one value, a sweep (dl-run -m 'seed=sort(3,1)'),",
    "hydra.sweeper.params={seed:1}": "expected the axes of the sweep themselves: dl-run -m seed=0,1",
    "-m hydra.sweeper.params.seed=1,2": "expected the axes of the sweep themselves: dl-run -m seed=0,1",
    "seed=" + "1" * 5000: "...: a number of more than 4,300 digits\n  expected a smaller one",
    "trainer.epochs=${oc.env:NO}": "trainer.epochs: NO is not set in the environment\n  expected NO=... dl-run ..., or",
    "seed=${oc.decode:${oc.env:N}}": "around a value with one ${...} in another: 'seed=\"${oc.decode:${oc.env:N}}\"'",
}


@pytest.mark.parametrize("line", WRONG)
def test_what_is_not_known_is_refused_by_name(refused, line):
    arguments = line.split(" ") if line.startswith("-") else [line]
    assert WRONG[line] in refused(*arguments)


def test_a_long_list_is_wrapped(refused):
    assert all(len(line) <= 120 for line in refused("trainer.nothing=1").splitlines())


# --- values -----------------------------------------------------------------------------------------------------------

VALUES = {
    "seed=-1": "an integer >= 0",
    "seed=abc": "an integer >= 0",
    "seed=null": "an integer >= 0",
    "seed=1.5": "an integer >= 0",
    "seed=true": "an integer >= 0",
    "output_dir=null": "a path (write a number as ./5)",
    "output_dir=5": "a path (write a number as ./5)",
    "run_dir=[a]": "a path or null",
    "trainer.epochs=-1": "an integer >= 1",
    "trainer.epochs=0": "an integer >= 1",
    "trainer.epochs=2.5": "an integer >= 1",
    "trainer.epochs=many": "an integer >= 1",
    "trainer.epochs=": "an integer >= 1",
    "trainer.epochs=true": "an integer >= 1",
    "trainer.device=gpu": "one of auto, cpu, cuda, mps",
    "trainer.precision=fp8": "one of auto, fp32, bf16, fp16",
    "trainer.ema=1": "a number in [0, 1)",
    "trainer.compile=maybe": "true or false",
    "trainer.max_time=-1": "a number > 0 or null",
    "data.batch_size=0": "an integer >= 1",
    "data.batch_size=99999999999999999999": "an integer of at most 1,000,000,000",
    "data.val_fraction=2": "a number in",
    "data.augment.crop=-1": "an integer >= 0",
    "data.mean=[a]": "a list, each a number",
    "data.spec.shape=[1,8]": "a list of 3: an integer >= 1, an integer >= 1, an integer >= 1",
    "model.hidden=[0]": "a list, each an integer >= 1",
    "model.hidden=64": "a list, each an integer >= 1",
    "model.dropout=1.5": "a number in [0, 1)",
    "model.activation=swish": "one of relu,",
    "optimizer.lr=abc": "a number > 0",
    "optimizer.lr=-0.1": "a number > 0",
    "optimizer.lr=0": "a number > 0",
    "optimizer.lr=inf": "a finite number > 0",
    "optimizer.lr=nan": "a finite number > 0",
    "trainer.max_time=-inf": "a finite number > 0 or null",
    "optimizer.betas=[0.9]": "a list of 2",
    "task.label_smoothing=1.5": "a number in",
    "schedule.warmup_fraction=2": "a number in",
}


@pytest.mark.parametrize(
    "given",
    [["data=image_folder", "data.root={}"], ["data_dir=/{}"], ["init=../{}.pth"], ["--config-name", "{}"]],
)
def test_names_that_are_too_long_for_a_file(refused, given):
    text = refused(*(argument.format("x" * 300) for argument in given))
    is_too_long = "xxx..." in text and ("255 bytes between two slashes" in text or "expected a path" in text)
    assert is_too_long or "there is no config 'xxx" in text, text  # Python 3.14 asks for such a file without an error


def rounds(lines):
    """The first line of each key, then the second of each, and so on: as many as one command can have at once."""
    by_key = {}
    for line in lines:
        by_key.setdefault(line.partition("=")[0], []).append(line)
    return [list(filter(None, together)) for together in zip_longest(*by_key.values())]


@pytest.mark.parametrize("lines", rounds(VALUES))
def test_values_of_the_wrong_type_or_range(refused, lines):
    text = refused("schedule=cosine", *lines)
    assert text.startswith(f"{len(lines)} errors in the config:\n") or len(lines) == 1
    for line in lines:
        key, _, value = line.partition("=")
        shown = {"": "''", "[a]": "['a']", "[1,8]": "[1, 8]"}.get(value, value)
        assert re.search(f"^(  )?{re.escape(key)}={re.escape(shown)}: expected {re.escape(VALUES[line])}", text, re.M)


def test_all_errors_are_reported_at_once(refused):
    text = refused("trainer.epochs=-1", "data.batch_size=0", "model.dropout=1.5", "+optimizer.typo=1", "seed=-1")
    assert text.startswith("5 errors in the config:\n  ")
    for part in ("seed=-1", "data.batch_size=0", "model.dropout=1.5", "'typo'", "trainer.epochs=-1"):
        assert part in text


# --- code that a config must not run ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "target"),
    [
        ("model", "os.system"),
        ("model", "builtins.eval"),
        ("model", "dlrun.output.checkpoint.save"),
        ("model", "dlrun.models.mlp.__builtins__.eval"),
        ("model", "dlrun.models.mlp._hidden"),
        ("model", "dlrun.models..mlp"),
        ("model", ""),
        ("optimizer", "torch.load"),
        ("optimizer", "torch.optim.lr_scheduler.os.system"),
        ("data", "dlrun.data.sources.unpack.unpack"),
        ("data", "subprocess.run"),
        ("data.source", "dlrun.data.sources.unpack.unpack"),
        ("data.source", "dlrun.data.readers.images.fetch"),
        ("data.source", "dlrun.data.readers.images.shutil.rmtree"),
        ("data.spec", "dlrun.spec.UserError"),
        ("task", "dlrun.train.trainer.Trainer"),
        ("schedule", "dlrun.cli.main"),
        ("trainer", "dlrun.output.run_folder.Run"),
    ],
)
def test_a_target_outside_the_allow_list(refused, section, target):
    text = refused(f"{section}._target_={target}")
    assert f"{section}._target_=" in text and (
        "expected a " in text or "there is no module" in text or "has no" in text
    )


def test_a_target_that_is_there_no_more(refused):
    text = refused("model._target_=dlrun.models.mlp.mpl")
    assert "dlrun.models.mlp has no 'mpl'; did you mean 'mlp'?" in text


@pytest.mark.parametrize("flags", [(), ("-m",)])
def test_hydras_own_section_runs_no_code_either(refused, tmp_path, flags):
    call = "{_target_: pathlib.Path.touch, _args_: [{_target_: pathlib.Path, _args_: [hacked]}]}"
    assert "+hydra.callbacks.x={_target_: " in refused(*flags, f"+hydra.callbacks.x={call}")
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    log = "version: 1, handlers: {h: {class: logging.FileHandler, filename: hacked}}"
    config = f"# @package _global_\nhydra:\n  job_logging: {{{log}}}\n"
    (tmp_path / "mine" / "experiment" / "bad.yaml").write_text(config)
    text = refused(*flags, "--config-dir=mine", "experiment=bad", left=["mine"])
    assert "hydra.job_logging.handlers={'h': " in text and "expected hydra/job_logging=none" in text


def test_a_package_of_the_users_own_needs_the_environment(dl_run, monkeypatch, tmp_path):
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "nets.py").write_text(
        "from os import system\n"
        "from shutil import rmtree\n"
        "from .inner import other\n"
        "from dlrun.spec import Image\n"
        "def net(spec: Image, *, width: int = 3) -> object: raise RuntimeError('built')\n"
    )
    (tmp_path / "mynets" / "inner.py").write_text("def other(spec, *, width: 'int'): ...\n")
    (tmp_path / "mynets" / "broken.py").write_text("def (:\n")
    (tmp_path / "mine" / "model").mkdir(parents=True)
    (tmp_path / "mine" / "model" / "my.yaml").write_text(
        "# @package _global_\nmodel: {_target_: mynets.nets.net, width: 4}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = ("--config-dir=mine", "model=my")
    assert "mynets.nets.net' is not allowed here" in dl_run(*mine)[2]
    monkeypatch.setattr(signatures, "ALLOWED", {"mynets"})
    assert "model.width=x: expected an integer" in dl_run(*mine, "model.width=x")[2]
    assert "model=my cannot learn from data=moons" in dl_run(*mine, "data=moons")[2]
    # Python 3.10 can read os.py, later ones have it built in
    assert "model._target_='os.system': " in dl_run(*mine, "model._target_=mynets.nets.system")[2]
    assert "is shutil.rmtree, which is not allowed" in dl_run(*mine, "model._target_=mynets.nets.rmtree")[2]
    assert "broken.py cannot be read as Python" in dl_run(*mine, "model._target_=mynets.broken.net")[2]
    code, _, err = dl_run(*mine, "model._target_=mynets.nets.other", "data=nothing")
    assert code == 2 and "data=nothing" in err
    with pytest.raises(RuntimeError, match="built"):  # a bug in a net keeps its traceback
        dl_run(*mine)


def test_the_readmes_model_works_in_a_package_of_ones_own(dl_run, tmp_path, monkeypatch):
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    code, option = (dedent(re.search(rf"  ```{kind}\n(.*?)  ```\n", text, re.DOTALL)[1]) for kind in ("python", "yaml"))
    assert "`dl-run new mynets`" in text
    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "nets.py").write_text(code)
    (tmp_path / "my" / "configs" / "model").mkdir(parents=True)
    (tmp_path / "my" / "configs" / "model" / "wide.yaml").write_text(option.replace("dlrun.models.wide", "mynets.nets"))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mynets", "mynets.nets"):  # of another test
        sys.modules.pop(name, None)
    monkeypatch.setattr(signatures, "ALLOWED", {"mynets"})
    found = dl_run("model=wide", "--config-dir", "my/configs", "mode=summary")
    assert found[0] == 0 and found[1].startswith("model=wide data=digits: Image(shape=1x8x8, classes=10)")


# --- parts that do not fit --------------------------------------------------------------------------------------------


def test_what_the_environment_gives_is_read_as_if_it_had_been_written(dl_run, tmp_path, monkeypatch):
    monkeypatch.setenv("N", "1")
    monkeypatch.setenv("WIDTHS", "[4]")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "2")
    given = ["trainer.epochs=${oc.env:N}", "model.hidden=${oc.env:WIDTHS}", "data.folds=3"]
    code, _, err = dl_run(*given, "data.fold=${oc.env:SLURM_ARRAY_TASK_ID}", "seed=${data.fold}", "run_dir=run")
    assert code == 0, err
    kept = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml")
    assert (kept.trainer.epochs, kept.model.hidden, kept.data.fold, kept.seed) == (1, [4], 2, 2)


def test_what_the_environment_gives_is_named(refused, monkeypatch):
    monkeypatch.setenv("N", "two")
    assert "trainer.epochs=two: expected an integer" in refused("trainer.epochs=${oc.env:N}")
    monkeypatch.setenv("N", "2.5")
    assert "data.fold=2.5: expected an integer" in refused("data.fold=${oc.env:N}")


def test_a_task_that_cannot_learn_from_the_data(refused):
    text = refused("task=vae", "data=moons", "data_dir=/nowhere")
    assert text.startswith("task=vae cannot learn from data=moons\n  vae takes         Image\n")
    assert "tasks for moons:  gan, least_squares, one_hot, supervised, wgan, wgan_gp" in text
    assert "task=ppo cannot learn from data=digits" in refused("task=ppo")


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (["model=vae", "task=supervised"], ("a plain network", "VAE", "mlp", "vae")),
        (["task=gan"], ("Pair", "a plain network", "dcgan, gan, wgan, wgan_gp", "segment, supervised")),
        (["model=conv_vae", "task=autoencoder"], ("AutoEncoder", "VAE", "conv_autoencoder", "vae")),
        (["model=ppo", "task=dqn", "data=cartpole"], ("QNetwork", "Policy", "double_dqn, dqn", "ppo, reinforce")),
    ],
)
def test_a_task_that_cannot_train_the_model(refused, choice, words):
    lines = refused(*choice, "data_dir=/nowhere").splitlines()
    assert lines[0].startswith("task=") and " cannot train model=" in lines[0]
    assert all(word in line for word, line in zip(words, lines[1:], strict=True))


def test_a_model_that_cannot_learn_from_the_data(refused):
    text = refused("model=resnet18", "data=moons", "data_dir=/nowhere")
    assert text.startswith("model=resnet18 cannot learn from data=moons\n  resnet18 takes       Image")
    assert "moons gives          Table(features=2, classes=2)\n" in text
    assert (
        "models for moons:    dcgan, gan, handwritten, linear, matrix_powers, mlp" in text
        and "cifar10, cifar100, digits," in text
    )


def test_a_net_too_deep_for_the_image(refused):
    assert "8x8" in refused("model=lenet", "data=digits")


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
def test_cuda_where_there_is_none(refused):
    text = refused("trainer.device=cuda")
    assert text.startswith("trainer.device=cuda: ") and "expected one of: cpu" in text and "trainer.device=auto" in text


def test_data_that_is_not_there_and_not_to_be_downloaded(refused, tmp_path):
    text = refused("data=mnist", "data_dir=empty", "data.source.download=false")
    assert "train-images-idx3-ubyte.gz" in text and "MNIST/raw" in text


# --- folders ----------------------------------------------------------------------------------------------------------


def test_a_file_where_the_output_folder_should_be(refused, tmp_path):
    (tmp_path / "taken").write_text("")
    for base in ("taken", "taken/deeper"):
        text = refused(f"output_dir={base}", left=["taken"])
        assert text.startswith(f"output_dir={base}: ") and "expected a writable folder" in text
    assert "run_dir=taken: " in refused("run_dir=taken", left=["taken"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_output_folder_that_is_read_only(refused, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    text = refused("output_dir=closed", left=["closed"])
    assert "Permission denied" in text and "choose another with output_dir=..." in text


def test_a_run_dir_that_holds_a_run(refused, finished):
    text = refused(f"run_dir={finished}")
    assert text.startswith(f"run_dir={finished} already holds a run: resume it with dl-run resume={finished}")


def test_a_run_dir_that_holds_files(refused, dl_run, tmp_path):
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "config.yaml").write_text("mine")
    text = refused("run_dir=papers", left=["papers"])
    assert text.startswith("run_dir=papers already holds files: config.yaml\n  expected an empty or new folder")
    assert [p.name for p in (tmp_path / "papers").iterdir()] == ["config.yaml"]
    (tmp_path / "empty").mkdir()
    assert dl_run("run_dir=empty", "trainer.epochs=1")[0] == 0


def test_a_best_epoch_that_is_not_finite_is_shown(dl_run, tmp_path):
    code, out, err = dl_run("optimizer.lr=1e30", "trainer.on_nan=skip", "trainer.epochs=2", "run_dir=run")
    assert code == 0, err
    assert all("nan" in line for line in out.splitlines() if line.startswith(("val (epoch", "test ")))


# --- resume= ----------------------------------------------------------------------------------------------------------


def test_resume_of_what_is_no_run(refused, tmp_path):
    assert "resume=nowhere: no such folder\n  expected a run's folder" in refused("resume=nowhere")
    assert "resume=: no such folder" in refused("resume=", "trainer.epochs=3")
    assert f"resume={tmp_path}: this folder is not a run's" in refused(f"resume={tmp_path}")
    assert "resume=last: there is no run under " in refused("resume=last")
    assert "resume=5: no such folder" in refused("resume=5")


@pytest.mark.parametrize("change", ["seed=1", "model=lenet", "trainer.ema=0.5", "+data.x=1", "~experiment", "init=a"])
def test_resume_with_another_override(refused, finished, change):
    text = refused(f"resume={finished}", change)
    assert text.startswith(f"{change} cannot change in a resumed run: it continues with its own config\n")
    assert "expected only: trainer.device, data_dir, trainer.epochs" in text
    new = shlex.split(text.splitlines()[-1].partition(": dl-run ")[2])
    kept = change.startswith(("init", "model"))
    assert new[-1] == change and (f"init={finished}" in new) == (not kept)


@pytest.mark.parametrize("changes", [(), ("trainer.device=cpu",), ("trainer.epochs=1",), ("trainer.patience=3",)])
def test_resume_of_a_finished_run(refused, finished, changes):
    text = refused(f"resume={finished}", *changes)
    assert text.startswith(f"resume={finished}: the run in {finished} is finished, with 1 epoch\n")
    assert f"dl-run resume={finished} trainer.epochs=<more>" in text


LIMITS = [("max_steps", 9, 9, 10), ("max_time", 1e-9, 1e-9, 100), ("patience", 1, 1, 9), ("stop_at", 9.0, 8.0, 1e-9)]


@pytest.mark.parametrize("key, high, reached, higher", LIMITS)
def test_resume_needs_the_limit_raised_that_stopped_the_run(key, high, reached, higher, dl_run, refused, tmp_path):
    argument, more = f"trainer.{key}=", "less" if key == "stop_at" else "more"
    keys = ["trainer.epochs=3", "trainer.min_delta=9", "trainer.monitor=val/loss"]
    code, _, err = dl_run("run_dir=run", f"{argument}{high}", *keys)
    assert code == 0, err
    for changes in ([], ["trainer.epochs=9"], [f"{argument}{reached}"], ["trainer.device=cpu", "trainer.min_delta=8"]):
        text = refused("resume=run", *changes, left=["outputs", "run"])
        assert "is finished, with" in text and f"dl-run resume=run {argument}<{more}>" in text
    assert dl_run("resume=run", f"{argument}{higher}", "trainer.epochs=3")[0] == 0


def test_resume_after_the_last_steps_needs_more_epochs(dl_run, refused, finished):
    steps = json.loads((finished / "summary.json").read_text())["steps"]
    assert dl_run("run_dir=run", "trainer.epochs=1", f"trainer.max_steps={steps}")[0] == 0
    text = refused("resume=run", "trainer.max_steps=null", left=["outputs", "run"])
    assert "dl-run resume=run trainer.epochs=<more>" in text


@pytest.mark.parametrize(
    "text", ["[]", "3", '{"status": "finished"}', '{"status": "finished", "epochs": "x", "steps": []}']
)
def test_resume_with_a_summary_that_was_edited(text, dl_run, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "summary.json").write_text(text)
    code, _, err = dl_run("resume=run")
    assert code in (0, 2) and "Traceback" not in err
    assert dl_run("resume=run", "trainer.epochs=2")[0] == 0


def test_a_folder_from_somebody_else_does_not_read_the_environment(refused, finished, tmp_path, monkeypatch):
    """It could hand what stands there to a mirror of its own."""
    monkeypatch.setenv("TOKEN", "secret")
    for call in ("${oc.env:TOKEN}", "${oc.decode:${oc.env:TOKEN}}", "${${seed}:x}", "${oc.env:DL_RUN_DATA_DIR,x}"):
        folder = copy_config(finished, tmp_path / f"run{len(call)}", "output_dir: outputs", f"output_dir: {call}")
        text = refused(f"resume={folder}", left=[folder.name])
        assert f"output_dir={call} in {folder}" in text and "secret" not in text
        shutil.rmtree(folder)


def test_what_the_environment_gave_is_kept(dl_run, tmp_path, monkeypatch):
    monkeypatch.setenv("SIZE", "0.5")
    assert dl_run("output_dir=${oc.env:SIZE}", "trainer.epochs=1", "run_dir=run")[0] == 0
    text = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert "output_dir: '0.5'\n" in text and "\ndata_dir: ${oc.env:DL_RUN_DATA_DIR," in text
    assert dl_run("resume=run", "trainer.epochs=2")[0] == 0


def test_a_resume_reads_the_run_after_it_is_locked(refused, finished, tmp_path, monkeypatch):
    """Of two processes that resume a run, the second sees what the first has left."""
    shutil.copytree(finished, tmp_path / "run")
    acquire = FileLock.acquire

    def late(self, *args, **keys):
        (tmp_path / "run" / "summary.json").write_text('{"status": "finished", "epochs": 9}')
        return acquire(self, *args, **keys)

    monkeypatch.setattr(FileLock, "acquire", late)
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert "is finished, with 9 epochs" in refused("resume=run", "trainer.epochs=2", left=["run"])
    assert (tmp_path / "run" / ".hydra" / "config.yaml").read_text() == config


@pytest.mark.parametrize("what", [["model=wgan_gp", "data=moons"], ["model=ppo", "data=cartpole"]])
def test_compiling_where_it_cannot_help_is_refused(refused, what):
    assert refused(*what, "trainer.compile=true").startswith(
        "trainer.compile=true: torch.compile does not support this task"
    )


@pytest.mark.parametrize("name", ["a b", "a,b", "a=b", "\u00fc", "a(b", 'q"x', "1e3", "$HOME", "l'x", "${seed}", "b\\"])
def test_what_goes_on_can_be_pasted(name, dl_run):
    """Through a shell, and Hydra's grammar."""
    assert dl_run(f"run_dir={quoted(name)}", "trainer.epochs=1")[0] == 0
    pasted = shlex.split(pasteable("resume", name))
    assert dl_run(*pasted, "trainer.epochs=2")[0] == 0
    assert (Path(name) / "checkpoints").is_dir()


def test_bytes_that_are_no_text_are_refused(refused):
    assert refused("run_dir='caf\udce9'").startswith("run_dir='caf\\xe9': these bytes are not valid text")


def test_resume_checks_the_new_limit(refused, finished):
    assert f"resume={finished}: trainer.epochs=-1: expected an integer >= 1" in refused(
        f"resume={finished}", "trainer.epochs=-1"
    )


def copy_config(run, folder, old="", new=""):
    """A run's folder with nothing but its config, changed."""
    (folder / ".hydra").mkdir(parents=True)
    for path in (run / ".hydra").iterdir():
        text = path.read_text()
        (folder / ".hydra" / path.name).write_text(text.replace(old, new) if path.name == "config.yaml" else text)
    return folder


def test_resume_of_a_folder_that_was_tampered_with(refused, finished, tmp_path):
    copy_config(finished, tmp_path / "run", "dlrun.models.mlp.mlp", "os.system")
    text = refused("resume=run", left=["run"])
    assert text.startswith(
        "resume=run: model._target_='os.system' is not allowed here: expected a function in dlrun.models"
    )


@pytest.mark.parametrize("damage", ["[", "- 1", "data: \0", None])
def test_resume_of_a_folder_with_a_damaged_config(refused, finished, tmp_path, damage):
    copy_config(finished, tmp_path / "run")
    config = tmp_path / "run" / ".hydra" / ("hydra.yaml" if damage is None else "config.yaml")
    config.unlink() if damage is None else config.write_text(damage)
    assert refused("resume=run", left=["run"]).startswith("resume=run: cannot read the run's config in run/.hydra: ")


def content(folder):
    """Every file of a folder and what is in it."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def edit(name, old, new):
    return lambda run: (run / name).write_text((run / name).read_text().replace(old, new))


def flip(*names):
    def spoil(run):
        for name in names:
            path = run / "checkpoints" / f"{name}.ckpt"
            path.write_bytes(path.read_bytes()[:-1] + b"!")

    return spoil


def link(run):
    (run / "run.log").rename(run.parent / "elsewhere")
    (run / "run.log").symlink_to(run.parent / "elsewhere")


def pipe(name):
    def make(run):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return make


def taken(run):
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "checkpoints" / "last.ckpt").mkdir()


def another_runs(run):
    for name in ("last", "previous"):
        path = run / "checkpoints" / f"{name}.ckpt"
        if path.exists():
            save(path, {k: v for k, v in load(path).items() if k not in ("format", "version")} | {"run": "another"})


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
CHAIN = "x0: lol\n" + "".join(f"x{i}: '{reference * 9}'\n" for i in range(1, 9) for reference in [f"${{x{i - 1}}}"])
REFUSED = {
    "no metrics": (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl is damaged"),
    "half the metrics": (lambda run: (run / "metrics.jsonl").write_bytes(b'{"step": 1'), "metrics.jsonl is damaged"),
    "a text for a step": (edit("metrics.jsonl", '"step": ', '"step": "x", "y": '), "metrics.jsonl is damaged"),
    "deep metrics": (lambda run: (run / "metrics.jsonl").write_text("[" * 90_000 + "\n"), "metrics.jsonl is damaged"),
    "damaged checkpoints": (flip("last"), "no checkpoint of this run can be read"),
    "another run's checkpoints": (another_runs, "belongs to another run"),
    "a folder for a checkpoint": (taken, "last.ckpt is a folder"),
    "another net": (edit(".hydra/config.yaml", "- 256", "- 255"), "does not fit the config in"),
    "a link": (link, "run.log is a link to"),
    "a pipe for metrics": (pipe("metrics.jsonl"), "metrics.jsonl is a pipe or a device"),
    "a pipe for a checkpoint": (pipe("checkpoints/last.ckpt"), "last.ckpt is a pipe or a device"),
    "a pipe for the choices": (pipe(".hydra/hydra.yaml"), "hydra.yaml is a pipe or a device"),
    "a bomb": (lambda run: (run / ".hydra" / "config.yaml").write_text(BOMB), "*a repeats another value"),
    "a bomb of references": (
        lambda run: (run / ".hydra" / "config.yaml").write_text(CHAIN),
        "more than 100,000 values",
    ),
    "deep lists": (
        lambda run: (run / ".hydra" / "config.yaml").write_text("x: " + "[" * 60 + "]" * 60),
        "lists or mappings nested more than 50 deep",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_resume_that_is_refused_changes_nothing(case, refused, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    spoil, said = REFUSED[case]
    spoil(tmp_path / "run")
    before = content(tmp_path / "run")
    left = ["elsewhere", "run"] if case == "a link" else ["run"]
    assert said in refused("resume=run", "trainer.epochs=2", left=left)
    assert content(tmp_path / "run") == before


def test_a_resume_on_other_data_changes_nothing(refused, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    before = content(tmp_path / "run")
    monkeypatch.setattr("dlrun.train.state.is_same_data", lambda state, data_state: False)
    assert "the data has changed" in refused("resume=run", "trainer.epochs=2", left=["run"])
    assert content(tmp_path / "run") == before


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.fixture(scope="module")
def cut(finished, tmp_path_factory):
    """The folder of a finished run that a limit ended in its first epoch."""
    folder = tmp_path_factory.mktemp("runs") / "cut"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setattr(sys, "argv", ["dl-run", "trainer.epochs=1", "trainer.max_steps=3", f"run_dir={folder}"])
        cli.main()
    return folder


def test_a_run_that_a_limit_cut_keeps_the_weights_that_it_was_tested_with(cut):
    """Its epoch continues in a resumed run, so the best checkpoint, of whole epochs, is not that of the cut one."""
    from dlrun.runs.evaluate import evaluate
    from dlrun.train.finished import FinishedRun
    from dlrun.train.weights import read_weights

    assert {path.name for path in (cut / "checkpoints").iterdir()} == {"last.ckpt", "tested_3.ckpt"}
    lines, is_same = evaluate(cut, "test", [], None, False)
    assert is_same and "reproduced exactly" in lines[-1]
    weights = read_weights(str(cut))  # those that init= starts from
    assert same(weights, FinishedRun(cut).state["state_dict"])
    assert same(weights, load(cut / "checkpoints" / "tested_3.ckpt")["state_dict"])


RESUMED = {  # by the run: what resumes it, and the renames at which that is killed; 99 is after the last
    "finished": (["trainer.epochs=2"], (1, 2, 3, 4, 6, 8, 99)),
    "cut": (["trainer.epochs=1", "trainer.max_steps=5"], (3, 6, 99)),
}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # files that a kill leaves open
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("kind", RESUMED)
def test_the_results_of_a_finished_run_stay_until_there_are_new_ones(kind, dl_run, request, tmp_path, monkeypatch):
    """Killed at each of its renames, a resumed run keeps what it was tested with, and ends as one that was not."""

    def tested(folder):
        checkpoints = folder / "checkpoints"
        assert len(list(checkpoints.glob("tested_*"))) == (kind == "cut")
        return state(folder, next(checkpoints.glob("tested_*"), checkpoints / "best.ckpt").stem)

    from dlrun.config.saved import require_finished
    from dlrun.runs.show import show
    from dlrun.train.finished import FinishedRun

    finished, (more, kills) = request.getfixturevalue(kind), RESUMED[kind]
    shutil.copytree(finished, tmp_path / "straight")
    assert dl_run("resume=straight", *more)[0] == 0
    want, replace, last = tested(tmp_path / "straight"), os.replace, 0
    test, weights = require_finished(finished)["test"], FinishedRun(finished).state["state_dict"]
    for at in kills:
        shutil.copytree(finished, tmp_path / "run")
        calls = []

        def dying(source, target, at=at, calls=calls):
            calls.append(target)
            if len(calls) >= at:
                raise Killed
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            if at == 99:
                assert dl_run("resume=run", *more)[0] == 0
            else:
                with pytest.raises(Killed):
                    dl_run("resume=run", *more)
        last = len(calls)
        if at != 99:
            assert require_finished(tmp_path / "run")["test"] == test
            assert same(FinishedRun(tmp_path / "run").state["state_dict"], weights), f"killed at rename {at}"
            assert f"test/acc {test['test/acc']!r}" in show(tmp_path / "run")
            assert dl_run("resume=run", *more)[0] == 0
        assert same(tested(tmp_path / "run"), want)
        shutil.rmtree(tmp_path / "run")
    assert last > kills[-2]
    gc.collect()  # close the files here, where their warnings are expected


@pytest.mark.parametrize(
    "arguments, said", [(["resume=run"], "the run is unchanged and can be resumed again"), ([], "nothing")]
)
def test_a_stop_in_the_first_second_says_what_can_be_resumed(arguments, said, dl_run, monkeypatch):
    def stopped(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("dlrun.train." + ("resume.find_run" if arguments else "start.check"), stopped)
    code, _, err = dl_run(*arguments)
    assert code == 130 and said in err


def test_resume_of_a_run_in_use(refused, finished):

    with FileLock(finished / ".lock"):
        text = refused(f"resume={finished}", "trainer.epochs=2")
    assert text.startswith(f"{finished} is in use: another process is training this run\n  wait for it, or stop it")


def test_a_run_goes_on_with_as_many_processes(refused, finished, monkeypatch):
    monkeypatch.setattr("dlrun.system.launch.follow_launcher", lambda: None)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    text = refused(f"resume={finished}", "trainer.epochs=99")
    assert "torchrun started 2 processes, but the run had one\n  expected the number that it was started with" in text


def test_swapped_letters_are_the_likeliest_slip(refused):
    assert "there is no key 'modle'; did you mean 'model'?" in refused("modle=mlp")


def test_resume_last_takes_the_one_that_was_started_last(dl_run, finished, tmp_path):
    for number, name in enumerate(["b", "a"]):
        folder = copy_config(finished, tmp_path / "outputs" / "2026-01-01" / name, "dlrun.models.mlp.mlp", f"no.{name}")
        os.utime(folder / ".hydra" / "overrides.yaml", (number, number))
    assert "outputs/2026-01-01/a: model._target_='no.a' is not allowed" in dl_run("resume=last")[2]
    assert dl_run("run_dir=elsewhere", "trainer.epochs=1")[0] == 0  # outside output_dir
    assert f"resume={tmp_path / 'elsewhere'}: the run in " in dl_run("resume=last")[2]
    shutil.rmtree(tmp_path / "elsewhere")
    assert "outputs/2026-01-01/a: model._target_='no.a' is not allowed" in dl_run("resume=last")[2]


# --- the user's own configs -------------------------------------------------------------------------------------------


def test_configs_that_cannot_be_read(refused, tmp_path):
    models = tmp_path / "mine" / "model"
    models.mkdir(parents=True)
    (models / "broken.yaml").write_text("model:\n  depth: [1, 2\nnext: 3\n")
    (models / "twice.yaml").write_text("depth: 1\ndepth: 2\n")
    (models / "latin.yaml").write_bytes("# caf\xe9\nmodel: {}\n".encode("latin-1"))
    (models / "list.yaml").write_text("- 1\n- 2\n")
    (models / "dangling.yaml").write_text("# @package _global_\ndefaults:\n  - override /task: nothing\n")

    def text(name):
        return refused("--config-dir", "mine", f"model={name}", left=["mine"])

    assert "broken.yaml, line 3: expected ',' or ']', but got ':'\n  expected YAML" in text("broken")
    assert "twice.yaml, line 2: found duplicate key depth" in text("twice")
    assert "latin.yaml: it is not UTF-8 text\n  save it as UTF-8" in text("latin")
    assert "model=[1, 2]: expected a mapping with a _target_" in text("list")
    assert "task=nothing: no such option" in text("dangling")
    assert "expected one of: a2c, " in text("nothing")


def test_a_runs_command_says_where_its_configs_are(dl_run, tmp_path):
    """As it is shown it can be pasted: with the folder of the user's configs, and quotes where the shell needs them."""
    from dlrun.runs.show import command_line

    (tmp_path / "my configs" / "model").mkdir(parents=True)
    text = (cli.CONFIGS / "model" / "mlp.yaml").read_text()
    (tmp_path / "my configs" / "model" / "wide.yaml").write_text(text)
    given = ["model=wide", "model.hidden=[8]", "data=moons", "trainer.epochs=1"]
    assert dl_run("--config-dir", "my configs", *given, "run_dir=here")[0] == 0
    command = command_line(tmp_path / "here")
    assert command == "dl-run model=wide 'model.hidden=[8]' data=moons trainer.epochs=1 '--config-dir=my configs'"
    assert dl_run(*shlex.split(command)[1:])[0] == 0


def test_the_config_folder_is_the_checkouts():
    assert (cli.CONFIGS / "config.yaml").is_file() and Path(cli.CONFIGS).is_absolute()


def test_help_texts_that_python_3_14_checks(monkeypatch):
    """Hydra's is no text yet; other parsers are checked as before."""

    def check(self, action):
        raise ValueError("badly formed help string")

    monkeypatch.setattr(argparse._ActionsContainer, "_check_help", check, raising=False)
    parser = args_parser()
    assert parser.parse_args(["a=1", "--multirun"]).overrides == ["a=1"]
    assert argparse._ActionsContainer._check_help is check
