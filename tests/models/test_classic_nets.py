"""The classic nets: names, shapes and counts as published, the smallest images they take, depthwise convolutions.

The digests are of lines "name 64x3x11x11" of torchvision 0.28.0, of `torchvision.models.<net>().state_dict()` in its
order; docs/LOG.md says how they were made, and that both give the same outputs to the bit.
"""

from hashlib import sha256
from math import sqrt

import pytest
import torch
from torch import nn
from toys import section, seeded

from dlrun.config.build import build
from dlrun.config.pairing import CONFIGS
from dlrun.errors import UserError
from dlrun.models.alexnet import alexnet
from dlrun.models.densenet import densenet
from dlrun.models.googlenet import googlenet
from dlrun.models.layers import initialise, separable_conv
from dlrun.models.mobilenet import mobilenet
from dlrun.models.resnet import resnet
from dlrun.models.vgg import vgg, vgg_imagenet
from dlrun.spec import Image

IMAGENET = Image((3, 224, 224), classes=1000)
CIFAR = Image((3, 32, 32), classes=10)
PAPER = dict(form="imagenet")
PUBLISHED = {  # model, its keys, parameters, entries of the state_dict, digest of their names and shapes
    "alexnet": ("alexnet", {}, 61_100_840, 16, "652561eca6d7c62b"),
    "vgg11_bn": ("vgg16_imagenet", dict(depth=11, norm="batch"), 132_868_840, 62, "408a42f4d768960d"),
    "vgg16": ("vgg16_imagenet", {}, 138_357_544, 32, "390ecfd46b10e2b3"),
    "vgg19": ("vgg19_imagenet", {}, 143_667_240, 38, "44b0baff14322d40"),
    "googlenet": ("googlenet", dict(auxiliary=0.0), 6_624_904, 344, "131dd183a9447b5f"),
    "googlenet with its heads": ("googlenet", {}, 13_004_888, 364, "d8522588c4d43a0b"),
    "resnet18": ("resnet18", PAPER, 11_689_512, 122, "621ab29f1ec64cb2"),
    "resnet34": ("resnet34", PAPER, 21_797_672, 218, "9d355f275ed1e918"),
    "resnet50": ("resnet50", {}, 25_557_032, 320, "f597b4313ecfa833"),
    "resnet101": ("resnet101", {}, 44_549_160, 626, "a5bd882403866198"),
    "densenet121": ("densenet121", {}, 7_978_856, 727, "0249837190bf1db0"),
}
NAMES = {  # in words for people
    "alexnet": {"features.0.weight": (64, 3, 11, 11), "classifier.1.weight": (4096, 9216)},
    "vgg16": {"features.28.weight": (512, 512, 3, 3), "classifier.6.bias": (1000,)},
    "googlenet": {"inception4e.branch3.1.conv.weight": (128, 32, 3, 3), "conv1.bn.running_var": (64,)},
    "resnet18": {"layer4.0.downsample.1.weight": (512,), "layer1.1.conv2.weight": (64, 64, 3, 3)},
    "resnet50": {"layer1.0.downsample.0.weight": (256, 64, 1, 1), "fc.weight": (1000, 2048)},
    "densenet121": {"features.denseblock4.denselayer16.conv2.weight": (32, 128, 3, 3), "features.norm5.bias": (1024,)},
}
CIFAR_FORM = dict(form="cifar")


def on_meta(model, spec, **keys):
    with torch.device("meta"):
        return build(section("model", model) | keys)(spec)


def count(net):
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_equal_those_of_torchvision(name):
    model, keys, params, entries, digest = PUBLISHED[name]
    net = on_meta(model, IMAGENET, **keys)
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert (count(net), len(shapes)) == (params, entries)
    assert NAMES.get(name, {}).items() <= shapes.items()
    lines = "".join(f"{key} {'x'.join(map(str, shape))}\n" for key, shape in shapes.items())
    assert sha256(lines.encode()).hexdigest()[:16] == digest
    header = (CONFIGS / "model" / f"{model}.yaml").read_text(encoding="utf-8")
    assert "depth" in keys or f"{params:,}" in header


def test_googlenet_has_the_papers_parameters():
    """As in Caffe's bvlc_googlenet, which follows the paper; in training its heads are two more dense networks."""
    paper = dict(form="paper", norm="none")
    assert count(on_meta("googlenet", IMAGENET, **paper)) == 13_378_280
    assert count(on_meta("googlenet", IMAGENET, **paper, auxiliary=0.0)) == 6_998_552
    net = on_meta("googlenet", IMAGENET, **paper)
    assert list(dict(net.named_children()))[:7] == ["conv1", "maxpool1", "norm1", "conv2", "conv3", "norm2", "maxpool2"]
    halving = [(m.kernel_size, m.stride) for name, m in net.named_children() if name.startswith("maxpool")]
    assert halving == [(3, 2)] * 4, "table 1"
    windows = {m.kernel_size for name, m in net.named_modules() if name.endswith("branch3.1.conv")}
    assert windows == {(5, 5)}


