"""docs/course.md, results.md and README: every command composes to a valid config; figures are those of the headers."""

import re
import shlex
from pathlib import Path

import pytest
from course import MOST, PAGE, reaches, rows
from hydra.core.override_parser.overrides_parser import OverridesParser
from PIL import Image
from runs import compose
from toys import options

from dlrun.cli import with_seeds
from dlrun.errors import UserError
from dlrun.runs.cli import COMMANDS as RUNS

ROOT = Path(__file__).parents[1]
TEXT = PAGE.read_text(encoding="utf-8")
PRINTED = TEXT + "".join((ROOT / name).read_text(encoding="utf-8") for name in ("docs/results.md", "README.md"))
BANDS = {  # of the measured commands that are no experiment and take at most five minutes; experiments have a header
    "data=digits trainer.compile=true": "test/acc >= 0.96",
    "model=linear data=moons": "test/acc >= 0.75",
    "model=mlp data=mnist data.batch_size=512 'data.mean=[0.5]' 'data.std=[0.5]'": "test/acc >= 0.97",
    "model=linear data=mnist task.loss=mse_one_hot": "test/acc >= 0.84",
    "-m model=polynomial model.degree=1,2,10": "test/mse of model.degree=1 > model.degree=10",
    "model=mlp data=fashion_mnist": "test/acc >= 0.87",
    "model=mlp model.activation=leaky_relu data=digits": "test/acc >= 0.96",
    "model=mlp data=digits task.loss=hinge": "test/acc >= 0.95",
    "model=point data.source.name=binary_entropy task.method=none 'model.starts=[[0.5]]'": "test/f >= 0.999",
    "-m experiment=auto_mpg data.folds=5": "test/mae of data.fold=0 < 2.5",
    "data=digits optimizer.weight_decay=1e-4": "test/acc >= 0.96",
    "model=mlp data=digits model.init=xavier": "test/acc >= 0.96",
    "data=digits 'task.metrics=[top2,top3]'": "test/top3 >= 0.98",
    "model=mlp data=digits optimizer=sgd optimizer.momentum=0.9 schedule=linear": "test/acc >= 0.96",
    "model=mlp data=digits optimizer=rmsprop optimizer.momentum=0.9": "test/acc >= 0.95",
    "model=mlp data=mnist trainer.monitor=acc trainer.stop_at=0.97": "test/acc >= 0.96",
    "model=mlp data=mnist model.dropout=0.5": "test/acc >= 0.97",
    "model=mlp data=moons task.l1=1e-4": "test/acc >= 0.87",
    "model=autoencoder data=mnist model.latent=30": "test/mse <= 0.0065",
    "model=autoencoder data=anime_faces 'data.spec.shape=[3,32,32]' 'data.resize=[32,32]' model.latent=30 "
    "'model.hidden=[]'": "test/mse <= 0.021",
    "model=autoencoder data=mnist model.latent=30 'model.hidden=[]' task.loss=mse": "test/mse <= 0.0185",
    "model=denoising_autoencoder data=mnist": "test/mse <= 0.013",
    "model=dropout_autoencoder data=mnist": "test/mse <= 0.0155",
    "model=adversarial_autoencoder data=mnist": "test/mse <= 0.0155",
    "model=mlp data=cifar10": "test/acc >= 0.49",
    "model=rnn data=imdb model.cell=fused": "test/acc >= 0.8",
    "model=vae data=fashion_mnist": "test/elbo >= -250",
    "model=gan data=mnist model.form=dense 'model.hidden=[256,256]'": "test/swd <= 0.35",
    "model=gan data=gaussians model.latent=2 trainer.epochs=200 trainer.test=last": "test/modes >= 4",
    "model=ppo": "test/return >= 475",
    "model=value_iteration data=maze": "test/return >= 6.8",
    "model=monte_carlo data=maze": "test/return >= 6.8",
    "model=dqn": "test/return >= 475",
    "model=a2c": "test/return >= 450",
}
LINKED = re.findall(r'\[image\]\(figures/(\w+)\.png "[\w ]+"\)', TEXT)
COMMANDS = sorted(set(re.findall(r"`dl-run (\w+=[^`]*|-m [^`]*)`", PRINTED)))  # not `dl-run new`
EXPERIMENTS = [command for command in COMMANDS if re.fullmatch(r"experiment=\w+", command)]


