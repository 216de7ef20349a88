"""Optimizers against the published formulas: two steps by hand."""

from math import sqrt

import pytest
import torch
from torch import nn
from toys import make_update, section

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.optim.optimizers import sgd

W, GRADS = (
    torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64),
    torch.tensor([[0.5, -1.0, 2.0], [0.25, 3.0, -1.0]]).double(),
)


def run(option: str, **keys) -> list[torch.Tensor]:
    w = W.clone().requires_grad_()
    optimizer, seen = build(section("optimizer", option) | keys)([w]), []
    for grad in GRADS:
        w.grad = grad.clone()
        optimizer.step()
        seen.append(w.detach().clone())
    return seen


def check(seen: list, expected: list) -> None:
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected), atol=1e-12, rtol=1e-9)


def test_sgd_with_nesterov():
    """v = mu v + g; w -= lr (g + mu v), after Sutskever et al. 2013; weight decay is part of the gradient."""
    w, v, expected = W.clone(), torch.zeros(3).double(), []
    for grad in GRADS:
        grad = grad + 0.01 * w
        v = 0.9 * v + grad
        w = w - 0.1 * (grad + 0.9 * v)
        expected.append(w)
    check(run("sgd", weight_decay=0.01), expected)


def test_plain_sgd_and_momentum():
    check(run("sgd", momentum=0.0), [W - 0.1 * GRADS[0], W - 0.1 * (GRADS[0] + GRADS[1])])  # plain
    check(run("sgd", nesterov=False), [W - 0.1 * GRADS[0], W - 0.1 * (1.9 * GRADS[0] + GRADS[1])])
    with pytest.raises(UserError, match="optimizer.dampening=0.5 with optimizer.nesterov=true: expected dampening 0"):
        sgd([W], lr=0.1, momentum=0.9, nesterov=True, dampening=0.5, weight_decay=0.0)


def adam_by_hand(decay: float, b1=0.9, b2=0.999) -> list[torch.Tensor]:
    w, m, v, expected = W.clone(), 0.0, 0.0, []
    for t, g in enumerate(GRADS, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w * (1 - 1e-3 * decay) - 1e-3 * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + 1e-8)
        expected.append(w)
    return expected


def test_adam_and_adamw():
    """Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019, algorithm 2: decay beside the gradient."""
    check(run("adam"), adam_by_hand(0.0))
    check(run("adam", betas=[0, 0.9]), adam_by_hand(0.0, 0.0, 0.9))  # the integer that YAML makes of 0
    check(run("adamw", weight_decay=0.1), adam_by_hand(0.1))
    assert section("optimizer", "adamw")["weight_decay"] > 0
    first = run("adam", weight_decay=0.1)[0]
    torch.testing.assert_close(
        first, adam_by_hand(0.0)[0], atol=1e-7, rtol=0
    )  # coupled: only the gradient's sign counts


@pytest.mark.parametrize(("option", "rho", "eps"), [("rmsprop_keras", 0.9, 1e-7), ("rmsprop", 0.99, 1e-8)])
def test_rmsprop(option, rho, eps):
    """v = rho v + (1 - rho) g^2; w -= lr g / (sqrt(v) + eps)."""
    w, v, expected = W.clone(), 0.0, []
    for g in GRADS:
        v = rho * v + (1 - rho) * g**2
        w = w - 1e-3 * g / (v**0.5 + eps)
        expected.append(w)
    check(run(option), expected)
    assert (expected[0] - W).abs() == pytest.approx(torch.full((3,), 1e-3 / sqrt(1 - rho)), rel=1e-5)


def test_lion_by_hand():
    """Chen et al. 2023, program 1: the sign of b1 m + (1 - b1) g, then m = b2 m + (1 - b2) g."""
    w, m, expected = W.clone(), torch.zeros(3).double(), []
    for g in GRADS:
        w = w * (1 - 3e-4 * 0.1) - 3e-4 * torch.sign(0.9 * m + 0.1 * g)
        m = 0.99 * m + 0.01 * g
        expected.append(w)
    check(run("lion", weight_decay=0.1), expected)


def test_lamb_by_hand():
    """You et al. 2020, algorithm 2: the step r + decay w, scaled to the norm of the weights."""
    w, m, v, expected = W.clone(), 0.0, 0.0, []
    for t, g in enumerate(GRADS, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        r = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8) + 0.1 * w
        w = w - 0.005 * w.norm() / r.norm() * r
        expected.append(w)
    check(run("lamb", weight_decay=0.1), expected)
    zero = torch.zeros(2).requires_grad_()
    optimizer = build(section("optimizer", "lamb"))([zero])
    zero.grad = torch.tensor([1.0, -2.0])
    optimizer.step()
    assert zero.tolist() == pytest.approx([-0.005, 0.005], rel=1e-4), "weights of norm 0 take the plain step"


@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_lookahead_moves_a_share_of_the_way(base):
    fast = run(base, lr=0.01, weight_decay=0.1)
    expected = [fast[0], W + 0.25 * (fast[1] - W)]
    check(run("lookahead", base=base, every=2, share=0.25, lr=0.01, weight_decay=0.1), expected)


def test_schedule_free_by_hand():
    """Defazio et al. 2024, algorithm 1: y between z and x, gradients at y, x the average of z."""
    b1, b2, lr = 0.9, 0.99, 0.01
    x, z, v, expected = W.clone(), W.clone(), 0.0, []
    for t, g in enumerate(GRADS, 1):
        y = (1 - b1) * z + b1 * x
        v = b2 * v + (1 - b2) * g**2
        z = z - lr * g / ((v / (1 - b2**t)).sqrt() + 1e-8) - lr * 0.1 * y
        x = (1 - 1 / t) * x + 1 / t * z
        expected.append((1 - b1) * z + b1 * x)
    check(run("schedule_free", betas=[b1, b2], lr=lr, weight_decay=0.1), expected)
    net = nn.Linear(1, 3, bias=False).double()
    with torch.no_grad():
        net.weight.copy_(W[:, None])
    update, clock = make_update(net, "schedule_free", betas=[b1, b2], lr=lr, weight_decay=0.1), Clock(0, 1, 2)
    for g in GRADS:
        update.step((net.weight[:, 0] * g).sum(), clock)
        clock.tick(1)
    torch.testing.assert_close(update.ema.weight[:, 0], x, atol=1e-12, rtol=1e-9)
    with pytest.raises(UserError, match="trainer.ema=0.9: this optimizer averages the weights itself"):
        make_update(net, "schedule_free", ema=0.9)


@pytest.mark.parametrize(("option", "make"), [("nadam", torch.optim.NAdam), ("adafactor", torch.optim.Adafactor)])
def test_defaults_are_those_of_torch(option, make):
    w = W.clone().requires_grad_()
    optimizer, expected = make([w]), []
    for grad in GRADS:
        w.grad = grad.clone()
        optimizer.step()
        expected.append(w.detach().clone())
    check(run(option), expected)
