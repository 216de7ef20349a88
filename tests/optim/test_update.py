"""An optimizer step: averages of the weights, losses and gradients that are not finite, overflow in fp16."""

from functools import partial
from math import sqrt

import pytest
import torch
from runs import compose, rows, same, train
from torch import nn
from toys import section

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.errors import Diverged, UserError
from dlrun.optim import schedules
from dlrun.optim.update import Update
from dlrun.output.checkpoint import snapshot
from dlrun.train.state import all_finite

pytestmark = pytest.mark.usefixtures("undrawn")


def update_of(net, **keys):
    made = dict(
        optimizer=partial(torch.optim.SGD, lr=1.0), schedule=schedules.constant, clip=(None, None, None), ema=0.0,
        on_nan="stop", precision="fp32",
    )  # fmt: skip
    return Update(net, **made | keys)


@pytest.mark.parametrize(("ema", "decays"), [(0.9999, [2 / 11, 3 / 12, 4 / 13]), (0.2, [2 / 11, 0.2, 0.2])])
def test_the_average_equals_its_closed_form(ema, decays):
    net = nn.Linear(1, 1, bias=False)
    nn.init.constant_(net.weight, 1.0)
    update, clock = update_of(net, ema=ema), Clock(0, 1, 9)
    expected = 1.0
    for weight, decay in zip([0.0, -1.0, -2.0], decays, strict=True):
        update.step(net.weight.sum(), clock)  # gradient 1, lr 1: the weight goes 1, 0, -1, -2
        expected = decay * expected + (1 - decay) * weight
        assert net.weight.item() == weight and update.ema.weight.item() == pytest.approx(expected)
    assert not update.ema.weight.requires_grad and not update.ema.training
    again = update_of(nn.Linear(1, 1, bias=False), ema=ema)
    again.load_state_dict(update.state_dict())
    assert again.averaged == 3


@pytest.mark.parametrize("ema", [0.9999, 0.99999])
def test_a_short_run_with_a_long_average_forgets_its_first_weights(ema, tmp_path):
    """Without the warm-up of the average, the accuracy would stay that of the first weights, 0.1."""
    train(tmp_path, compose("data=digits", f"trainer.ema={ema}", "trainer.epochs=3", "trainer.device=cpu"))
    assert rows(tmp_path)[-1]["val/acc"] > 0.9


def test_a_loss_that_is_not_finite_stops_before_the_weights_change():
    net = nn.Linear(2, 1)
    update = update_of(net, optimizer=partial(torch.optim.SGD, lr=0.25, momentum=0.9))
    clock = Clock(0, 3, 5, step=6, epoch=1, batch=1)
    update.step(net(torch.ones(1, 2)).sum() * 0 + 0.5, clock)
    before = snapshot({"net": net.state_dict(), "update": update.state_dict()})
    with pytest.raises(Diverged) as error:
        update.step(net(torch.ones(1, 2)).sum() * float("inf"), clock)
    message = str(error.value)
    for part in ("in epoch 2, step 7 (batch 2 of the epoch)", "last finite loss was 0.5", "learning rate 0.25",
                 "did not change the weights", "trainer.on_nan=skip", "optimizer.lr"):  # fmt: skip
        assert part in message
    assert same(snapshot({"net": net.state_dict(), "update": update.state_dict()}), before)
    assert error.value.exit_code == 1


@pytest.mark.parametrize("loss", [lambda w: w.abs().sqrt().sum(), lambda w: w.pow(0.1).sum()])
def test_a_gradient_that_is_not_finite_is_distinguished_from_a_loss(loss):
    """The loss is 0 and its step makes the weight NaN: the next loss is not finite and changes nothing."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    update = update_of(net)
    assert update.step(loss(net.weight), Clock(0, 1, 9))
    with pytest.raises(Diverged, match="expected finite gradients; those of an earlier step were not") as error:
        update.step(loss(net.weight), Clock(0, 1, 9, step=1, batch=1))
    assert "touched" not in str(error.value) and "trainer.on_nan=skip" in str(error.value)


def test_a_step_whose_loss_is_not_finite_is_skipped_and_counted():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    update, clock = update_of(net, on_nan="skip", ema=0.5), Clock(0, 1, 9)
    x = torch.tensor([[1.0, 2.0], [3.0, 5.0]])
    assert update.step(net(x).sum(), clock)
    before = snapshot({"net": net.state_dict(), "update": update.state_dict()})
    for _ in range(2):
        assert not update.step(net(x * float("nan")).sum(), clock)  # the running statistics of the norm saw it
    assert update.skipped == 2
    update.skipped = 0
    assert same(snapshot({"net": net.state_dict(), "update": update.state_dict()}), before)
    assert update.step(net(x).sum(), clock) and all_finite(net.state_dict())


@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("loss", [lambda w: w.abs().sqrt().sum(), lambda w: w.pow(0.1).sum()])
def test_a_step_whose_gradient_is_not_finite_is_skipped_and_counted(loss, clip):
    """The loss is 0, its gradient is not finite: the step is skipped, and the weight stays finite."""
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    update = update_of(net, on_nan="skip", ema=0.5, clip=(None, None, clip))
    assert not update.step(loss(net.weight), Clock(0, 1, 9))
    assert (net.weight.item(), update.skipped, update.averaged) == (0.0, 1, 0)
    assert update.step(net.weight.sum(), Clock(0, 1, 9)) and net.weight.item() == -1.0


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_in_half_precision_a_step_with_overflow_leaves_no_trace(name):
    """Also the very first step, as is usual: torch's fused SGD would then use uninitialised momentum."""
    ends = []
    for losses in ([1e36, 1.0, 1e36, 2.0], [1.0, 2.0]):  # times 65,536 the first overflows fp32
        net = nn.Linear(2, 1, bias=False)
        nn.init.ones_(net.weight)
        update = update_of(net, optimizer=build(section("optimizer", name)), precision="fp16", clip=(None, None, 9.0))
        norms = []
        try:
            torch.use_deterministic_algorithms(True)  # it fills uninitialised memory with NaN
            for factor in losses:
                update.step(factor * net(torch.tensor([[1.0, 3.0]])).sum(), Clock(0, 1, 9))
                norms += [update.grad_norm.item()] if update.grad_norm is not None else []
        finally:
            torch.use_deterministic_algorithms(False)
        ends.append(net.weight)
        assert norms == pytest.approx([sqrt(10), 2 * sqrt(10)])
    assert torch.equal(*ends) and torch.isfinite(ends[0]).all() and not torch.equal(ends[0], torch.ones(1, 2))


def test_a_network_without_parameters_is_refused():
    with pytest.raises(UserError, match="no parameters to train"):
        update_of(nn.Linear(1, 1).requires_grad_(False))