def test_every_chapter_has_a_table():
    assert [int(n) for n in re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE)] == list(range(1, 16))
    widths = {row.count("|") for row in TEXT.partition("## Beyond")[0].splitlines() if row.startswith("|")}
    assert widths == {6} and len(COMMANDS) > 80


def test_every_experiment_exists():
    """test_configs.py composes all experiments that there are."""
    assert {command.partition("=")[2] for command in EXPERIMENTS} <= set(options("experiment"))


def composed(command):
    """Compose the first job of a command."""
    words = [word for word in with_seeds(shlex.split(command)) if word not in ("-m", "--multirun")]
    parsed = OverridesParser.create().parse_overrides(words)
    first = []  # the first value of each swept key
    for word, override in zip(words, parsed, strict=True):
        key, value = override.get_key_element(), override.sweep_string_iterator
        first.append(f"{key}={next(iter(value()))}" if override.is_sweep_override() else word)
    return compose(*first)


def errors_of(commands):
    """What is wrong with the commands that do not compose."""
    wrong = []
    for command in commands:
        try:
            composed(command)
        except UserError as error:
            wrong.append(f"{command}: {error}")
    return wrong


def test_commands_compose():
    few = ["model=vgg13 data=cifar100", "model=monte_carlo data=maze", "model=wgan_gp data=swiss_roll"]
    assert set(few) <= set(COMMANDS) and not errors_of(few)


@pytest.mark.thorough
def test_every_command_composes():
    wrong = errors_of(sorted(set(COMMANDS) - set(EXPERIMENTS)))
    assert not wrong, "\n".join(["", *wrong])


def test_every_command_after_a_run_exists():
    names = re.findall(r"`dl-runs (\w+)", TEXT)
    assert names and set(names) <= RUNS.keys()


def test_every_experiment_is_listed_with_figures_of_its_header():
    wrong, paths = [], sorted((ROOT / "configs" / "experiment").glob("*.yaml"))
    for path in paths:
        rows = [row for row in TEXT.splitlines() if f"`dl-run experiment={path.stem}`" in row]
        header = path.read_text(encoding="utf-8").partition("Measured:")[2].partition("defaults:")[0]
        wrong += [] if rows else [f"{path.stem}: not listed"]
        for row in rows:
            here = row.split("|")[-2] if row.count("|") == 6 else ""  # beyond the book: means of the header's seeds
            if "not yet" in header and "not measured" not in here:
                wrong.append(f"{path.stem}: not measured, but listed with {here}")
            missing = [number for number in re.findall(r"\d+\.\d+", here) if number not in header]
            wrong += [f"{path.stem}: {missing} are not in its header"] if missing else []
    assert len(paths) > 50 and not wrong, "\n".join(["", *wrong])


def test_every_image_exists_and_is_small():
    """scripts/figures draws them; each belongs to a row, and to one only."""
    files = {path.stem: path for path in (ROOT / "docs" / "figures").iterdir()}
    assert len(LINKED) > 15 and sorted(LINKED) == sorted(files)
    for path in files.values():
        with Image.open(path) as image:
            assert path.stat().st_size <= 60_000 and image.width >= 300, path.name
            assert len(image.convert("L").getcolors(256) or range(256)) > 5, f"{path.name}: nothing is drawn"


def test_every_measured_experiment_has_a_time():
    """The slow tests run those that take at most five minutes."""
    wrong = []
    for path in (ROOT / "configs" / "experiment").glob("*.yaml"):
        listed = [row for row in rows() if f"experiment={path.stem}" in row.commands]
        if "Measured: not yet" not in path.read_text(encoding="utf-8") and not any(row.seconds for row in listed):
            wrong.append(path.stem)
    assert not wrong


def test_every_quick_row_has_a_band():
    """Of the experiments, tests/test_experiments.py runs those that the page says take at most five minutes."""
    quick = [row.commands[0] for row in rows() if row.seconds and row.seconds <= MOST]
    bare = {command for command in quick if command not in EXPERIMENTS and "mode=summary" not in command}
    assert sorted(bare) == sorted(BANDS)


@pytest.mark.slow
@pytest.mark.parametrize("command", BANDS)
def test_quick_rows_reach_what_the_page_states(command, tmp_path):
    reaches(shlex.split(command), BANDS[command], tmp_path)
