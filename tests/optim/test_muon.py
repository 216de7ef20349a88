"""Muon against the singular values and torch's optimizers; the kinds of parameters and their settings."""

import pytest
import torch
from torch import nn
from toys import NAMES, composed, make_update, section, seeded

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.config.check import check
from dlrun.errors import ConfigError, UserError
from dlrun.optim.kinds import kinds_of, make_optimizer
from dlrun.optim.muon import COEFFICIENTS, orthogonalised
from dlrun.types import KINDS

GROUPS = {"biases": {"lr": 0.5, "weight_decay": 0.25}, "norms": {"weight_decay": 0.0}}


def small_net() -> nn.Module:
    with seeded():
        parts = [nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(8, 6)]
        return nn.Sequential(*parts, nn.LayerNorm(6), nn.Linear(6, 4))


def with_gradients(net: nn.Module) -> nn.Module:
    with seeded(1):
        for param in net.parameters():
            param.grad = torch.randn_like(param)
    return net


def quintic(s: torch.Tensor, iterations: int) -> torch.Tensor:
    a, b, c = COEFFICIENTS
    for _ in range(iterations):
        s = a * s + b * s**3 + c * s**5
    return s


@pytest.mark.parametrize("shape", [(3, 5, 9), (2, 9, 5), (4, 6, 6), (1, 1, 7)])
def test_the_iteration_is_a_polynomial_of_the_singular_values(shape):
    with seeded():
        matrices = torch.randn(shape, dtype=torch.float64)
    u, s, v = torch.linalg.svd(matrices, full_matrices=False)
    for iterations in (1, 3, 5):
        scaled = quintic(s / s.norm(dim=1, keepdim=True), iterations)
        expected = u @ torch.diag_embed(scaled) @ v
        torch.testing.assert_close(orthogonalised(matrices, iterations), expected, atol=1e-5, rtol=0)
    five = torch.linalg.svdvals(orthogonalised(matrices, 5))
    assert ((0.65 < five) & (five < 1.25))[s / s.norm(dim=1, keepdim=True) > 0.02].all()


def test_a_zero_gradient_changes_nothing():
    assert torch.equal(orthogonalised(torch.zeros(1, 3, 4), 5), torch.zeros(1, 3, 4))


@pytest.mark.parametrize("fixed_norm", [False, True])
def test_two_steps_of_filters_and_matrices_equal_those_by_hand(fixed_norm):
    """Nesterov momentum, orthogonalised; scaled by the shape of the weights or to a fixed norm."""
    net, reference = small_net(), small_net()
    update = make_update(net, "muon", kinds={}, fixed_norm=fixed_norm, lr=0.1, momentum=0.9)
    first, second = ([p for p in each.parameters() if p.dim() == 4 or p.shape == (6, 8)] for each in (net, reference))
    buffers = [torch.zeros_like(param) for param in second]
    for _ in range(2):
        with_gradients(net)
        update.optimizer.step()
        for param, mine, buffer in zip(first, second, buffers, strict=True):
            buffer.mul_(0.9).add_(param.grad)
            matrix = (param.grad + 0.9 * buffer).flatten(1)
            moved = orthogonalised(matrix[None], 5).view_as(param)
            scale = 1 if fixed_norm else max(1, matrix.shape[0] / matrix.shape[1]) ** 0.5
            with torch.no_grad():
                if fixed_norm:
                    mine.mul_(len(mine) ** 0.5 / mine.norm())
                mine.sub_(0.1 * scale * moved)
            torch.testing.assert_close(param, mine, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rest", ["sgd", "adamw"])
def test_other_parameters_are_updated_as_by_torchs_optimizer(rest):
    net, reference = small_net(), small_net()
    keys = dict(rest=rest, rest_lr=0.05, weight_decay=0.1, kinds={})
    update = make_update(net, "muon", **keys)
    mine, theirs = (
        {name: p for name, p in each.named_parameters() if p.dim() < 2 or name == "6.weight"}
        for each in (net, reference)
    )
    make = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.1),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    }
    other = make[rest](theirs.values())
    for _ in range(3):
        for each, optimizer in ((net, update.optimizer), (reference, other)):
            with_gradients(each)
            optimizer.step()
    assert len(mine) == 8
    for name, param in mine.items():
        torch.testing.assert_close(param, theirs[name], atol=1e-6, rtol=1e-5)


