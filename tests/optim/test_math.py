"""Losses, penalties, optimizers and schedules against the book's numbers and the published formulas."""

from math import cos, e, log, pi, sqrt
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from toys import CPU, make_task, make_update, options, section, seeded

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.optim.optimizers import sgd
from dlrun.optim.schedules import cosine, inverse_square_root, linear, one_cycle, polynomial, stable, step, triangle
from dlrun.spec import Image, Table
from dlrun.tasks.losses.criterion import make_loss
from dlrun.tasks.losses.penalty import penalised_weights

THREE, FOUR, TWO = Table(features=3, classes=3), Table(features=4, classes=4), Table(features=1, classes=2)
REAL = Table(features=1, targets=2)
BITS = log(2)


def loss(name, spec, out, y, smoothing=0.0):
    return make_loss(name, spec, smoothing)(torch.tensor(out), torch.tensor(y)).item()


def identity(features: int) -> nn.Module:
    net = nn.Linear(features, features)
    with torch.no_grad():
        net.weight.copy_(torch.eye(features))
        net.bias.zero_()
    return net


# Losses


def test_cross_entropy_of_the_book():
    """Section 6.6: entropies of 2 and 1.356 bits; against one-hot targets it is -log of the class's probability."""
    assert loss("auto", FOUR, [[0.0] * 4, [1.0] * 4], [0, 3]) == pytest.approx(2 * BITS)
    p = [0.1, 0.1, 0.1, 0.7]
    logits = [[log(q) for q in p]]
    for label, q in enumerate(p):
        assert loss("cross_entropy", FOUR, logits, [label]) == pytest.approx(-log(q))
    # label smoothing 0.4 makes of class 3 the distribution p itself, and the cross-entropy its entropy
    assert loss("cross_entropy", FOUR, logits, [3], smoothing=0.4) == pytest.approx(1.356 * BITS, abs=1e-3)
    assert loss("cross_entropy", FOUR, [[1000.0, 0, 0, 0]], [0]) == 0  # one-hot: no entropy, and no overflow
    assert loss("cross_entropy", FOUR, [[1000.0, 0, 0, 0]], [1]) == 1000


def test_probabilities_of_the_book():
    """softmax([2, 1, 0.1]), and the sigmoid over linspace(-6, 6, 10) (sections 6.4 and 6.5)."""
    task = make_task(identity(3), THREE)
    p = task.predict(torch.tensor([[2.0, 1.0, 0.1]]))
    torch.testing.assert_close(p, torch.tensor([[0.6590012, 0.242433, 0.0985659]]), atol=1e-6, rtol=0)
    p = make_task(identity(1), TWO).predict(torch.linspace(-6, 6, 10)[:, None])
    sigmoid = [0.00247264, 0.00931597, 0.03444517, 0.11920291, 0.33924365]
    torch.testing.assert_close(p[:5, 1], torch.tensor(sigmoid), atol=1e-7, rtol=0)
    torch.testing.assert_close(p.flip(0, 1), p, atol=1e-7, rtol=0)  # 1 - sigmoid(x) is sigmoid(-x)
    assert p.shape == (10, 2)


def test_cross_entropys_gradient_is_p_minus_y():
    out = torch.tensor([[2.0, 1.0, 0.1]], requires_grad=True)
    make_loss("cross_entropy", THREE, 0.0)(out, torch.tensor([1])).backward()
    torch.testing.assert_close(out.grad, torch.tensor([[0.6590012, 0.242433 - 1, 0.0985659]]), atol=1e-6, rtol=0)


def test_smoothing_closed_forms():
    out, amount = [0.3, -1.2, 2.0], 0.1
    whole = log(sum(e**o for o in out))
    for label in range(3):
        target = [amount / 3 + (1 - amount) * (k == label) for k in range(3)]
        expected = sum(t * (whole - o) for t, o in zip(target, out, strict=True))
        assert loss("cross_entropy", THREE, [out], [label], amount) == pytest.approx(expected, rel=1e-6)
    for label in range(2):
        p, target = 1 / (1 + e**-0.3), label * (1 - amount) + amount / 2
        expected = -target * log(p) - (1 - target) * log(1 - p)
        assert loss("bce", TWO, [[0.3]], [label], amount) == pytest.approx(expected, rel=1e-6)
        expected = -log(p if label else 1 - p)
        assert loss("auto", TWO, [[0.3]], [label]) == pytest.approx(expected, rel=1e-6)


