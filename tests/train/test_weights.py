"""Starting from weights: which files and weights fit, which head is replaced, and what is refused."""

import hashlib
import io
import pickle
import re

import pytest
import torch
from runs import SMALL, compose, same, state, train, weights_of, write_mnist
from safetensors.torch import save_file
from toys import options, read_option, section, seeded

from dlrun.config.build import build
from dlrun.errors import CheckpointError, ConfigError, DataError
from dlrun.output.checkpoint import load, save, snapshot
from dlrun.spec import Image
from dlrun.train import weights
from dlrun.train.session import Session
from dlrun.train.weights import copy_weights, load_weights, other_words, published, read_weights

pytestmark = pytest.mark.usefixtures("undrawn")


def net(model: str = "lenet", classes: int = 10, shape: tuple = (1, 28, 28), seed: int = 0, **keys) -> torch.nn.Module:
    with seeded(seed):
        return build(section("model", model) | keys)(Image(shape, classes))


def start(mine: torch.nn.Module, theirs: torch.nn.Module, outputs: int = 10) -> str:
    return copy_weights(mine, theirs.state_dict(), outputs, "init=x")


# Files


@pytest.mark.parametrize("kind", ["zip", "legacy", "nested", "parallel", "compiled", "safetensors"])
def test_weights_are_read_from_every_format(kind, tmp_path):
    state = net(norm="batch").state_dict()
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    if kind == "safetensors":
        save_file(state, path)
    else:
        saved = {"nested": {"epoch": 3, "state_dict": state}}.get(kind, state)
        prefix = {"parallel": "module.", "compiled": "_orig_mod."}.get(kind, "")
        saved = {prefix + name: value for name, value in saved.items()}
        torch.save(saved, path, _use_new_zipfile_serialization=kind != "legacy")
    assert same(read_weights(str(path)), dict(state))
    mine = net(norm="batch", seed=1)
    assert load_weights(mine, str(path)) == f"init={path}: {len(state)} tensors loaded"
    assert same(dict(mine.state_dict()), dict(state))


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('it ran')",)


def test_files_without_weights_are_refused(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer)
    files = {
        "evil.pt": (pickle.dumps({"a": Evil()}), "evil.pt is not loaded as weights: it holds more than tensors"),
        "cut.pt": (buffer.getvalue()[:-50], "cut.pt is not loaded as weights"),
        "text.pth": (b"hello", "text.pth is not a file of weights\n"),
        "empty.pt": (b"", "empty.pt is not a file of weights\n"),
        "passwd": (b"root:x:0:0:root:/root:/bin/sh\n", "passwd is not a file of weights\n"),
        "bad.safetensors": (b"\xff" * 99, "is damaged, or is not a .safetensors file"),
        "own.ckpt": (buffer.getvalue(), "is damaged, or was not written by dl-run"),
    }
    for name, (content, message) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(
            CheckpointError, match=f"init=.*{name}: .*{message}[\\s\\S]*expected a run's folder, a checkpoint"
        ):
            read_weights(str(tmp_path / name))
    for content in ({}, {"a": 1}, [torch.ones(1)], {"state_dict": {"a": "b"}}):
        torch.save(content, tmp_path / "other.pt")
        with pytest.raises(CheckpointError, match="other.pt holds no weights"):
            read_weights(str(tmp_path / "other.pt"))


def test_old_parameter_names_of_densenet_are_mapped(tmp_path):
    old = ["features.denseblock1.denselayer2.norm.1.weight", "features.denseblock1.denselayer2.conv.2.weight",
           "features.norm0.weight", "features.denseblock1.denselayer2.norm.2.running_mean"]  # fmt: skip
    torch.save({name: torch.ones(1) for name in old}, tmp_path / "a.pth")
    new = ["features.denseblock1.denselayer2.norm1.weight", "features.denseblock1.denselayer2.conv2.weight",
           "features.norm0.weight", "features.denseblock1.denselayer2.norm2.running_mean"]  # fmt: skip
    assert list(read_weights(str(tmp_path / "a.pth"))) == new


# What fits


@pytest.mark.parametrize(
    ("model", "keys"), [("lenet", {}), ("resnet18", {"width": 4}), ("mlp", {}), ("vgg11", {"width": 4})]
)
def test_the_head_is_replaced_where_the_classes_differ(model, keys):
    theirs, mine, before = (net(model, classes, seed=seed, **keys) for classes, seed in ((10, 0), (5, 1), (5, 1)))
    message = start(mine, theirs, 5)
    *body, weight, bias = mine.state_dict()
    loaded, kept = theirs.state_dict(), before.state_dict()
    assert all(torch.equal(mine.state_dict()[name], loaded[name]) for name in body)
    assert all(torch.equal(mine.state_dict()[name], kept[name]) for name in (weight, bias))
    with pytest.raises(CheckpointError, match="the weights are another model's"):
        copy_weights(mine, loaded, None, "init=x")
    width = loaded[weight].shape[1]
    assert f"new, because the head differs: {weight} (10, {width}) -> (5, {width}), {bias} (10,) -> (5,)" in message


