"""The summary of a network by its layers: against published counts and by hand, for every model, and as a command."""

import sys

import pytest
import torch
from runs import compose
from torch.utils.flop_counter import FlopCounterMode
from toys import options, read_option, section, takes

from dlrun import cli
from dlrun.config.build import build
from dlrun.spec import Image, Table
from dlrun.train.summary import layers, readable, summary

IMAGENET = Image((3, 224, 224), classes=1000)
PUBLISHED = [  # multiply-adds per sample, in G, with half a unit of the last figure published
    ("alexnet", {}, 0.714, 0.0005),  # torchvision's "_ops", as those below
    ("vgg16_imagenet", {}, 15.47, 0.005),
    ("googlenet", {}, 1.498, 0.0005),
    ("resnet18", dict(form="imagenet"), 1.814, 0.0005),
    ("resnet50", {}, 4.089, 0.0005),
    ("resnet101", {}, 7.801, 0.0005),
    ("densenet121", {}, 2.834, 0.0005),
    ("mobilenet", {}, 0.569, 0.0005),  # Howard et al. 2017, table 4
]
FITTING = {"Image": "image_folder", "Table": "moons", "Tokens": "imdb", "Env": "cartpole", "Mask": "shapes"}
FITTING |= {"Function": "function", "Series": "eeg"}


def on_meta(name, spec, **keys):
    with torch.device("meta"):
        net = build(section("model", name) | keys)(spec)
        return net, layers(net, spec)


@pytest.mark.thorough(
    but=["resnet18-keys3-1.814-0.0005", "vgg16_imagenet-keys1-15.47-0.005", "mobilenet-keys7-0.569-0.0005"]
)
@pytest.mark.parametrize(("name", "keys", "expected", "within"), PUBLISHED)
def test_multiply_adds_equal_published_counts(name, keys, expected, within):
    net, found = on_meta(name, IMAGENET, **keys)
    assert sum(layer.multiply_adds for layer in found) / 1e9 == pytest.approx(expected, abs=within)
    assert sum(layer.parameters for layer in found) == sum(p.numel() for p in net.parameters())


def test_the_summary_of_lenet_equals_one_by_hand():
    net, found = on_meta("lenet", Image((1, 28, 28), classes=10))
    assert [tuple(layer) for layer in found if layer.parameters] == [
        ("0", "Conv2d", (6, 26, 26), 1, 60, 26 * 26 * 6 * 9),
        ("4", "Conv2d", (16, 11, 11), 1, 880, 11 * 11 * 16 * 9 * 6),
        ("9", "Linear", (120,), 1, 48_120, 400 * 120),
        ("11", "Linear", (84,), 1, 10_164, 120 * 84),
        ("13", "Linear", (10,), 1, 850, 84 * 10),
    ]
    assert [layer.kind for layer in found] == [
        type(layer).__name__ for layer in net if type(layer).__name__ != "Identity"
    ]


FIXED = ("product", "operations", "convolution")  # without parameters


@pytest.mark.thorough(
    but=["alexnet", "lstm", "unet", "dqn", "gan", "monte_carlo", "operations", "vae", "product", "linear"]
)
@pytest.mark.parametrize("name", options("model"))
def test_every_model_has_a_summary(name):
    """All its layers run, and the columns add up to the last lines."""
    given = [entry["override /data"] for entry in read_option("model", name)["defaults"] if "override /data" in entry]
    data = given[0] if given else FITTING[takes(name)[0]]
    small = {"imdb": ["data.length=5"], "image_folder": ["data.spec.shape=[3,64,64]", "data.spec.classes=5"]}
    config, names = compose(f"model={name}", f"data={data}", "data_dir=/nowhere", *small.get(data, []))
    lines = summary(config, names).splitlines()
    assert lines[0].startswith(f"model={name} data={data}: ")
    rows = [line.rsplit(maxsplit=3) for line in lines[4:-3]]
    counts = [[0 if cell == "-" else int(cell.replace(",", "")) for cell in row[2:]] for row in rows]
    parameters, products = (sum(column) for column in zip(*counts, strict=True))
    idle = [row[0] for row in rows if row[1] == "-"]
    assert all(row.startswith("aux") for row in idle), "every part of the net ran, but for heads that only training has"
    assert lines[-2].startswith(f"parameters     {parameters:,} (") and (parameters > 0) == (name not in FIXED)
    assert lines[-2].endswith("of them in layers that do not run in evaluation") == bool(idle)
    assert lines[-1] == f"multiply-adds  {readable(products)} per sample" and (products > 0) == (
        name not in ("point", "glove")
    )