def test_hinge():
    out = [[2.0, 1.5, -1.0], [0.0, 0.5, 3.0]]
    by_hand = ((1 - 2.0 + 1.5) + 0 + (1 - 0.5 + 0.0) + (1 - 0.5 + 3.0)) / 3 / 2  # mean over classes and samples
    assert loss("hinge", THREE, out, [0, 1]) == pytest.approx(by_hand)
    assert loss("hinge", TWO, [[2.0], [0.25], [-0.5]], [1, 1, 0]) == pytest.approx((0 + 0.75 + 0.5) / 3)
    assert loss("hinge", TWO, [[2.0]], [0]) == 3


def test_squared_errors():
    out, y = [[1.0, 0.0, 0.5], [0.0, 0.0, 0.0]], [0, 2]
    assert loss("mse_one_hot", THREE, out, y) == pytest.approx((0.25 + 1) / 2)  # summed over classes (chapter 3)
    assert loss("mse_one_hot", TWO, [[0.0], [0.0]], [1, 0]) == pytest.approx(0.25)  # of the sigmoid
    out, y = [[1.0, 2.0], [0.0, -3.0]], [[0.0, 2.0], [0.5, 0.0]]
    assert loss("auto", REAL, out, y) == loss("mse", REAL, out, y) == pytest.approx((1 + 0 + 0.25 + 9) / 4)
    assert loss("mae", REAL, out, y) == pytest.approx((1 + 0 + 0.5 + 3) / 4)
    assert loss("huber", REAL, out, y) == pytest.approx((0.5 + 0 + 0.125 + 2.5) / 4)


@pytest.mark.parametrize(
    ("name", "spec", "text"),
    [
        ("mse", THREE, "task.loss=mse does not fit data with 3 classes: expected one of auto, cross_entropy, "),
        (
            "cross_entropy",
            TWO,
            "task.loss=cross_entropy does not fit data with two classes: expected one of auto, bce, ",
        ),
        ("bce", REAL, "task.loss=bce does not fit data with real targets: expected one of auto, mse, mae, huber"),
    ],
)
def test_a_loss_that_does_not_fit(name, spec, text):
    with pytest.raises(UserError, match=text):
        make_loss(name, spec, 0.0)
    with pytest.raises(UserError, match="task.label_smoothing=0.1 with task.loss="):
        make_loss({3: "hinge", 2: "hinge", None: "auto"}[spec.classes], spec, 0.1)


def test_data_without_targets_is_refused():
    for spec in (Image((1, 4, 4)), Table(features=3)):
        with pytest.raises(UserError, match="there are no labels to learn\n  expected classes"):
            make_task(nn.Linear(1, 1), spec)
    with pytest.raises(UserError, match="data.spec.labels has 2 names, data.spec.classes=3: expected one each"):
        make_task(nn.Linear(1, 1), Table(features=3, classes=3, labels=("a", "b")))


# Penalties


def stepped(**task) -> tuple[dict, dict, float]:
    """The weights of a small net before and after one step of plain descent, and the loss that is shown."""
    with seeded():
        net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))
        batch = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 1])
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    made = make_task(net, THREE, "sgd", lr=0.1, momentum=0.0, task=task)
    shown = made.step(batch, Clock(0, 1, 1))["loss"].item()
    return before, {name: p.detach() for name, p in net.named_parameters()}, shown


@pytest.mark.parametrize("patterns", [["*"], ["0.*"], ["2.weight"], ["0.weight", "2.*"]])
def test_penalties_act_on_the_weights_that_match(patterns):
    before, plain, shown = stepped()
    _, after, with_penalty = stepped(l1=0.01, l2=0.25, penalise=patterns)
    assert shown == with_penalty, "the loss that is shown is the data's"
    for name, w in before.items():
        matched = name.endswith("weight") and any(pattern[0] in ("*", name[0]) for pattern in patterns)
        pull = 0.01 * w.sign() + 2 * 0.25 * w if matched else torch.zeros(())
        torch.testing.assert_close(after[name], plain[name] - 0.1 * pull, atol=1e-7, rtol=1e-6)


def test_penalty_is_the_weighted_sum():
    net = nn.Linear(2, 1)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([[3.0, -4.0]]))
    task = make_task(net, Table(features=2, targets=1), "sgd", task=dict(l1=0.5, l2=0.1))
    assert task.penalty().item() == pytest.approx(0.5 * 7 + 0.1 * 25)


def test_a_pattern_that_matches_nothing():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    for pattern in ("1.weigth", "0.bias"):
        with pytest.raises(
            UserError, match=f"'{pattern}', which matches no weight: expected a pattern over 0.weight, 1.w"
        ):
            penalised_weights(net, ["0.weight", pattern])
    with pytest.raises(UserError, match="leaves task.l1 and task.l2 nothing to act on"):
        make_task(net, THREE, task=dict(l2=0.1, penalise=[]))
    make_task(net, THREE, task=dict(penalise=[]))  # nothing to penalise with


