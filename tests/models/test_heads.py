"""Heads of networks for transfer: the book's parameters, the order of layers, pooling, which layers are the head."""

import pytest
import torch
from test_classic_nets import count, on_meta
from torch import nn
from toys import seeded

from dlrun.models.heads import GlobalMaxPool, Head, dense_head
from dlrun.models.options import options_of
from dlrun.spec import Image
from dlrun.tasks.recipe.freezing import matching

POKEMON = Image((3, 224, 224), classes=5)
BOOKS = dict(pool="max", head=[1024])


def head_of(net: nn.Module) -> dict[str, nn.Parameter]:
    names = matching(dict(net.named_parameters()), "head", "", options_of(net).BACKBONE)
    return {name: param for name, param in net.named_parameters() if name in names}


@pytest.mark.parametrize(
    ("model", "keys", "features"),
    [
        ("densenet121", {}, 1024), ("resnet50", {}, 2048), ("resnet18", {"form": "imagenet"}, 512),
        ("resnet18", {"form": "cifar"}, 512), ("resnet34", {"form": "book"}, 512),
    ],
)  # fmt: skip
def test_the_books_head_is_what_learns_below_a_frozen_backbone(model, keys, features):
    """The book, section 15.4: 1,056,773 trainable parameters of DenseNet121."""
    net, plain = on_meta(model, POKEMON, **BOOKS | keys), on_meta(model, POKEMON, **keys)
    expected = (features + 1) * 1024 + 2 * 1024 + 1025 * 5
    assert sum(param.numel() for param in head_of(net).values()) == expected
    assert sum(param.numel() for param in head_of(plain).values()) == (features + 1) * 5
    assert count(net) - count(plain) == expected - (features + 1) * 5
    assert expected == 1_056_773 or model != "densenet121"


def test_a_head_has_relu_norm_and_dropout_after_each_hidden_layer():
    kinds = [type(layer) for layer in dense_head(4, 3, "batch", Head("max", [8, 6], 0.5))]
    hidden = [nn.Linear, nn.ReLU, nn.BatchNorm1d, nn.Dropout]
    assert kinds == [*hidden, *hidden, nn.Linear]
    assert isinstance(dense_head(4, 3, "batch", Head("mean", [], 0.5)), nn.Linear), "the names of published weights"


def test_max_pooling_takes_the_largest_value_of_a_map():
    with seeded():
        x = torch.randn(2, 3, 5, 4, requires_grad=True)
    out = GlobalMaxPool()(x)
    assert torch.equal(out, nn.AdaptiveMaxPool2d(1)(x))
    (slopes,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(slopes, (x == out).float())


def test_a_vgg_without_its_grid_has_a_head_of_its_own():
    net = on_meta("vgg16_imagenet", POKEMON, **BOOKS)
    assert sum(param.numel() for param in head_of(net).values()) == 513 * 1024 + 1025 * 5
    whole = on_meta("vgg16_imagenet", POKEMON)
    assert set(head_of(whole)) == {"classifier.6.weight", "classifier.6.bias"}, "of published weights the rest stays"
