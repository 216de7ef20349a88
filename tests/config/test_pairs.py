"""Every data set with every model: the pair builds and gives an output per class or target, or is refused by name."""

from functools import cache

import pytest
import torch
from toys import CPU, NAMES, composed, kinds, models, names_of, options, section, spec_of

from dlrun.config.build import build
from dlrun.config.check import check
from dlrun.errors import PairingError, UserError
from dlrun.spec import Columns, Image, Mask, Series, Table, Tokens

SPECS = {
    name: spec_of(name) for name in options("data") if name not in ("arrays", "stream")
}  # without a spec in the config
MASKED = [name for name, spec in SPECS.items() if isinstance(spec, Mask)]
FLAT, DEEP = Image((1, 19, 31), 2), ("alexnet", "vgg16_imagenet", "vgg19_imagenet")
ODD = [FLAT, Image((4, 71, 90), 3), Table(features=5, classes=3), Table(features=3, targets=2)]
ODD += [Tokens(7, 11, 2), Tokens(1, 50, 3)]
ODD += [Series(9, 1, targets=2), Series(1, 3, levels=(4, 30), classes=3), Series(6, 2, targets=4, last=(1, 0))]

# Who takes what, for all data with labels or targets and all models of task=supervised.
DENSE = {"linear", "matrix_powers", "mlp"}
CONVOLUTIONAL = {
    "alexnet", "densenet121", "fast_cnn", "googlenet", "lenet", "lenet_original", "mobilenet", "resnet101",
    "resnet18", "resnet34", "resnet50", "vgg11", "vgg13", "vgg16", "vgg16_imagenet", "vgg19", "vgg19_imagenet",
    "xception",
}  # fmt: skip
TEXT = {"bag_of_words", "dense_per_word", "gru", "lstm", "rnn"}
STEPS = {"gru", "linear", "lstm", "mlp", "rnn", "tcn"}
ROWS = DENSE | {"tabular"}
FOR_COLUMNS = {"linear", "mlp", "tabular"}
TAKERS = {Image: DENSE | CONVOLUTIONAL, Table: ROWS, Tokens: TEXT, Series: STEPS}
SEGMENTING = {"fcn16s", "fcn32s", "fcn8s", "unet"}
ALL = ROWS | CONVOLUTIONAL | TEXT | STEPS
SHALLOW = set(kinds(models()))
COLUMNS = [name for name, spec in SPECS.items() if isinstance(spec, Columns)]
SERIES = {  # what each gives, which its config does not say
    "eeg": Series(32, 4, targets=1),
    "seattle_weather": Series(14, 4, levels=(5,), targets=1),
    "series": Series(6, 3, levels=(4,), classes=3),
}
TAKES = {
    "gates": ROWS, "gaussians": ROWS, "gaussians25": ROWS, "linear": ROWS, "moons": ROWS, "normal": ROWS,
    "sine": ROWS, "swiss_roll": ROWS, "imdb": TEXT, "imdb_keras": TEXT, "cifar10": DENSE | CONVOLUTIONAL,
    "cifar100": DENSE | CONVOLUTIONAL, "digits": DENSE | CONVOLUTIONAL, "fashion_mnist": DENSE | CONVOLUTIONAL,
    "coloured_digits": DENSE | CONVOLUTIONAL, "mnist": DENSE | CONVOLUTIONAL, "pokemon": DENSE | CONVOLUTIONAL,
}  # fmt: skip
TOO_SMALL = {  # images that a model refuses for their size
    "digits": {
        "alexnet", "fast_cnn", "lenet", "mobilenet", "vgg11", "vgg13", "vgg16", "vgg16_imagenet", "vgg19",
        "vgg19_imagenet", "xception",
    },
    "coloured_digits": {"alexnet", "vgg16_imagenet", "vgg19_imagenet"},
    "fashion_mnist": {"alexnet", "vgg16_imagenet", "vgg19_imagenet"},
    "mnist": {"alexnet", "vgg16_imagenet", "vgg19_imagenet"},
}  # fmt: skip


@cache
def forward(model: str, spec: object) -> tuple[int, ...]:
    with torch.device("meta"):
        net = build(section("model", model))(spec)
        out = net(torch.empty(3, *spec.shape))  # as in training
    out = out[0] if isinstance(out, tuple) else out
    return tuple((out.mean(1) if model == "tabular" else out).shape)  # in training: of several members