def test_parameters_are_assigned_to_kinds():
    kinds = {name: kinds_of(net)[param] for net in [small_net()] for name, param in net.named_parameters()}
    norms = dict.fromkeys(("1.weight", "1.bias", "5.weight", "5.bias"), "norms")
    biases = dict.fromkeys(("2.bias", "4.bias", "6.bias"), "biases")
    weights = {"0.weight": "filters", "2.weight": "filters", "4.weight": "matrices", "6.weight": "head"}
    assert kinds == norms | biases | weights
    text = nn.Sequential(nn.Embedding(5, 3), nn.LSTM(3, 4), nn.Linear(4, 2))
    assert [kinds_of(text)[param] for param in text.parameters()] == [
        "embeddings", "matrices", "matrices", "biases", "biases", "head", "biases"
    ]  # fmt: skip


@pytest.mark.parametrize("optimizer", ["sgd", "muon"])
def test_settings_apply_by_kind(optimizer):
    """The learning rate of a kind replaces that of the optimizer; factors of layers and schedule multiply both."""
    net = small_net()
    layers = [(1.0, [p for name, p in net.named_parameters() if name < "6"]), (0.5, list(net[6].parameters()))]
    update = make_update(net, optimizer, "linear", groups=layers, kinds=GROUPS, lr=0.125, weight_decay=0.0625)
    clock = Clock(0, 1, 4, step=2)
    update.set_lr(clock)
    found = {(g["kind"], g["lr"] / update.factor): g["weight_decay"] for g in update.optimizer.param_groups}
    rest = {"sgd": 0.125, "muon": 0.001}[optimizer]
    assert found == {
        ("filters", 0.125): 0.0625, ("matrices", 0.125): 0.0625, ("norms", rest): 0.0, ("biases", 0.5): 0.25,
        ("head", rest / 2): 0.0625, ("biases", 0.25): 0.25,
    }  # fmt: skip
    assert update.factor == 0.5 and sum(len(g["params"]) for g in update.optimizer.param_groups) == 11


def test_a_setting_that_the_optimizer_lacks_is_refused():
    net = small_net()
    with pytest.raises(UserError, match="optimizer.groups sets weight_decay, which Rprop does not have\n  expected lr"):
        make_optimizer(torch.optim.Rprop, net, [(1.0, list(net.parameters()))], {"biases": {"weight_decay": 0.0}})


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ({"bias": {"lr": 1.0}}, "optimizer.groups.bias: no kind of parameter; expected filters, matrices, embeddings"),
        ({"norms": {"decay": 1.0}}, "optimizer.groups.norms.decay: expected lr or weight_decay"),
        ({"norms": {"lr": 0.0}}, "optimizer.groups.norms.lr=0.0: expected a number > 0"),
        ({"head": {"lr": "fast"}}, "optimizer.groups.head.lr=fast: expected a number > 0"),
        ({"head": 0.1}, "optimizer.groups.head=0.1: expected a mapping with lr or weight_decay"),
        ([0.1], "optimizer.groups=[0.1]: expected a mapping, such as {biases: {weight_decay: 0}}"),
    ],
)
def test_impossible_groups_are_refused(groups, text):
    config = composed()
    with pytest.raises(ConfigError) as error:
        check(config | {"optimizer": config["optimizer"] | {"groups": groups}}, NAMES)
    assert text in str(error.value)


def test_every_kind_may_be_set():
    config = composed("optimizer=muon")
    groups = {kind: {"lr": 0.1, "weight_decay": 0} for kind in KINDS}
    check(config | {"optimizer": config["optimizer"] | {"groups": groups}}, NAMES | {"optimizer": "muon"})
    assert build(section("optimizer", "muon"))([{"params": [torch.zeros(2, 2)], "kind": "head"}])