def test_a_head_of_another_form_is_replaced_after_the_same_convolutions():
    theirs, mine = net("vgg11", width=4), net("vgg11", 5, width=4, head=[7], seed=1)
    message = start(mine, theirs, 5)
    assert "; new, because the head differs: " in message and "(7, 32)" in message
    convolutions = [name for name, value in mine.state_dict().items() if value.dim() == 4]
    assert all(torch.equal(mine.state_dict()[name], theirs.state_dict()[name]) for name in convolutions)


def test_unused_auxiliary_heads_are_dropped():
    theirs = net().state_dict() | {"aux1.fc.weight": torch.ones(3, 3)}
    assert copy_weights(net(seed=1), theirs, 10, "init=x").endswith("; not in this model: aux1.fc.weight")


def test_missing_auxiliary_heads_are_initialised():
    """From a run with other classes and without auxiliary heads: the new tensors and why; the replaced head first."""
    keys = dict(form="cifar", width=2, shape=(1, 8, 8))
    mine, theirs = net("googlenet", 5, auxiliary=0.3, **keys), net("googlenet", 10, auxiliary=0, **keys)
    message = start(mine, theirs, 5)
    assert "tensors loaded; new, because the head differs: fc.weight (10, 32) -> (5, 32), fc.bias (10,)" in message
    assert "; new, because the weights lack them: aux1.conv.conv.weight, " in message and "not in this" not in message


@pytest.mark.parametrize(("mine", "theirs"), [
    (dict(model="mlp", hidden=[16]), dict(model="mlp", hidden=[17])),
    (dict(model="mlp", hidden=[16, 16]), dict(model="mlp", hidden=[16])),
    (dict(model="mlp", hidden=[16]), dict(model="mlp", hidden=[16, 16])),
    (dict(model="resnet18", width=4), dict(model="resnet34", width=4)),
    (dict(model="resnet34", width=4), dict(model="resnet18", width=4)),
    (dict(model="resnet18", width=4), dict(model="resnet18", width=4, norm="none")),
    (dict(model="resnet18", width=4), dict(model="resnet18", width=4, shape=(3, 28, 28))),
    (dict(model="vgg11", width=4), dict(model="vgg13", width=4)),
    (dict(model="lenet"), dict(model="resnet18", width=4)),
])  # fmt: skip
@pytest.mark.parametrize("classes", [10, 5])
def test_another_architecture_is_refused(mine, theirs, classes):
    mine, theirs = net(**mine, classes=classes), net(**theirs)
    before = {name: value.clone() for name, value in mine.state_dict().items()}
    with pytest.raises(CheckpointError) as error:
        start(mine, theirs, classes)
    head, *lines = str(error.value).splitlines()
    assert head == "init=x: the weights are another model's" and 1 <= len(lines) <= 6
    assert "expected (" in lines[0] or "is not in this model" in lines[0]
    assert same(dict(mine.state_dict()), before)


# Published weights


def publish(folder, state) -> str:
    """A file of weights with a name as torchvision's."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    file = f"tiny-{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}.pth"
    folder.mkdir(parents=True)
    (folder / file).write_bytes(buffer.getvalue())
    return file


def test_published_weights_are_checked_by_their_name(tmp_path, monkeypatch):
    file = publish(tmp_path / "weights", net().state_dict())
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    assert published(file, tmp_path) == tmp_path / "weights" / file
    (tmp_path / "torch" / "hub" / "checkpoints").mkdir(parents=True)
    other = tmp_path / "torch" / "hub" / "checkpoints" / file
    other.write_bytes(b"else")
    with pytest.raises(DataError, match=r"is damaged or not the published file\n  checksum .*\n  expected   sha256:"):
        published(file, tmp_path)
    other.write_bytes((tmp_path / "weights" / file).read_bytes())
    assert published(file, tmp_path) == other


def test_without_a_network_the_error_names_url_and_file(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PUBLISHED", "http://127.0.0.1:9/models/")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    with pytest.raises(DataError) as error:
        published("resnet18-f37072fd.pth", tmp_path)
    message = str(error.value)
    assert "http://127.0.0.1:9/models/resnet18-f37072fd.pth" in message
    assert f"by hand: put resnet18-f37072fd.pth into {tmp_path / 'weights'}" in message
    assert message.endswith(
        "without a download: model.weights=null init=RUN, where RUN is a run of this model on other images"
    )


def test_a_run_starts_from_published_weights_and_reports_it(tmp_path, capsys):
    write_mnist(tmp_path)
    small = [key for key in SMALL if not key.startswith("model.")] + [f"data_dir={tmp_path}", "model=lenet"]
    file = publish(tmp_path / "weights", net(classes=7).state_dict())
    config = compose(*small, "+model.weights=imagenet", f"+model.published={file}")
    train(tmp_path / "a", config)
    out = capsys.readouterr().out
    assert "  start   model.weights=imagenet: 8 tensors loaded; new, because the head differs: " in out
    assert same(Session(*compose(*small, f"init={tmp_path / 'weights' / file}")).task.net.state_dict(),
                Session(*config).task.net.state_dict())  # fmt: skip


PUBLISHED = [name for name in options("model") if "published" in read_option("model", name)["model"]]


@pytest.mark.parametrize("model", PUBLISHED)
def test_nets_with_published_weights_name_their_file(model):
    """The name is torchvision's; heads have 1,000 classes and are replaced."""
    keys = section("model", model)
    assert keys["weights"] is None and re.fullmatch(r"[\w-]+-[0-9a-f]{8}\.pth", keys["published"])
    assert keys["published"].startswith(model.removesuffix("_imagenet"))
    form = {"form": "imagenet"} if "form" in keys else {}
    with torch.device("meta"):
        theirs, mine = (build(keys | form)(Image((3, 224, 224), classes)) for classes in (1000, 5))
    state, own = theirs.state_dict(), mine.state_dict()
    new = [name for name in own if own[name].shape != state[name].shape]
    assert [name for name in new if not name.startswith("aux")] == list(own)[-2:]
    assert copy_weights(mine, state, 5, "init=x").startswith(
        f"init=x: {len(own) - len(new)} tensors loaded; new, because"
    )


