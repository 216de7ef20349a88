"""Every data set with every model: it builds and gives an output per class or target, or is refused by name."""

from functools import cache

import pytest
import torch
from toys import NAMES, composed, models, names_of, options, section, spec_of, takes

from dlrun.config.build import build
from dlrun.config.check import check
from dlrun.errors import PairingError, UserError
from dlrun.spec import Env, Image, Mask, Table, Tokens

SPECS = {name: spec_of(name) for name in options("data")}
LABELLED = [name for name, spec in SPECS.items() if not isinstance(spec, Env | Mask) and spec.outputs]
MASKED = [name for name, spec in SPECS.items() if isinstance(spec, Mask)]
PAIRS = [(data, model) for data in LABELLED for model in models()]
ODD = [Image((1, 19, 31), 2), Image((4, 71, 90), 3), Table(features=5, classes=3), Table(features=3, targets=2)]
ODD += [Tokens(7, 11, 2), Tokens(1, 50, 3)]
LEAST = {"alexnet": 29, "vgg16_imagenet": 32, "vgg19_imagenet": 32, "mobilenet": 9, "lenet": 10, "fast_cnn": 9}
LEAST |= dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19"), 17)
TEXT = [model for model in options("model") if takes(model) == ["Tokens"]]


@cache
def forward(model: str, spec: object) -> tuple[int, ...]:
    with torch.device("meta"):
        net = build(section("model", model))(spec)
        out = net(torch.empty(3, *spec.shape))  # as in training
    out = out[0] if isinstance(out, tuple) else out
    return tuple((out.mean(1) if model == "tabular" else out).shape)  # of several members in training


@pytest.mark.parametrize(("data", "model"), PAIRS, ids=map("-".join, PAIRS))
def test_pair(data, model):
    config = composed() | {"data": section("data", data), "model": section("model", model)}
    spec = build(config["data"]).spec
    try:
        check(config, NAMES | {"data": data, "model": model})
        shape = forward(model, spec)
    except PairingError as error:
        lines = str(error).splitlines()
        assert lines[0] == f"model={model} cannot learn from data={data}"
        assert type(spec).__name__ not in takes(model)
        assert str(spec) in lines[2]
        fitting = dict(line.strip().split(":", 1) for line in lines[3:])
        assert ("lstm" if isinstance(spec, Tokens) else "mlp") in fitting[f"models for {data}"]
        assert model not in fitting[f"models for {data}"].split(", ")
        its_data = "imdb" if model in TEXT else "mnist" if "Image" in takes(model) else "moons"
        assert its_data in fitting[f"data for {model}"]
    except UserError as error:
        assert isinstance(spec, Image) and min(spec.shape[1:]) < LEAST[model]
        assert model in str(error) and "x".join(map(str, spec.shape[1:])) in str(error)
    else:
        assert shape == (3, spec.outputs)
        assert not isinstance(spec, Image) or min(spec.shape[1:]) >= LEAST.get(model, 1)


def test_few_pairs_are_refused():
    """All images but the smallest go with all nets (above), all but texts with the dense ones, texts with theirs."""
    texts = {data for data in LABELLED if isinstance(SPECS[data], Tokens)}
    assert texts == {"imdb", "imdb_keras"}
    refused = {(data, model) for data, model in PAIRS if type(SPECS[data]).__name__ not in takes(model)}
    assert {pair for pair in PAIRS if (pair[0] in texts) != (pair[1] in TEXT)} <= refused
    assert not any(model in ("mlp", "linear") for data, model in refused if data not in texts)
    assert not any(model in TEXT for data, model in refused if data in texts)


GENERATIVE = {"autoencoder", "denoising_autoencoder", "dropout_autoencoder", "conv_autoencoder", "vae", "conv_vae"}
GENERATIVE |= {"adversarial_autoencoder", "gan", "dcgan", "wgan", "wgan_gp"}


@pytest.mark.parametrize("model", [model for model in options("model") if "Image" in takes(model)])
def test_images_without_labels_are_for_models_that_do_without(model):
    """Refused by the config where that says it, else by the builder, before there is a net."""
    config = composed(f"model={model}", "data=anime_faces")
    if model in GENERATIVE:
        check(config, NAMES | {"data": "anime_faces", "model": model})
        with torch.device("meta"):
            assert build(config["model"])(Image((3, 64, 64)))
        return
    with pytest.raises(PairingError) as refused:
        check(config, NAMES | {"data": "anime_faces", "model": model})
    first, mine, gives, fitting, sets, how, _ = str(refused.value).splitlines()
    assert first == f"model={model} cannot learn from data=anime_faces"
    assert mine.endswith(" with labels") and gives.endswith("Image(shape=3x64x64, classes=None)")
    assert set(fitting.partition(":")[2].strip().split(", ")) == GENERATIVE
    assert "anime_faces" not in sets.partition(":")[2] and "image_folder" in sets
    assert how.startswith("  labels come from class folders or a CSV (data=image_folder)")
    with pytest.raises(PairingError) as refused:
        build(config["model"])(Image((3, 64, 64)))
    name = config["model"]["_target_"].rpartition(".")[2]
    gives, fitting, how, _ = str(refused.value).splitlines()
    assert gives == f"the data gives Image(shape=3x64x64, classes=None), and {name} needs labels"
    assert set(fitting.partition(":")[2].strip().split(", ")) == GENERATIVE and how.startswith("  labels come from")


@pytest.mark.parametrize(
    "choice",
    [
        ["data=digits", "data.spec.classes=null"],
        ["data=linear", "data.spec.targets=0"],
        ["data=image_folder", "data.layout=flat"],
    ],
)
def test_all_data_without_labels_is_refused(choice):
    with pytest.raises(PairingError, match=r"(?s)cannot learn from data=.* with labels\n.*\n  labels come from "):
        check(composed(*choice), names_of(*choice))


@pytest.mark.parametrize("model", models())
@pytest.mark.parametrize("spec", ODD, ids=str)
def test_odd_specs(model, spec):
    if type(spec).__name__ not in takes(model):
        return
    try:
        assert forward(model, spec) == (3, spec.outputs)
    except UserError as error:
        assert min(spec.shape[1:]) < 63 and f"{model} cannot take images of 19x31: nothing would be left" in str(error)


@pytest.mark.parametrize("model", [model for model in options("model") if takes(model) == ["Mask"]])
def test_masks(model):
    """A class for every pixel, with all data that has masks, and with images of odd sizes."""
    for spec in [*(SPECS[data] for data in MASKED), Mask((4, 71, 90), 21), Mask((1, 31, 19), 2)]:
        assert forward(model, spec) == (3, spec.classes, *spec.shape[1:])
