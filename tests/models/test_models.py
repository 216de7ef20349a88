"""The networks: parameter counts and shapes against the book and hand formulas, initialisation, padding, errors."""

import inspect
import re
from importlib import import_module
from math import sqrt
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
import yaml
from torch import nn
from toys import options, takes

from dlrun.config.build import of_runner
from dlrun.config.pairing import CONFIGS
from dlrun.errors import UserError
from dlrun.models.layers import (
    LocalResponseNorm,
    SameConv2d,
    activation,
    initialise,
    norm,
    same_max_pool,
    same_padding,
    window_means,
)
from dlrun.models.lenet import lenet
from dlrun.models.linear import linear
from dlrun.models.mlp import mlp
from dlrun.models.resnet import resnet
from dlrun.models.vgg import CONVOLUTIONS, vgg
from dlrun.spec import Image, Table
from dlrun.system.device import prepare_net

MNIST = Image((1, 28, 28), classes=10)
CIFAR = Image((3, 32, 32), classes=10)
MOONS = Table(features=2, classes=2)
MPG = Table(features=9, targets=1)
MODELS = [CONFIGS / "model" / f"{name}.yaml" for name in options("model") if takes(name) != ["Env"]]

MLP = dict(hidden=[256, 128], activation="relu", dropout=0.0, norm="none", init="torch")
LENET = dict(norm="none", init="torch")
VGG = dict(depth=11, width=64, head=[], norm="none", skip=False, dropout=0.0, init="torch")
HEAD = dict(pool="mean", head=[], head_dropout=0.5)
RESNET = HEAD | dict(
    depth=18, form="cifar", width=64, norm="batch", residual=True, zero_init_residual=False, init="torch"
)
NARROW = [  # a small net of each kind, with the specs that it should take
    (linear, dict(init="torch", bias=True), [MNIST, CIFAR, MOONS, MPG]),
    (mlp, MLP | dict(hidden=[16, 8]), [MNIST, CIFAR, MOONS, MPG]),
    (lenet, LENET, [MNIST, CIFAR, Image((1, 10, 10), 10), Image((3, 28, 36), 2)]),
    (vgg, VGG | dict(width=4), [MNIST, CIFAR, Image((1, 17, 17), 10), Image((3, 48, 70), 2)]),
    (resnet, RESNET | dict(width=4), [MNIST, CIFAR, Image((1, 8, 8), 10), Image((3, 37, 48), 2)]),
    (resnet, RESNET | dict(width=4, form="book"), [MNIST, CIFAR, Image((1, 8, 8), 10), Image((3, 37, 48), 2)]),
]


def on_meta(builder, spec, **keys):
    """The network on the meta device: shapes and counts without memory or time."""
    with torch.device("meta"):
        return builder(spec, **keys)


def count(net):
    return sum(p.numel() for p in net.parameters())


# Parameter counts


@pytest.mark.parametrize(
    ("spec", "hidden", "dropout", "params"),
    [
        (MNIST, [256, 128], 0.0, 235_146),  # chapter 3
        (MNIST, [256, 128, 64], 0.0, 242_762),  # 6.3
        (MNIST, [256, 256, 256], 0.0, 335_114),  # 10
        (MPG, [64, 64], 0.0, 4_865),  # 6.8
        (MOONS, [8], 0.0, 33),  # 9.8, depth
        (MOONS, [8, 32], 0.0, 345),
        (MOONS, [8, 32, 32], 0.0, 1_401),
        (MOONS, [8, 32, 32, 32], 0.0, 2_457),
        (MOONS, [8, 32, 32, 32, 32], 0.0, 3_513),
        (MOONS, [8] + 5 * [64], [0.0, 0.5, 0.5, 0.0, 0.0, 0.0], 17_305),  # 9.8, dropout
        (MOONS, [8] + 3 * [256], 0.0, 134_169),  # 9.8, L2
        (MOONS, [], 0.0, 3),
    ],
)
def test_mlp_has_the_books_parameters(spec, hidden, dropout, params):
    assert count(on_meta(mlp, spec, **MLP | dict(hidden=hidden, dropout=dropout))) == params


