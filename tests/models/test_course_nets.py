"""Networks of the course: published parameters, and what each does in closed form."""

import pytest
import torch
import torch.nn.functional as F
from test_classic_nets import HEAD, count, on_meta
from test_rnn import VECTORS
from torch import nn
from toys import seeded

from dlrun.errors import UserError
from dlrun.models.dense_per_word import dense_per_word
from dlrun.models.embedding import Embed
from dlrun.models.lenet_original import TABLE, Distances, ScaledTanh, Subsample, TableConv, lenet_original
from dlrun.models.resnet import Block, resnet
from dlrun.models.vgg import Skip, vgg
from dlrun.spec import Image, Tokens

IMAGENET, CIFAR, MNIST = Image((3, 224, 224), 1000), Image((3, 32, 32), 10), Image((1, 28, 28), 10)
RESNET = HEAD | dict(
    depth=34, form="cifar", width=2, norm="batch", residual=False, zero_init_residual=False, init="torch"
)


def test_xception_has_the_published_parameters():
    """Keras's 22,910,480 less 54,528 running statistics."""
    assert count(on_meta("xception", IMAGENET)) == 22_855_952
    assert count(on_meta("xception", CIFAR)) == 20_827_442
    net = on_meta("xception", CIFAR, width=8, middle=1, norm="none")
    maps = net.blocks(net.stem(torch.empty(2, 3, 32, 32, device="meta")))
    assert maps.shape == (2, 256, 2, 2)


def test_lenet_of_1998_has_the_papers_parameters():
    """Section II.B: C1 156, S2 12, C3 1,516, S4 32, C5 48,120, F6 10,164; and the 10 centres of 84 numbers."""
    layers = [layer for layer in lenet_original(MNIST) if list(layer.parameters())]
    assert [count(layer) for layer in layers] == [156, 12, 1516, 32, 48_120, 10_164, 840]
    assert [len(seen) for seen in TABLE] == 6 * [3] + 9 * [4] + [6]
    assert lenet_original(MNIST)(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert lenet_original(Image((3, 40, 50), 2))(torch.zeros(2, 3, 40, 50)).shape == (2, 1)


def test_layers_of_the_lenet_of_1998_follow_the_paper():
    x = torch.arange(16.0).view(1, 1, 4, 4)
    pool = Subsample(1)
    torch.testing.assert_close(pool(x), F.avg_pool2d(x, 2), msg="it starts as the mean")
    with torch.no_grad():
        pool.weight.fill_(1.0), pool.bias.fill_(3.0)
    assert pool(x)[0, 0, 0, 0] == 0 + 1 + 4 + 5 + 3
    assert ScaledTanh()(torch.tensor([1.0, -1.0])) == pytest.approx(torch.tensor([1.0, -1.0]), abs=1e-4)
    layer = Distances(3, 2)
    with torch.no_grad():
        layer.centres.copy_(torch.tensor([[0.0, 0, 0], [1, 2, 2]]))
    assert layer(torch.zeros(1, 3))[0].tolist() == [-9], "of two classes the logit of the second"
    layer.centres = nn.Parameter(torch.eye(3))
    assert layer(torch.zeros(1, 3))[0].tolist() == [-1, -1, -1]
    with seeded():
        conv, image = TableConv(), torch.randn(1, 6, 9, 9)
    before = conv(image)
    image[:, 3] += 1  # the map of S2 with the number 3
    changed = (conv(image) - before).abs().amax((0, 2, 3)) > 1e-6
    assert changed.tolist() == [3 in seen for seen in TABLE]


def test_plain_nets_have_no_shortcuts():
    """The same convolutions and nothing beside them: a block whose second norm gives 0 gives 0."""
    net, residual = resnet(CIFAR, **RESNET), resnet(CIFAR, **RESNET | dict(residual=True))
    with_shortcut = sum(count(block.shortcut) for block in residual.modules() if isinstance(block, Block))
    assert with_shortcut > 0 and count(net) == count(residual) - with_shortcut
    x = torch.randn(2, 4, 8, 8)
    for shortcuts in (False, True):
        block = Block(4, 4, 1, form="cifar", norm="batch", residual=shortcuts)
        nn.init.zeros_(block.norm2.weight)
        assert torch.equal(block(x), x.relu() if shortcuts else torch.zeros_like(x))
    for keys in (dict(form="imagenet"), dict(depth=50), dict(zero_init_residual=True)):
        with pytest.raises(UserError, match="the plain nets that there are"):
            resnet(CIFAR, **RESNET | keys)


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_shortcut_skips_the_last_convolutions(norm):
    keys = dict(depth=13, width=2, head=[], norm=norm, skip=True, dropout=0.0, init="torch")
    net, plain = vgg(CIFAR, **keys), vgg(CIFAR, **keys | dict(skip=False))
    assert count(net) == count(plain)
    (skip,) = (layer for layer in net if isinstance(layer, Skip))
    assert [layer for layer in net if isinstance(layer, nn.MaxPool2d)][-1] is net[list(net).index(skip) + 1]
    convolutions = [layer for layer in skip if isinstance(layer, nn.Conv2d)]
    assert len(convolutions) == 2 and all(layer.in_channels == layer.out_channels == 16 for layer in convolutions)
    for layer in convolutions:
        nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    x = torch.randn(2, 16, 2, 2)
    assert torch.equal(skip(x), x)


@pytest.mark.parametrize(("shared", "params"), [(False, 1_517_185), (True, 1_006_529)])
def test_a_shared_dense_layer_cannot_know_the_order(shared, params):
    """The book, section 11.2."""
    spec = Tokens(80, 10_000, 2)
    with seeded():
        net = dense_per_word(spec, embedding=Embed(**VECTORS | dict(size=100)), units=64, shared=shared, init="keras")
        tokens = torch.randint(4, 10_000, (3, 80))
    assert count(net) == params
    out, mixed = net(tokens), net(tokens.flip(1))
    assert out.shape == (3, 1) and torch.allclose(out, mixed, atol=1e-6) == shared
    if not shared:
        x = net.embedding(tokens)
        by_hand = torch.stack([x[:, k] @ net.layer.weight[k].T + net.layer.bias[k] for k in range(80)], 1)
        torch.testing.assert_close(net.output(by_hand.relu().mean(1)), out)