def test_products_are_counted_once():
    net, found = on_meta("googlenet", Image((3, 64, 64), classes=10))
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, 64, 64))
    assert 2 * sum(layer.multiply_adds for layer in found) == counter.get_total_flops() > 0


def test_a_layer_that_runs_twice_is_one_row():
    net, found = on_meta("resnet18", Image((3, 32, 32), classes=10))
    relu = next(layer for layer in found if layer.name == "stage2.0.relu")
    assert (relu.num_calls, relu.shape, relu.multiply_adds) == (2, (128, 16, 16), 0)


def test_cells_from_their_formulas_and_packed_texts_have_a_summary():
    """Products outside of layers count for their parent; operations that the meta device lacks are run with numbers."""
    small = ["data=imdb", "data.length=9", "data.vocab=30", "data_dir=/nowhere", "model.units=5", "model.layers=1"]
    config, names = compose("model=lstm", *small, "model.embedding.size=6")
    fused = summary(config, names)
    assert "multiply-adds  1.985 k per sample" in fused  # 9 times 4 gates of 6 + 5 to 5, and 5 to 1
    loop = summary(*compose("model=lstm", *small, "model.embedding.size=6", "model.cell=loop"))
    assert loop.splitlines()[-1] == fused.splitlines()[-1] and "\nRecurrent " in loop
    packed = summary(*compose("model=lstm", *small, "model.embedding.size=6", "model.mask_padding=true"))
    assert packed.splitlines()[-2] == fused.splitlines()[-2]


def test_frozen_parameters_are_reported():
    config, names = compose("model=lstm", "data=imdb", "data_dir=/nowhere")
    assert "parameters     1,075,841 (4.1 MB); 1,075,329 of them learn" in summary(config, names)


def test_numbers_are_short():
    assert [readable(n) for n in (0, 999, 1_000, 118_013_952, 4_089_284_608)] == [
        "0", "999", "1.000 k", "118.014 M", "4.089 G",
    ]  # fmt: skip


# The command


def dl_run(monkeypatch, capsys, *arguments):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["dl-run", *arguments])
    code = 0
    try:
        cli.main()
    except SystemExit as error:
        code = error.code or 0
    return code, *capsys.readouterr()


def test_the_command_prints_the_table_and_leaves_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = dl_run(monkeypatch, capsys, "mode=summary", "model=lenet", "data=mnist", "data_dir=/nowhere")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "model=lenet data=mnist: Image(shape=1x28x28, classes=10)"
    assert lines[2].split() == ["layer", "output", "parameters", "multiply-adds"]
    assert lines[4].split() == ["0", "(Conv2d)", "6x26x26", "60", "36,504"]
    assert lines[-2:] == ["parameters     60,074 (0.2 MB)", "multiply-adds  199.968 k per sample"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["mode=sumary"], "mode=sumary: expected train, summary, find_lr, find_batch or time; did you mean 'summary'?"),
        (["mode=null"], "mode=null: expected train, summary, find_lr, find_batch or time"),
        (["mode=summary", "model=lenet"], "lenet cannot take images of 8x8"),
        (["mode=summary", "model=resnet18", "data=moons"], "model=resnet18 cannot learn from data=moons"),
        (["mod=summary"], "mod=summary: there is no key 'mod'; did you mean 'mode'?"),
    ],
)
def test_errors_in_this_mode_are_reported(arguments, text, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = dl_run(monkeypatch, capsys, *arguments)
    assert code == 2 and err.startswith(f"dl-run: {text}")


def test_the_summary_of_regression_shows_its_targets():
    assert on_meta("linear", Table(features=3, targets=2))[1][-1].shape == (2,)