def config_of(data: str, model: str) -> dict:
    return composed() | {"data": section("data", data), "model": section("model", model)}


def test_the_expected_pairs_cover_all_data_and_all_models():
    assert set(models()) == ALL and set(models("segment")) == SEGMENTING
    assert TAKES.keys() == {
        name for name, spec in SPECS.items() if isinstance(spec, Image | Table | Tokens) and spec.outputs
    }
    assert SERIES.keys() == {name for name, spec in SPECS.items() if isinstance(spec, Series)}


@pytest.mark.thorough(but=["moons", "linear"])
@pytest.mark.parametrize("data", TAKES)
def test_every_data_set_is_accepted_by_its_models(data):
    """The check accepts the pair, and the network gives an output per class or target.

    Networks that differ from another one in depth only are built for cifar10.
    """
    for model in sorted(TAKES[data] - TOO_SMALL.get(data, set())):
        check(config_of(data, model), NAMES | {"data": data, "model": model})
        if model in SHALLOW or data == "cifar10":
            assert forward(model, SPECS[data]) == (3, SPECS[data].outputs), model


@pytest.mark.parametrize("data", COLUMNS)
def test_tables_of_columns_are_accepted_by_models_for_columns(data):
    for model in FOR_COLUMNS:
        check(config_of(data, model), NAMES | {"data": data, "model": model})
        assert forward(model, Columns(3, levels=(2, 30), classes=4)) == (3, 4)


@pytest.mark.thorough(but=["iris"])
@pytest.mark.parametrize("data", COLUMNS)
def test_tables_of_columns_are_refused_by_all_other_models(data):
    for model in sorted(ALL - FOR_COLUMNS):
        with pytest.raises(PairingError, match=r"models for .*: .*tabular"):
            check(config_of(data, model), NAMES | {"data": data, "model": model})


@pytest.mark.parametrize("data", SERIES)
def test_series_are_accepted_by_models_for_series(data):
    for model in STEPS:
        check(config_of(data, model), NAMES | {"data": data, "model": model})
        assert forward(model, SERIES[data]) == (3, SERIES[data].outputs), model


def test_a_series_gives_the_spec_of_this_table():
    data = build(section("data", "eeg"))
    data.load(CPU)
    wanted = SERIES["eeg"]
    assert (data.spec.shape, data.spec.targets, data.spec.outputs) == (wanted.shape, wanted.targets, wanted.outputs)


@pytest.mark.thorough(but=["eeg"])
@pytest.mark.parametrize("data", SERIES)
def test_series_are_refused_by_all_other_models(data):
    for model in sorted(ALL - STEPS):
        with pytest.raises(PairingError, match=r"models for .*: .*tcn"):
            check(config_of(data, model), NAMES | {"data": data, "model": model})


@pytest.mark.parametrize("data", TOO_SMALL)
def test_images_too_small_for_a_model_are_refused(data):
    size = "x".join(map(str, SPECS[data].shape[1:]))
    for model in TOO_SMALL[data]:
        check(config_of(data, model), NAMES | {"data": data, "model": model})
        with pytest.raises(UserError, match=rf"{model} cannot take images of {size}") as refused:
            forward(model, SPECS[data])
        assert not isinstance(refused.value, PairingError)


@pytest.mark.thorough(but=["mnist", "imdb"])
@pytest.mark.parametrize("data", TAKES)
def test_every_data_set_is_refused_by_all_other_models(data):
    """The error names the models for the data and the data for the model."""
    for model in sorted(ALL - TAKES[data]):
        with pytest.raises(PairingError) as refused:
            check(config_of(data, model), NAMES | {"data": data, "model": model})
        first, _, gives, *lists = str(refused.value).splitlines()
        assert first == f"model={model} cannot learn from data={data}"
        assert str(SPECS[data]) in gives
        fitting = {name: words.split(", ") for name, words in (line.strip().split(": ", 1) for line in lists)}
        fitting = {name: [word.strip() for word in words] for name, words in fitting.items()}
        assert ("lstm" if data.startswith("imdb") else "mlp") in fitting[f"models for {data}"]
        assert model not in fitting[f"models for {data}"]
        other = "imdb" if model in TEXT else {"tabular": "iris", "tcn": "eeg"}.get(model, "mnist")
        assert other in fitting[f"data for {model}"]