def test_mlp_layers_have_the_books_parameters():
    net = on_meta(mlp, MNIST, **MLP | dict(hidden=[256, 256, 256]))
    assert [count(layer) for layer in net if count(layer)] == [200_960, 65_792, 65_792, 2_570]  # table 10.1


def test_lenet_has_the_books_parameters():
    net = on_meta(lenet, MNIST, **LENET)
    assert [count(layer) for layer in net if count(layer)] == [60, 880, 48_120, 10_164, 850]  # table 10.3
    assert count(net) == 60_074
    assert count(on_meta(lenet, MNIST, norm="batch", init="torch")) == 60_074 + 2 * (6 + 16)


def test_linear_has_a_weight_per_pixel_and_class():
    assert count(on_meta(linear, MNIST, init="torch", bias=True)) == 7_850
    assert count(on_meta(linear, Table(features=1, targets=1), init="torch", bias=False)) == 1


@pytest.mark.parametrize(
    ("depth", "channels", "plain"),
    [
        (11, [64, 128, 256, 256, 512, 512, 512, 512], 9_225_610),
        (13, [64, 64, 128, 128, 256, 256, 512, 512, 512, 512], 9_410_122),
        (16, [64, 64, 128, 128] + 3 * [256] + 6 * [512], 14_719_818),
        (19, [64, 64, 128, 128] + 4 * [256] + 8 * [512], 20_029_514),
    ],
)
def test_vgg_parameters_by_the_formula(depth, channels, plain):
    assert len(channels) + 3 == depth == sum(CONVOLUTIONS[depth]) + 3
    convolutions = sum(9 * a * b + b for a, b in zip([3] + channels, channels, strict=False))
    assert convolutions + 512 * 10 + 10 == plain
    keys = VGG | dict(depth=depth)
    assert count(on_meta(vgg, CIFAR, **keys)) == plain
    assert count(on_meta(vgg, CIFAR, **keys | dict(norm="batch"))) == plain + 2 * sum(channels)


def test_vgg13_has_the_books_parameters():
    net = on_meta(vgg, CIFAR, **VGG | dict(depth=13, head=[256, 128]))
    assert sum(count(layer) for layer in net if isinstance(layer, nn.Conv2d)) == 9_404_992
    assert count(net) == 9_570_506


@pytest.mark.parametrize(("depth", "counts", "cifar", "book"), [
    (18, [2, 2, 2, 2], 11_173_962, 11_176_970),
    (34, [3, 4, 6, 3], 21_282_122, 21_288_842),
])  # fmt: skip
def test_resnet_parameters_by_the_formula(depth, counts, cifar, book):
    def total(bias, shortcut_norm):  # bias: 1 or 0 per channel of a convolution; a norm has 2 per channel
        params = 27 * 64 + 64 * (bias + 2) + 512 * 10 + 10
        features = 64
        for stage, blocks in enumerate(counts):
            size = 64 * 2**stage
            params += 9 * size * (features + (2 * blocks - 1) * size) + 2 * blocks * size * (bias + 2)
            params += size * (features + bias + 2 * shortcut_norm) if stage else 0
            features = size
        return params

    assert total(bias=0, shortcut_norm=1) == cifar
    assert count(on_meta(resnet, CIFAR, **RESNET | dict(depth=depth))) == cifar
    assert total(bias=1, shortcut_norm=0) == book
    net = on_meta(resnet, CIFAR, **RESNET | dict(depth=depth, form="book"))
    assert count(net) == book
    if depth == 18:
        running = [b.numel() for name, b in net.named_buffers() if "running" in name]
        assert sum(running) == 7_808


# Shapes


@pytest.mark.parametrize(("builder", "keys", "specs"), NARROW)
def test_networks_give_one_row_of_outputs_per_sample(builder, keys, specs):
    for spec in specs:
        net = builder(spec, **keys)
        out = net(torch.randn(3, *spec.shape))
        assert out.shape == (3, spec.outputs)
        out.square().sum().backward()
        assert all(p.grad is not None for p in net.parameters())
        assert net.eval()(torch.randn(1, *spec.shape)).shape == (1, spec.outputs)


