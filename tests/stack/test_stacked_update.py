"""A stacked update steps as the updates of its jobs do."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from toys import section

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.optim import schedules
from dlrun.optim.update import Update
from dlrun.stack.net import StackedNet
from dlrun.stack.update import StackedUpdate

K, B = 5, 6
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "nadam", "lion", "lamb", "adafactor", "muon", "lookahead")
LIMITS = [(None, None, None), (0.05, None, None), (None, 0.5, None), (None, None, 1.0), (None, None, None)]


GROUPS = {"biases": {"lr": 0.05, "weight_decay": 0.3}}  # optimizer.groups, with a rate that is no multiple of the job's


@pytest.mark.parametrize("groups", [None, GROUPS], ids=["plain", "groups"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stacked_update_steps_as_the_jobs_do(name, groups):
    """The jobs have their own rates, schedules, limits and averages, and get their states back. Some have groups."""
    torch.manual_seed(0)
    config = section("optimizer", name) | {"lr": 0.01}
    others = [{}, {"rest": "sgd"}] if name == "muon" else [{}, {}]
    kinds = [{} if name == "muon" else None, groups or ({} if name == "muon" else None)]
    nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(K)]
    alone = deepcopy(nets)
    paces = [schedules.constant, partial(schedules.linear, warmup_fraction=0.3, final=0.1)]

    def update(k: int, net: nn.Module) -> Update:
        optimizer = build(config | others[k % 2] | {"lr": 0.01 * (1 + k // 2)})
        keys = {"on_nan": "stop", "precision": "fp32", "kinds": kinds[k > 1], "ema": 0.5 + 0.05 * k}
        return Update(net, optimizer=optimizer, schedule=paces[k % 2], clip=LIMITS[k], **keys)

    own, mine = [update(k, net) for k, net in enumerate(alone)], [update(k, net) for k, net in enumerate(nets)]
    inputs, clocks = torch.randn(8, K, B, 4), [Clock(k, 1, 10) for k in range(K)]

    def stack() -> tuple[StackedNet, StackedUpdate]:
        net = StackedNet(nets).train()
        settings, rates = [f"{groups if k > 1 else ''}" for k in range(K)], [f"{k // 2} {k % 2}" for k in range(K)]
        return net, StackedUpdate(mine, net, net.leaves, build(config), settings, rates)

    net, stacked = stack()
    for step, x in enumerate(inputs):
        for clock in clocks:
            clock.step = step
        if step == 4:  # the jobs' own states hold all that a stack needs
            stacked.write_back()
            net, stacked = stack()
        stacked.step(net(x.flatten(0, 1)).square().unflatten(0, (K, B)).mean((1, 2)), clocks[0])
        for one, inputs_of, clock in zip(own, x, clocks, strict=True):
            one.step(one.net(inputs_of).square().mean(), clock)
    stacked.write_back()
    for one, update in zip(own, mine, strict=True):
        assert update.lr == one.lr and update.last_loss == pytest.approx(one.last_loss, rel=1e-4)
        for a, b in ((one.net, update.net), (one.ema, update.ema)):
            torch.testing.assert_close(list(a.parameters()), list(b.parameters()), rtol=1e-3, atol=1e-5)
        wanted, found = one.optimizer.state_dict()["state"], update.optimizer.state_dict()["state"]
        assert wanted.keys() == found.keys()
        for param, values in wanted.items():
            for key, value in values.items():
                torch.testing.assert_close(found[param][key], value, rtol=1e-3, atol=1e-4)