UNLABELLED = {"autoencoder", "denoising_autoencoder", "dropout_autoencoder", "conv_autoencoder", "vae", "conv_vae"}
UNLABELLED |= {"adversarial_autoencoder", "gan", "dcgan", "infogan", "wgan", "wgan_gp"}
UNLABELLED |= {"operations", "convolution"}  # they learn nothing
LABELLED = DENSE | CONVOLUTIONAL | {"conditional_gan", "cyclegan"}


@pytest.mark.thorough(but=["gan", "conv_vae", "autoencoder"])
@pytest.mark.parametrize("model", sorted(UNLABELLED))
def test_images_without_labels_are_accepted_by_models_that_need_none(model):
    config = composed(f"model={model}", "data=anime_faces")
    check(config, NAMES | {"data": "anime_faces", "model": model})
    with torch.device("meta"):
        assert build(config["model"])(Image((3, 64, 64)))


@pytest.mark.thorough(but=["lenet", "linear", "vgg11", "googlenet"])
@pytest.mark.parametrize("model", sorted(LABELLED))
def test_images_without_labels_are_refused_by_models_that_need_them(model):
    """The check of the config refuses them, and so does the builder if the data turns out to have no labels."""
    config = config_of("anime_faces", model)
    with pytest.raises(PairingError) as refused:
        check(config, NAMES | {"data": "anime_faces", "model": model})
    first, mine, gives, fitting, sets, how, _ = str(refused.value).splitlines()
    assert first == f"model={model} cannot learn from data=anime_faces"
    assert mine.endswith(" with labels") and gives.endswith("Image(shape=3x64x64, classes=None)")
    assert set(fitting.partition(":")[2].strip().split(", ")) == UNLABELLED
    assert "anime_faces" not in sets.partition(":")[2] and "image_folder" in sets
    assert how.startswith("  labels come from class folders or a CSV (data=image_folder)")
    with pytest.raises(PairingError) as refused:
        build(config["model"])(Image((3, 64, 64)))
    name = config["model"]["_target_"].rpartition(".")[2]
    gives, fitting, how, _ = str(refused.value).splitlines()
    assert gives == f"the data gives Image(shape=3x64x64, classes=None), and {name} needs labels"
    assert set(fitting.partition(":")[2].strip().split(", ")) == UNLABELLED and how.startswith("  labels come from")


@pytest.mark.parametrize(
    "choice",
    [
        ["data=digits", "data.spec.classes=null"],
        ["data=linear", "data.spec.targets=0"],
        ["data=image_folder", "data.layout=flat"],
    ],
)
def test_other_data_without_labels_is_refused(choice):
    with pytest.raises(PairingError, match=r"(?s)cannot learn from data=.* with labels\n.*\n  labels come from "):
        check(composed(*choice), names_of(*choice))


@pytest.mark.thorough(
    but=["linear", "mlp", "lenet", "tcn", "rnn", "tabular", "lenet_original", "fast_cnn", "vgg16_imagenet", "vgg11"]
)
@pytest.mark.parametrize("model", models())
def test_models_accept_specs_of_odd_sizes(model):
    specs = [spec for spec in ODD if model in TAKERS[type(spec)] and not (model in DEEP and spec == FLAT)]
    assert specs and all(forward(model, spec) == (3, spec.outputs) for spec in specs)


@pytest.mark.parametrize("model", DEEP)
def test_images_that_a_network_would_reduce_to_nothing_are_refused(model):
    with pytest.raises(UserError, match=f"{model} cannot take images of 19x31: nothing would be left"):
        forward(model, FLAT)


@pytest.mark.parametrize("model", sorted(SEGMENTING))
def test_segmentation_models_give_a_class_per_pixel(model):
    """A class for every pixel, for all data with masks and for images of odd sizes."""
    for spec in [*(SPECS[data] for data in MASKED), Mask((4, 71, 90), 21), Mask((1, 31, 19), 2)]:
        assert forward(model, spec) == (3, spec.classes, *spec.shape[1:])