@pytest.mark.parametrize("name", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize(("builder", "keys", "specs"), NARROW[1:])
def test_every_network_accepts_every_norm(builder, keys, specs, name):
    net = builder(CIFAR, **keys | dict(norm=name))
    assert net(torch.randn(2, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize(("builder", "keys", "specs"), NARROW[2:])
def test_only_networks_for_images_accept_instance_norm(builder, keys, specs):
    assert builder(CIFAR, **keys | dict(norm="instance"))(torch.randn(2, 3, 32, 32)).isfinite().all()
    with pytest.raises(UserError, match="norm=instance normalises over the positions of an image"):
        mlp(MNIST, **MLP | dict(norm="instance"))


@pytest.mark.parametrize(("form", "sizes"), [("book", [30, 30, 15, 8, 4]), ("cifar", [32, 32, 16, 8, 4])])
def test_resnet_map_sizes(form, sizes):
    net = resnet(CIFAR, **RESNET | dict(width=2, form=form))
    x, seen = torch.randn(1, 3, 32, 32), []
    for name, part in net.named_children():
        x = part(x)
        seen += [tuple(x.shape[2:])] if x.ndim == 4 else []
        assert name in ("pool", "head") or x.shape[2] == x.shape[3]
    assert seen == [(side, side) for side in sizes]


def test_vgg_halves_rounding_up_as_keras_does():
    x, seen = torch.randn(1, 1, 28, 28), []
    for layer in vgg(MNIST, **VGG | dict(width=1)):
        x = layer(x)
        seen += [x.shape[2]] if isinstance(layer, nn.MaxPool2d) else []
    assert seen == [14, 7, 4, 2, 1]


def test_mlp_drops_where_configured():
    net = mlp(MOONS, **MLP | dict(hidden=[8] + 5 * [64], dropout=[0.0, 0.5, 0.5, 0.0, 0.0, 0.0]))
    assert "".join(type(layer).__name__[0] for layer in net) == "FLRLRDLRDLRLRLRL"
    assert [type(layer).__name__ for layer in mlp(MOONS, **MLP | dict(hidden=[4], norm="batch", dropout=0.1))] == [
        *["Flatten", "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear"]
    ]


def test_vgg_drops_before_each_dense_layer():
    net = vgg(CIFAR, **VGG | dict(width=2, head=[8, 4], dropout=0.5))
    names = [type(layer).__name__ for layer in net]
    assert names[names.index("Flatten") + 1 :] == 2 * ["Dropout", "Linear", "ReLU"] + ["Dropout", "Linear"]


# Padding and pooling


def test_same_max_pool_pads_right_and_bottom():
    x = torch.tensor([[[[1.0, 5, 2], [0, -1, 3], [4, -2, -3]]]])
    assert same_max_pool()(x).tolist() == [[[[5, 5, 3], [4, 3, 3], [4, -2, -3]]]]  # -3 stands: no zero was padded


def test_same_convolution_samples_as_keras_does():
    conv = SameConv2d(1, 1, 3, stride=2, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert conv(x).tolist() == [[[[45, 39], [66, 50]]]]  # windows from (0, 0), (0, 2), (2, 0), (2, 2)
    x = torch.arange(25.0).view(1, 1, 5, 5)
    assert torch.equal(conv(x), nn.functional.conv2d(x, conv.weight, stride=2, padding=1))  # an odd size is symmetric


@pytest.mark.parametrize(("size", "kernel", "stride", "pads"), [
    (5, 3, 1, (1, 1)), (5, 3, 3, (0, 1)), (30, 3, 2, (0, 1)), (15, 3, 2, (1, 1)), (8, 3, 2, (0, 1)), (30, 1, 2, (0, 0)),
    (5, 4, 1, (1, 2)),
])  # fmt: skip
def test_same_padding(size, kernel, stride, pads):
    assert same_padding(size, kernel, stride) == pads
    assert (size + sum(pads) - kernel) // stride + 1 == -(-size // stride)  # the book, section 10.3


def test_convolution_shapes_of_the_book():
    x = torch.randn(2, 3, 5, 5)
    shapes = [
        (nn.Conv2d(3, 4, 3), (3, 3)),
        (nn.Conv2d(3, 4, 3, padding=1), (5, 5)),
        (SameConv2d(3, 4, 3), (5, 5)),
        (SameConv2d(3, 4, 3, stride=3), (2, 2)),
        (SameConv2d(3, 4, (3, 4), stride=(2, 1)), (3, 5)),
        (SameConv2d(3, 4, 3, dilation=2), (5, 5)),
    ]
    assert [tuple(layer(x).shape) for layer, _ in shapes] == [(2, 4, *size) for _, size in shapes]
    assert nn.Conv2d(1, 1, 3, dilation=2)(torch.randn(1, 1, 7, 7)).shape == (1, 1, 3, 3)


def test_transposed_and_separable_convolutions_of_the_book():
    w = torch.tensor([[[[-1.0, 2, -3], [4, -5, 6], [-7, 8, -9]]]])
    out = nn.functional.conv2d(torch.arange(1.0, 26).view(1, 1, 5, 5), w, stride=2)
    assert out.tolist() == [[[[-67, -77], [-117, -127]]]]
    back = nn.functional.conv_transpose2d(out, w, stride=2)[0, 0]  # (2 - 1) * 2 + 3 = 5
    assert back.shape == (5, 5) and back[0, :3].tolist() == [67, -134, 278] and back[4, 4] == 1143
    out = nn.functional.conv2d(torch.arange(1.0, 17).view(1, 1, 4, 4), w)
    assert out.tolist() == [[[[-56, -61], [-76, -81]]]]
    separable = [nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.Conv2d(3, 4, 1, bias=False)]
    assert count(nn.Conv2d(3, 4, 3, bias=False)) == 108 and sum(count(part) for part in separable) == 27 + 12


# Activations, normalisation, initialisation


def test_activations_give_the_books_numbers():
    x = torch.linspace(-6, 6, 10)
    sigmoid = [0.00247264, 0.00931597, 0.03444517, 0.11920291, 0.33924365]
    sigmoid += [0.6607564, 0.8807971, 0.96555483, 0.99068403, 0.9975274]
    torch.testing.assert_close(activation("sigmoid")(x), torch.tensor(sigmoid), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(activation("relu")(x), torch.tensor([max(v, 0.0) for v in x.tolist()]))
    torch.testing.assert_close(activation("leaky_relu")(x)[0], torch.tensor(-0.06))
    torch.testing.assert_close(activation("tanh")(x), 2 * activation("sigmoid")(2 * x) - 1)
    torch.testing.assert_close(activation("silu")(x), x * activation("sigmoid")(x))
    torch.testing.assert_close(activation("elu")(x[:5]), x[:5].exp() - 1)
    torch.testing.assert_close(activation("gelu")(x), x * (1 + torch.erf(x / sqrt(2))) / 2)


@pytest.mark.parametrize(("name", "axes"), [("batch", (0, 2, 3)), ("layer", (1, 2, 3)), ("instance", (2, 3))])
def test_norm_takes_its_statistics_over_its_axes(name, axes):
    out = norm(name, 6, ndim=2)(5 + 3 * torch.randn(4, 6, 8, 8) * torch.arange(1.0, 7).view(1, 6, 1, 1))
    torch.testing.assert_close(out.mean(axes), torch.zeros_like(out.mean(axes)), rtol=0, atol=1e-5)
    torch.testing.assert_close(out.var(axes, correction=0), torch.ones_like(out.mean(axes)), rtol=0, atol=1e-3)


def test_norms_suit_their_channels():
    assert norm("batch", 3, ndim=2).running_mean.shape == (3,)  # the book, section 10.8: one mean per channel
    assert norm("batch", 3, ndim=0)(torch.randn(5, 3)).shape == (5, 3)
    assert norm("layer", 3, ndim=0).normalized_shape == (3,)
    groups = {channels: norm("group", channels, ndim=2).num_groups for channels in (1, 6, 7, 16, 64, 512)}
    assert groups == {1: 1, 6: 3, 7: 1, 16: 8, 64: 32, 512: 32}
    assert isinstance(norm("none", 3, ndim=2), nn.Identity)


@pytest.mark.parametrize(("layer", "fan_in", "fan_out"), [
    (nn.Linear(300, 200), 300, 200), (nn.Conv2d(32, 64, 3), 288, 576), (SameConv2d(32, 64, 3), 288, 576),
])  # fmt: skip
def test_init_statistics(layer, fan_in, fan_out):
    torch.manual_seed(0)
    bound = sqrt(6 / (fan_in + fan_out))
    nn.init.ones_(layer.bias)
    assert initialise(layer, "keras") is layer
    assert bound * 0.99 < layer.weight.abs().max() <= bound
    stds = {"keras": bound / sqrt(3), "xavier": sqrt(2 / (fan_in + fan_out))}
    stds["kaiming"] = sqrt(2 / (fan_in if isinstance(layer, nn.Linear) else fan_out))
    for init, std in stds.items():
        initialise(layer, init)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
        assert layer.weight.mean().item() == pytest.approx(0, abs=0.03 * std)
        assert not layer.bias.any()
    rows = initialise(layer, "orthogonal").weight.flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), rtol=0, atol=1e-5)
    assert not initialise(layer, "zeros").weight.any()


@pytest.mark.parametrize("init", ["keras", "kaiming", "xavier", "orthogonal"])
@pytest.mark.parametrize(("builder", "keys", "specs"), NARROW)
def test_init_changes_every_layer_but_the_norms(builder, keys, specs, init):
    net = builder(specs[0], **keys | dict(init=init))
    for layer in net.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            assert layer.weight.any() and (layer.bias is None or not layer.bias.any())
        elif isinstance(layer, nn.BatchNorm2d):
            assert (layer.weight == 1).all() and not layer.bias.any()


def test_torch_init_is_left_as_it_was():
    layer = nn.Linear(4, 4)
    before = layer.weight.clone()
    assert torch.equal(initialise(layer, "torch").weight, before)


def test_linear_starts_from_zero():
    net = linear(MPG, init="zeros", bias=True)
    assert not net(torch.randn(2, 9)).any()


def test_zero_init_residual_makes_blocks_identities_at_the_start():
    net = resnet(CIFAR, **RESNET | dict(width=4, zero_init_residual=True, init="kaiming"))
    x = net.stem(torch.randn(2, 3, 32, 32))
    assert torch.equal(net.stage1(x), x)


# Errors


def refused(builder, spec, **keys):
    with pytest.raises(UserError) as error:
        builder(spec, **keys)
    return str(error.value)


def test_lenet_refuses_small_images():
    assert refused(lenet, Image((1, 8, 9), classes=10), **LENET) == (
        "lenet cannot take images of 8x9: its two 3x3 convolutions and two poolings need at least 10x10; "
        "choose data with larger images, or another model (model=mlp, model=resnet18)"
    )
    assert "images of 28x9" in refused(lenet, Image((1, 28, 9), classes=10), **LENET)


def test_mlp_refuses_a_dropout_list_of_the_wrong_length():
    assert refused(mlp, MOONS, **MLP | dict(hidden=[8, 32, 32], dropout=[0.5, 0.5])) == (
        "model.dropout has 2 numbers [0.5, 0.5] for 3 hidden layers [8, 32, 32]; expected one number for all, "
        "or one per hidden layer: write 3 numbers, with 0.0 for layers without dropout"
    )


def test_resnet_refuses_settings_that_do_not_fit():
    text = refused(resnet, CIFAR, **RESNET | dict(norm="none", zero_init_residual=True))
    assert text.startswith("model.zero_init_residual=true") and "model.norm=batch" in text
    text = refused(resnet, Image((1, 2, 8), classes=10), **RESNET | dict(form="book"))
    assert "images of 2x8" in text and "at least 3x3" in text and "model.form=cifar" in text


def test_instance_norm_refuses_maps_of_one_pixel():
    keys = RESNET | dict(width=2, norm="instance")
    assert "last feature maps are 1x1" in refused(resnet, Image((1, 8, 8), classes=10), **keys)
    resnet(Image((1, 8, 9), classes=10), **keys)(torch.randn(2, 1, 8, 9))


def test_unknown_names_are_reported_with_the_nearest():
    for build, text in [
        (lambda: activation("rellu"), "activation='rellu' is not known; expected one of relu, leaky_relu, tanh"),
        (lambda: norm("bach", 3, ndim=2), "norm='bach' is not known; expected one of none, batch, layer"),
        (lambda: initialise(nn.Linear(1, 1), "kera"), "init='kera' is not known; expected one of torch, keras"),
    ]:
        with pytest.raises(UserError, match="; did you mean") as error:
            build()
        assert str(error.value).startswith(text)


# Configs


def targets(node):
    """Every mapping under `node` that names a target."""
    if isinstance(node, dict):
        yield from [node] if "_target_" in node else []
        for value in node.values():
            yield from targets(value)


@pytest.mark.parametrize(("width", "channels_last"), [(8, False), (16, True)])
def test_layers_avoid_the_memory_format_that_overflows_on_a_cpu(width, channels_last):
    """Strided 1x1 convolutions of few channels, which crash on images of 112x112."""
    net = resnet(CIFAR, **RESNET | dict(width=width))
    assert prepare_net(net, torch.device("cpu"), "fp32").channels_last == channels_last
    first = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    assert first.weight.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_no_network_uses_pooling_that_cuda_cannot_do_deterministically():
    """Like torch's adaptive average pooling, except for the last place of the gradient."""
    for path in (Path(inspect.getfile(mlp)).parent).glob("*.py"):
        refused = r"nn\.AdaptiveAvgPool2d\((?!1\))|nn\.LocalResponseNorm"
        assert path.stem == "layers" or not re.search(refused, path.read_text()), path


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_normalisation_over_channels_equals_torchs(layout):
    x = torch.randn(2, 7, 3, 5, dtype=torch.float64).mul(50).to(memory_format=layout).requires_grad_()
    found, expected = LocalResponseNorm()(x), nn.LocalResponseNorm(5)(x)
    torch.testing.assert_close(found, expected)
    weights = torch.randn_like(found)
    torch.testing.assert_close(*(torch.autograd.grad((out * weights).sum(), x) for out in (found, expected)))


@pytest.mark.parametrize(("size", "count"), [(14, 4), (7, 7), (5, 6), (1, 3), (12, 4)])
def test_means_of_windows_equal_adaptive_pooling(size, count):
    """Pooling for deterministic GPUs: the same values, the same gradients."""
    x = torch.randn(2, 3, size, size + 1, dtype=torch.float64, requires_grad=True)
    pooled = window_means(window_means(x, count, -2), count, -1)
    expected = F.adaptive_avg_pool2d(x, count)
    torch.testing.assert_close(pooled, expected)
    weights = torch.randn_like(pooled)
    torch.testing.assert_close(*(torch.autograd.grad((out * weights).sum(), x) for out in (pooled, expected)))


def test_every_model_config_states_every_key_once():
    """A model config names its network under `model:` and states each of its keys, which have no defaults in code."""
    wrong = []
    for path in MODELS:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = list(targets(config.get("model")))
        wrong += [] if found else [f"{path.stem}: no network under `model:`"]
        for node in found:
            module, _, name = node["_target_"].rpartition(".")
            parameters = inspect.signature(getattr(import_module(module), name)).parameters.values()
            keywords = {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}
            runners = set(of_runner(node)) if node is config["model"] else set()
            stated = {key for key in node if not key.startswith("_")} - runners
            wrong += [f"{path.stem}: {key} is stated or taken, not both" for key in stated ^ keywords.keys()]
            wrong += [
                f"{name}: {key} has a default"
                for key, value in keywords.items()
                if value is not inspect.Parameter.empty
            ]
    assert len(MODELS) > 40 and not wrong, "\n".join(["", *wrong])


@pytest.mark.parametrize(
    ("name", "spec", "params"),
    [
        ("linear", MNIST, 7_850),
        ("mlp", MNIST, 235_146),
        ("lenet", MNIST, 60_074),
        ("vgg11", CIFAR, 9_231_114),
        ("vgg13", CIFAR, 9_416_010),
        ("vgg16", CIFAR, 14_728_266),
        ("vgg19", CIFAR, 20_040_522),
        ("resnet18", CIFAR, 11_173_962),
        ("resnet34", CIFAR, 21_282_122),
    ],
)
def test_model_config_builds_the_net_of_its_header(name, spec, params):
    text = next(path for path in MODELS if path.stem == name).read_text(encoding="utf-8")
    keys = yaml.safe_load(text)["model"]
    keys = {key: value for key, value in keys.items() if key not in of_runner(keys)}
    module, _, builder = keys.pop("_target_").rpartition(".")
    net = on_meta(getattr(import_module(module), builder), spec, **keys)
    assert count(net) == params
    assert name == "linear" or f"{params:,}" in text
