"""Replays of steps: the bits of the steps themselves, and only of steps that make the same calls each time."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from dlrun.system import replay
from dlrun.system.replay import StepReplay


def step_of(net, generator):
    """A step with noise from a generator, statistics that it changes in place, a cast, and a view of the outputs."""

    def learn(x, y):
        noise = torch.empty_like(x).bernoulli_(0.5, generator=generator)
        out = net(x * noise)
        losses = nn.functional.cross_entropy(out, y, reduction="none")
        return losses.mean(), {"loss": losses.detach().mean(), "acc": out.argmax(1) == y}

    return learn


def test_a_replay_has_the_bits_of_the_step():
    torch.manual_seed(0)
    first = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))
    nets, generators = [first, deepcopy(first)], [torch.Generator(), torch.Generator()]
    batches = [(torch.randn(n, 4), torch.randint(3, (n,))) for n in (6, 6, 5, 6, 5, 5, 6, 6)]
    seeds = []

    def seed():
        seeds.append(at)
        generators[1].manual_seed(at)

    learns = [step_of(net, generator) for net, generator in zip(nets, generators, strict=True)]
    steps = StepReplay(learns[1], torch.Tensor.backward, list(nets[1].parameters()), seed)
    optimizers = [torch.optim.Adam(net.parameters(), lr=0.1) for net in nets]
    for at, (x, y) in enumerate(batches):
        for generator in generators:
            generator.manual_seed(at)
        loss, wanted = learns[0](x, y)
        loss.backward()
        again, found = steps.forward("kind", x, y)
        steps.backward(again)
        assert torch.equal(loss, again) and all(torch.equal(wanted[name], found[name]) for name in wanted)
        for one, other in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
            assert torch.equal(one.grad, other.grad)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert all(torch.equal(a, b) for a, b in zip(*(net.state_dict().values() for net in nets), strict=True))
    assert seeds == [3, 5, 6, 7], "from the third step of each size on"


@pytest.mark.parametrize("kind", [nn.RNN, nn.LSTM, nn.GRU])
def test_a_replay_of_a_fused_recurrent_layer_has_the_bits_of_the_step(kind):
    """torch's LSTM on a CPU computes less where no gradients are recorded."""
    torch.manual_seed(0)
    layer = kind(3, 5, batch_first=True)
    inputs = torch.randn(5, 4, 6, 3)

    def learn(x):
        return layer(x)[0].square().mean(), {}

    steps = StepReplay(learn, torch.Tensor.backward, list(layer.parameters()), lambda: None)
    for x in inputs:
        grads = []
        for run in (lambda x: (learn(x)[0], torch.Tensor.backward), lambda x: (steps.forward(0, x)[0], steps.backward)):
            loss, backward = run(x)
            backward(loss)
            grads.append([loss.detach().clone(), *(param.grad.clone() for param in layer.parameters())])
            layer.zero_grad()
        assert all(map(torch.equal, *grads))
    assert list(steps.recorded) and None not in steps.recorded.values()


@pytest.mark.parametrize("what", ["value", "number", "size", "memory"])
def test_steps_that_differ_are_not_replayed(what, monkeypatch):
    """A step that looks at a value, one whose Python counts, one whose shapes depend on values, and one too large."""
    if what == "memory":
        monkeypatch.setattr(replay, "LARGEST", 4)
    weight, count = torch.ones(3, requires_grad=True), iter(range(1, 100))

    def learn(x):
        factor = {"value": lambda: x.sum().item(), "number": lambda: next(count), "size": lambda: len(x.nonzero())}
        loss = (weight * x).sum() * factor.get(what, lambda: 1.0)()
        return loss, {"loss": loss.detach()}

    steps = StepReplay(learn, torch.Tensor.backward, [weight], lambda: None)
    for n in range(1, 5):
        weight.grad = None
        x = torch.tensor([1.0, 0.0, n])
        loss, metrics = steps.forward(None, x)
        steps.backward(loss)
        factor = {"value": n + 1, "number": n, "size": 2}.get(what, 1)
        assert loss.item() == metrics["loss"].item() == factor * (1 + n)
        assert weight.grad.tolist() == (factor * x).tolist()
    assert list(steps.recorded.values()) == [None]