# Optimizers: two steps by hand, with these gradients

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
    check(run("sgd", momentum=0.0), [W - 0.1 * GRADS[0], W - 0.1 * (GRADS[0] + GRADS[1])])  # nesterov has nothing to do
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
def test_lookahead_returns_part_of_the_way(base):
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
def test_torchs_own_defaults(option, make):
    w = W.clone().requires_grad_()
    optimizer, expected = make([w]), []
    for grad in GRADS:
        w.grad = grad.clone()
        optimizer.step()
        expected.append(w.detach().clone())
    check(run(option), expected)


# Schedules


def at(schedule, fraction: float, **keys) -> float:
    return schedule(SimpleNamespace(fraction=fraction), **keys)


def test_schedules_at_their_corners():
    for schedule in (linear, cosine):
        values = [at(schedule, f, warmup_fraction=0.2, final=0.1) for f in (0.0, 0.1, 0.2, 0.6, 1.0)]
        assert values == pytest.approx([0, 0.5, 1, 0.55, 0.1])  # half-way between 1 and the end, both
        assert at(schedule, 0.0, warmup_fraction=0.0, final=0.0) == 1
    assert at(cosine, 0.25, warmup_fraction=0.0, final=0.0) == pytest.approx((1 + cos(pi / 4)) / 2)
    assert at(linear, 0.25, warmup_fraction=0.0, final=0.0) == pytest.approx(0.75)
    values = [at(one_cycle, f, peak_at=0.4, start=0.04, final=0.0) for f in (0.0, 0.2, 0.4, 0.7, 1.0)]
    assert values == pytest.approx([0.04, 0.52, 1, 0.5, 0])
    assert at(one_cycle, 0.0, peak_at=0.0, start=0.04, final=0.0) == 1


def test_step_divides_the_run_evenly():
    values = [at(step, f, drops=2, factor=0.1) for f in (0.0, 0.33, 1 / 3, 0.66, 2 / 3, 1.0)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    for drops in range(1, 60):
        factors = [at(step, k / (drops + 1), drops=drops, factor=2.0) for k in range(drops + 1)]
        assert factors == [2.0**k for k in range(drops + 1)]  # also where k / n * n is not k


def test_triangle_stable_polynomial_and_inverse_square_root():
    moments = (0.0, 0.1, 0.2, 0.6, 1.0)
    assert [at(triangle, f, peak_at=0.2, start=0.4, final=0.1) for f in moments] == pytest.approx(
        [0.4, 0.7, 1, 0.55, 0.1]
    )
    assert at(triangle, 0.0, peak_at=0.0, start=0.4, final=0.0) == 1
    values = [at(stable, f, warmup_fraction=0.2, decay_fraction=0.5, final=0.1) for f in (*moments[:3], 0.5, 0.75, 1.0)]
    assert values == pytest.approx([0, 0.5, 1, 1, 0.55, 0.1])
    assert at(stable, 1.0, warmup_fraction=0.2, decay_fraction=0.0, final=0.0) == 1
    assert at(stable, 0.2, warmup_fraction=0.2, decay_fraction=1.0, final=0.0) == 1
    values = [at(polynomial, f, warmup_fraction=0.2, power=2.0, final=0.1) for f in moments]
    assert values == pytest.approx([0, 0.5, 1, 0.1 + 0.9 * 0.25, 0.1])
    values = [at(inverse_square_root, f, warmup_fraction=0.2) for f in (*moments[:3], 0.8, 1.0)]
    assert values == pytest.approx([0, 0.5, 1, 0.5, sqrt(0.2)])


@pytest.mark.parametrize("option", [name for name in options("schedule") if name != "inverse_square_root"])
def test_schedules_over_a_run(option):
    """Each is a function of the clock, between 0 and the optimizer's own rate, and continuous but for `step`."""
    schedule, clock = build(section("schedule", option)), Clock(0, 10, 100)
    values = []
    for clock.step in range(1001):
        values.append(schedule(clock))
    assert all(0 <= v <= 1 for v in values) and max(values) == pytest.approx(1, abs=1e-3)
    if option != "step":
        assert max(abs(a - b) for a, b in zip(values, values[1:], strict=False)) < 0.06
    assert values[-1] == pytest.approx({"constant": 1, "step": 0.01}.get(option, 0))


def test_the_rate_follows_the_schedule():
    net = nn.Linear(1, 1)
    task = make_task(net, Table(features=1, targets=1), "sgd", schedule="linear", lr=0.5)
    clock, rates = Clock(0, 1, 4), []
    for _ in range(4):
        task.step((torch.ones(2, 1, device=CPU), torch.ones(2, 1)), clock)
        rates.append(task.update.lr)
        clock.tick(2)
    assert rates == pytest.approx([0.5, 0.375, 0.25, 0.125])