def test_googlenet_in_the_papers_form_has_gradients_at_the_start():
    """With the init of the header, outputs have a useful size, and the gradients of the heads reach the stem."""
    keys = section("model", "googlenet") | dict(form="paper", norm="none", init="xavier", dropout=0.0)
    with seeded():
        net = build(keys)(Image((3, 64, 64), 5))
        outs = net(torch.randn(4, 3, 64, 64))
    assert all(1e-4 < out.std() < 10 for out in outs)
    reach = [torch.autograd.grad(out.sum(), net.conv1.conv.weight, retain_graph=True)[0].norm() for out in outs]
    assert min(reach) > 0


def test_googlenet_returns_auxiliary_outputs_in_training_only():
    with seeded():
        keys = section("model", "googlenet") | dict(width=4)
        net = build(keys)(Image((3, 64, 64), 5))
        x = torch.randn(2, 3, 64, 64)
        assert [tuple(out.shape) for out in net(x)] == [(2, 5)] * 3
        assert net.eval()(x).shape == (2, 5)
        assert build(keys | dict(form="cifar"))(Image((3, 64, 64), 5))(x).shape == (2, 5)


def test_mobilenet_has_the_published_parameters():
    assert count(on_meta("mobilenet", IMAGENET)) == 4_231_976  # Keras's 4,253,864 less 21,888 running statistics
    assert count(on_meta("mobilenet", IMAGENET, width=16)) == 1_331_592  # the paper's table 6: 1.3 million


@pytest.mark.thorough(but=["resnet50-keys1-23520842"])
@pytest.mark.parametrize(
    ("model", "keys", "params"),
    [
        ("alexnet", dict(head=[]), 2_472_266),
        ("resnet50", {}, 23_520_842),
        ("resnet101", {}, 42_512_970),
        ("densenet121", {}, 6_956_298),
        ("mobilenet", {}, 3_217_226),
    ],
)
def test_forms_for_small_images_have_the_usual_number_of_parameters(model, keys, params):
    """kuangliu/pytorch-cifar; bearpaw/pytorch-classification for AlexNet."""
    assert count(on_meta(model, CIFAR, **CIFAR_FORM, **keys)) == params


# Sizes

KEYS = dict(norm="none", init="torch")
HEAD = dict(pool="mean", head=[], head_dropout=0.5)
RESNET = KEYS | HEAD | dict(width=2, residual=True, zero_init_residual=False)
VGG = KEYS | dict(pool="grid", dropout=0.0)
DENSENET = KEYS | HEAD | dict(depth=121, growth=2, dropout=0.0)
INCEPTION = KEYS | dict(width=8, dropout=0.0, auxiliary=None)
SMALLEST = [  # builder, keys, least side, what the error names, what it advises
    (alexnet, dict(form="imagenet", width=2, head=[4], dropout=0.0, init="torch"), 63, "alexnet", "model.form=cifar"),
    (alexnet, dict(form="cifar", width=2, head=[], dropout=0.0, init="torch"), 29, "alexnet", "model=lenet"),
    (
        vgg,
        KEYS | dict(depth=11, width=2, head=[], dropout=0.0, skip=False),
        17,
        "vgg11",
        "another model (model=resnet18",
    ),
    (vgg_imagenet, VGG | dict(depth=16, width=2, head=[4]), 32, "vgg16_imagenet", "model=vgg16 "),
    (googlenet, INCEPTION | dict(form="imagenet"), 31, "googlenet", "model.form=cifar"),
    (googlenet, INCEPTION | dict(form="paper"), 31, "googlenet", "model.form=cifar"),
    (googlenet, INCEPTION | dict(form="cifar"), 3, "googlenet", "model=lenet"),
    (resnet, RESNET | dict(form="imagenet", depth=18), 17, "resnet18", "model.form=cifar"),
    (resnet, RESNET | dict(form="imagenet", depth=50), 17, "resnet50", "model.form=cifar"),
    (resnet, RESNET | dict(form="cifar", depth=50), 5, "resnet50", "model=lenet"),
    (densenet, DENSENET | dict(form="imagenet"), 29, "densenet121", "model.form=cifar"),
    (densenet, DENSENET | dict(form="cifar"), 8, "densenet121", "model=resnet18"),
    (mobilenet, KEYS | dict(form="imagenet", width=2, dropout=0.0), 17, "mobilenet", "model.form=cifar"),
    (mobilenet, KEYS | dict(form="cifar", width=2, dropout=0.0), 9, "mobilenet", "model=resnet18"),
]
CASES = [f"{name} {keys.get('form', '')}" for _, keys, _, name, _ in SMALLEST]


def halved_sides(net, side):
    """The shorter side of the maps before and after each layer that halves."""
    found, hooks = [], []
    for layer in net.modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)) and layer.stride not in (1, (1, 1)):
            note = lambda _, x, out: found.append((x[0].shape[2], out.shape[2]))  # noqa: E731
            hooks.append(layer.register_forward_hook(note))
    net.eval()(torch.zeros(1, 1, side, side, device="meta"))
    return found