def test_init_and_published_weights_exclude_each_other():
    with pytest.raises(ConfigError, match="init=x and model.weights=imagenet: expected only one of the two"):
        compose("model=resnet18", "model.weights=imagenet", "init=x", "data=pokemon")


def test_bad_settings_are_reported():
    for keys, message in {
        ("+model.weights=cifar",): "model.weights=cifar: expected imagenet or null",
        ("+model.weights=imagenet",): "model.published=null: expected the name of torchvision's file",
        ("+model.weights=imagenet", "+model.published=a-0.pth"): "model.published=a-0.pth: expected the name of",
        ("+model.weights=imagenet", "+model.published=a-01234567.pth", "init=x"): "init=x and model.weights=imagenet: ",
    }.items():
        with pytest.raises(ConfigError, match=message):
            compose(*keys)


def test_weights_for_another_vocabulary_are_reported(tmp_path):
    """Row i of that embedding belongs to another word."""
    (tmp_path / "checkpoints").mkdir()
    save(tmp_path / "checkpoints" / "best.ckpt", {"data": {"words": ["the", "good", "bad"]}})
    assert other_words(str(tmp_path), {"words": ["the", "good", "bad"]}) == ""
    assert "2 of 3 words had other numbers there" in other_words(str(tmp_path), {"words": ["the", "bad", "good"]})
    assert other_words(None, {"words": ["the"]}) == other_words(str(tmp_path), {"mean": [0.0]}) == ""


def test_init_starts_from_the_weights_of_a_run(config, tmp_path):
    train(tmp_path / "a", config("seed=3"))
    best, last = (load(tmp_path / "a" / "checkpoints" / f"{name}.ckpt")["state_dict"] for name in ("best", "last"))
    assert same(weights_of(Session(*config(f"init={tmp_path / 'a'}"))), snapshot(best))
    checkpoint = tmp_path / "a" / "checkpoints" / "last.ckpt"
    assert same(weights_of(Session(*config(f"init={checkpoint}"))), snapshot(last))
    train(tmp_path / "b", config(f"init={checkpoint}"))
    assert state(tmp_path / "b")["clock"]["step"] == 8


def test_init_from_another_model_lists_what_differs(config, tmp_path):
    train(tmp_path, config("trainer.epochs=1"))
    with pytest.raises(CheckpointError) as error:
        Session(*config(f"init={tmp_path}", "model.hidden=[17]", "model.norm=layer"))
    message = str(error.value)
    assert f"init={tmp_path}: the weights are another model's" in message
    assert "expected (17, 784), found (16, 784)" in message


def test_a_missing_run_of_an_experiment_is_reported_with_the_command_that_makes_it(tmp_path):
    command = "to make that run first: dl-run experiment=cifar10_densenet121 run_dir="
    with pytest.raises(CheckpointError, match=f"cannot read .*\n.*; {command}outputs/cifar10_densenet121$"):
        read_weights("outputs/cifar10_densenet121")
    with pytest.raises(CheckpointError, match="'/no where/cifar10_densenet121'$"):
        read_weights("/no where/cifar10_densenet121")
    with pytest.raises(CheckpointError, match="or state_dict file$"):
        read_weights(str(tmp_path / "mine"))


def test_init_from_an_empty_folder_is_reported(config, tmp_path):
    with pytest.raises(CheckpointError, match="cannot read the checkpoint .*best.ckpt: No such file"):
        Session(*config(f"init={tmp_path}"))
