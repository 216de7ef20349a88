"""Losses and penalties against the book's numbers and closed forms."""

from functools import partial
from math import e, log

import pytest
import torch
from torch import nn
from toys import make_task, seeded

from dlrun.clock import Clock
from dlrun.errors import UserError
from dlrun.spec import Image, Table
from dlrun.tasks import losses
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


def test_cross_entropy_of_the_book():
    """The book, section 6.6: entropies of 2 and 1.356 bits; for one-hot targets -log of the class's probability."""
    assert loss("auto", FOUR, [[0.0] * 4, [1.0] * 4], [0, 3]) == pytest.approx(2 * BITS)
    p = [0.1, 0.1, 0.1, 0.7]
    logits = [[log(q) for q in p]]
    for label, q in enumerate(p):
        assert loss("cross_entropy", FOUR, logits, [label]) == pytest.approx(-log(q))
    # label smoothing 0.4 turns class 3 into the distribution p itself, and the cross-entropy into its entropy
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
def test_a_loss_that_does_not_fit_is_refused(name, spec, text):
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


def stepped(**task) -> tuple[dict, dict, float]:
    """The weights of a small network before and after one step of plain gradient descent, and the reported loss."""
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


def test_a_pattern_that_matches_nothing_is_refused():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    for pattern in ("1.weigth", "0.bias"):
        with pytest.raises(
            UserError, match=f"'{pattern}', which matches no weight: expected a pattern over 0.weight, 1.w"
        ):
            penalised_weights(net, ["0.weight", pattern])
    with pytest.raises(UserError, match="leaves task.l1 and task.l2 nothing to act on"):
        make_task(net, THREE, task=dict(l2=0.1, penalise=[]))
    make_task(net, THREE, task=dict(penalise=[]))  # no penalty is set


@pytest.mark.parametrize("spec", [Table(features=3, classes=2), THREE])
def test_focal_loss(spec):
    """With gamma 0 it is the cross-entropy; else each sample weighs (1 - p)^gamma."""
    out = torch.randn(8, spec.outputs, generator=torch.Generator().manual_seed(0), requires_grad=True)
    y = torch.arange(8) % spec.classes
    plain = make_loss("auto", spec)
    torch.testing.assert_close(make_loss(partial(losses.focal, gamma=0.0), spec)(out, y), plain(out, y))
    each = plain(out, y, reduction="none")
    expected = (1 - (-each).exp()) ** 3 * each
    torch.testing.assert_close(make_loss(partial(losses.focal, gamma=3.0), spec)(out, y, "none"), expected)
    sure = torch.full((2, spec.outputs), -200.0, requires_grad=True)
    make_loss(partial(losses.focal, gamma=0.5), spec)(sure, torch.zeros(2, dtype=torch.int64)).backward()
    assert sure.grad.isfinite().all(), "also where p is 1"