@pytest.mark.parametrize(("builder", "keys", "least", "name", "advice"), SMALLEST, ids=CASES)
def test_the_smallest_image_is_accepted_and_smaller_ones_are_refused(builder, keys, least, name, advice):
    """Every layer that halves can halve it; one pixel less on any side is refused by name."""
    with torch.device("meta"):
        net = builder(Image((1, least, least), 3), **keys)
    sides = halved_sides(net, least)
    assert sides and all(before > after >= 1 for before, after in sides), sides
    for shape in ((least - 1, 500), (500, least - 1)):
        with pytest.raises(UserError) as error:
            builder(Image((1, *shape), 3), **keys)
        message = str(error.value)
        assert message.startswith(
            f"{name} cannot take images of {'x'.join(map(str, shape))}: nothing would be left of them before"
        )
        assert f"expected at least {least}x{least}: choose data with larger images, or {advice}" in message


@pytest.mark.parametrize(("builder", "keys", "least", "name", "advice"), SMALLEST, ids=CASES)
def test_networks_accept_larger_and_oblong_images_and_learn(builder, keys, least, name, advice):
    spec = Image((2, least + 3, least + 10), 5)
    with seeded():
        net = builder(spec, **keys)
        out = net(torch.randn(2, *spec.shape))
    outs = out if isinstance(out, tuple) else (out,)
    assert all(out.shape == (2, 5) for out in outs)
    sum(out.square().sum() for out in outs).backward()
    assert all(p.grad is not None for p in net.parameters())


def test_the_books_resnets_have_no_bottlenecks():
    with pytest.raises(UserError, match="model.form=book with model.depth=50: the book has depths 18 and 34; expected"):
        resnet(CIFAR, **RESNET | dict(form="book", depth=50))


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "instance"])
@pytest.mark.parametrize("model", ["googlenet", "resnet50", "densenet121", "mobilenet"])
def test_networks_accept_every_norm(model, norm):
    small = {"growth": 4} if model == "densenet121" else {"width": 8}
    with seeded():
        net = build(section("model", model) | small | dict(form="cifar", norm=norm))(CIFAR)
        assert net(torch.randn(2, 3, 32, 32)).isfinite().all()


@pytest.mark.parametrize(
    ("model", "small", "side"),
    [("resnet50", {"width": 8}, 8), ("densenet121", {"growth": 4}, 8), ("mobilenet", {"width": 8}, 16)],
)
def test_instance_norm_of_maps_of_one_pixel_is_refused(model, small, side):
    with pytest.raises(UserError, match="last feature maps are 1x1"):
        build(section("model", model) | small | dict(form="cifar", norm="instance"))(Image((1, side, side), 3))


def test_zero_init_residual_makes_bottlenecks_identities_at_the_start():
    keys = RESNET | dict(depth=50, form="cifar", norm="batch", zero_init_residual=True, init="kaiming")
    with seeded():
        net = resnet(CIFAR, **keys)
        x = torch.rand(2, 8, 8, 8)
    block = net.layer1[1]
    assert torch.equal(block(x), x)


# Depthwise separable convolutions


def test_a_separable_convolution_equals_two_convolutions():
    layer = separable_conv(3, 4, 3, stride=2)
    weights = {name: tuple(p.shape) for name, p in layer.named_parameters()}
    assert weights == {
        "depthwise.weight": (3, 1, 3, 3),
        "pointwise.weight": (4, 3, 1, 1),
        "pointwise.bias": (4,),
    }
    assert count(layer) - 4 == 27 + 12  # the book, section 10.11
    x = torch.randn(2, 3, 7, 10)
    by_channel = [
        nn.functional.conv2d(x[:, c : c + 1], layer.depthwise.weight[c : c + 1], None, 2, 1) for c in range(3)
    ]
    mixed = torch.einsum("bchw,oc->bohw", torch.cat(by_channel, 1), layer.pointwise.weight[:, :, 0, 0])
    assert layer(x).shape == (2, 4, 4, 5)
    torch.testing.assert_close(layer(x), mixed + layer.pointwise.bias.view(1, -1, 1, 1))
    names = list(dict(separable_conv(3, 4, 3, norm="batch", act="relu").named_children()))
    assert names == ["depthwise", "norm1", "act1", "pointwise", "norm2", "act2"]


@pytest.mark.parametrize("init", ["keras", "kaiming", "xavier", "orthogonal"])
def test_each_channel_of_a_depthwise_convolution_is_initialised_as_a_layer(init):
    with seeded():
        layer = initialise(nn.Conv2d(2000, 2000, 3, groups=2000), init)
    std = {"keras": sqrt(2 / 18), "xavier": sqrt(2 / 18), "kaiming": sqrt(2 / 9), "orthogonal": sqrt(1 / 9)}[init]
    assert layer.weight.std().item() == pytest.approx(std, rel=0.03)
    assert not layer.bias.any()
