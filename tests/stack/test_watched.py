"""Networks and tasks of one's own whose steps cannot be stacked are refused with the reason."""

from copy import deepcopy
from itertools import islice
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from runs import compose
from stacks import OTHERS
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlrun.output.checkpoints import Checkpoints
from dlrun.output.failures import OutOfMemory
from dlrun.stack.functions import NotStackable
from dlrun.stack.net import StackedNet
from dlrun.stack.run import make_job
from dlrun.stack.stacked import Stack
from dlrun.stack.trial import first_clocks, gain
from dlrun.stack.watch import memory, watched


class Own(nn.Module):
    """One dense layer; `then` changes its outputs."""

    def __init__(self, then=lambda net, y: y) -> None:
        super().__init__()
        self.then, self.layer, self.drop, self.n = then, nn.Linear(784, 10), nn.Dropout(0.5), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(self, self.layer(x.flatten(1)))


def count(net: nn.Module, y: torch.Tensor) -> torch.Tensor:
    net.n += net.training
    return y * min(1, net.n / 50)


def packed(net: nn.Module, y: torch.Tensor) -> torch.Tensor:
    lengths = torch.full((len(y),), 1)
    return pad_packed_sequence(pack_padded_sequence(y[:, None], lengths, batch_first=True), batch_first=True)[0][:, 0]


READS = "decides by values of the whole batch, as `if` and item() do"
MESSAGES = {
    "counter": (count, "the network (Own) changes its attribute n in a step: expected a buffer instead"),
    "dropout": (
        lambda net, y: F.dropout(y),
        "a step draws random numbers itself: expected nn.Dropout, or task.jobs.ra",
    ),
    "noise": (
        lambda net, y: y + torch.randn_like(y),
        "a step draws random numbers itself: expected nn.Dropout, or task",
    ),
    "if": (lambda net, y: y if y.sum() > 0 else -y, "the network (Own) mixes the samples of a batch (sum)"),
    "item": (lambda net, y: y * y.max().item(), "the network (Own) mixes the samples of a batch (max)"),
    "numpy": (lambda net, y: y * float(y.detach().numpy().max()), f"the network (Own) {READS}"),
    "tolist": (lambda net, y: y * max(map(max, y.tolist())), f"the network (Own) {READS}"),
    "equal": (lambda net, y: y if torch.equal(y, y.relu()) else -y, f"the network (Own) {READS}"),
    "largest": (
        lambda net, y: y / (y.detach().abs().max() / 1e6).clamp(min=1),  # not yet at the start
        "the network (Own) mixes the samples of a batch (max)",
    ),
    "mean": (lambda net, y: y - y.mean(0), "the network (Own) mixes the samples of a batch (mean.dim)"),
    "first": (lambda net, y: y - y[:1], "the network (Own) mixes the samples of a batch (slice.Tensor)"),
    "normalised": (
        lambda net, y: F.batch_norm(y, None, None, training=True),
        "the network (Own) mixes the samples of a batch (native_batch_norm)",
    ),
    "error": (
        lambda net, y: y * net.drop.q,
        "drop (Dropouts) of the network: AttributeError: 'Dropouts' object has no ",
    ),
    "cat": (lambda net, y: torch.cat([y, net.layer.weight]), "layer.weight of Linear: cat has no stacked form"),
}


def fake_task(**attributes):
    return SimpleNamespace(device=SimpleNamespace(torch_device=torch.device("cpu")), **attributes)


@pytest.mark.parametrize("name", MESSAGES)
def test_the_reason_names_what_a_network_does(name):
    then, message = MESSAGES[name]
    net = StackedNet([Own(then), Own(then)]).train().net
    with pytest.raises(NotStackable) as error, watched(fake_task(), net):
        net(torch.ones(6, 784))
    assert str(error.value).startswith(message)


def test_what_keeps_no_state_is_stacked():
    """Also packed sequences, in which torch reads the lengths, and a counter that is a buffer."""
    alone = (lambda net, y: y - y.mean(1, keepdim=True), lambda net, y: F.softmax(y.view(len(y), 2, 5), 2).flatten(1))
    for then in (packed, lambda net, y: y * net.layer.weight.mean(), *alone):
        net = StackedNet([Own(then), Own(then)]).train().net
        with watched(fake_task(n=1, names=["a"]), net):
            net(torch.ones(6, 784))


def test_memory_that_is_used_again_is_another():
    """Else a mask made after a tensor of samples was freed would count as one."""
    assert len({memory(torch.ones(1000)) for _ in range(9)}) == 9
    whole = torch.ones(6, 2)
    assert memory(whole) == memory(whole[1:].view(-1))


def test_a_task_that_counts_and_too_little_memory():
    task, net = fake_task(n=1, history=[1]), nn.Linear(2, 2)
    with (
        pytest.raises(NotStackable, match="SimpleNamespace changes its attribute history in a step"),
        watched(task, net),
    ):
        task.history.append(2)
    with pytest.raises(OutOfMemory), watched(task, net):
        raise MemoryError("cannot allocate 5 bytes")


def test_layers_that_are_made_anew_in_each_step_are_named():
    for net, why in (
        (
            nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
            "^0: parametrized layers, as by weight_n",
        ),
        (nn.Sequential(nn.BatchNorm1d(4, momentum=None)), "^0: BatchNorm1d with momentum=None has no stacked form$"),
        (
            nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False, track_running_stats=False)),
            "^1: BatchNorm1d without weights and statistics has no stacked form$",
        ),
    ):
        with pytest.raises(NotStackable, match=why):
            StackedNet([net, deepcopy(net)])


def rolled(net: nn.Module, y: torch.Tensor) -> torch.Tensor:
    return y + 0.3 * torch.roll(y, 1, 0)


def first_job(spec: object) -> nn.Module:
    """A function holds on to a layer, which a copy of the network does not replace."""
    net = Own()
    net.then = lambda net, y, layer=net.layer: y * (1 + layer.weight.detach().mean())
    return net


def counting_outside(spec: object) -> nn.Module:
    """With a list in a function, which copies of the network share."""
    steps = [0]
    return Own(lambda net, y: (steps.append(0), y * min(1, len(steps) / 50))[1])


def hooked(spec: object) -> nn.Module:
    """Layers of torch whose hook is not: it does nothing at the start."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    net[1].register_forward_hook(lambda layer, args, y: y / (y.detach().abs().max() / 1e6).clamp(min=1))
    return net


class Masked(Own):
    """A mask of infinities in a buffer, and one of numbers that a layer gets beside the batch."""

    def __init__(self, *then) -> None:
        super().__init__(*then)
        self.register_buffer("mask", torch.full((10,), -torch.inf))
        self.positive = Positive()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.positive(super().forward(x), torch.ones(5, 1)) + (self.mask + 1).exp()


class Positive(nn.Module):
    def forward(self, y: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return y.where((mask[:1] > 0)[None, 0], 0)


REFUSED = {
    "hooked": (hooked, r"1 \(Linear\) of the network mixes the samples of a batch \(max\)"),
    "masked": (lambda spec: Masked(rolled), "as if a network mixes the samples"),
    "counting": (lambda spec: Own(count), "changes its attribute n in a step"),
    "rolled": (lambda spec: Own(rolled), "as if a network mixes the samples"),
    "first_job": (first_job, "as if a network mixes the samples|differs when it is repeated"),
    "counting_outside": (counting_outside, "differs when it is repeated"),
}


def with_net(config, tmp_path, builder, *words):
    """Two jobs with the same seed and two rates."""
    members = []
    for k in range(2):
        plain, names = config(*words, f"optimizer.lr={0.001 * (1 + k)}")
        plain = deepcopy(plain) | {"model": {"_target_": builder}}
        members.append(make_job(k, plain, names, tmp_path / str(k), members[-1].session if members else None))
    return members


@pytest.mark.parametrize("name", REFUSED)
def test_a_trial_refuses_networks_that_mix_jobs_or_keep_state(name, config, tmp_path, monkeypatch):
    """Though their jobs begin with the same weights and batches."""
    build, why = REFUSED[name]
    monkeypatch.setitem(globals(), "built", build)
    with pytest.raises(NotStackable, match=why):
        gain(Stack(with_net(config, tmp_path, f"{__name__}.own"), Checkpoints(tmp_path), "id"))


def test_a_low_precision_hides_no_mixing(config, tmp_path, monkeypatch):
    """Its rounding is larger than what a network that mixes a little changes."""
    monkeypatch.setitem(globals(), "built", lambda spec: Own(lambda net, y: y + 0.02 * y.roll(1, 0)))
    members = with_net(config, tmp_path, f"{__name__}.own", "trainer.precision=bf16")
    with pytest.raises(NotStackable, match="as if a network mixes the samples"):
        gain(Stack(members, Checkpoints(tmp_path), "id"))


def test_masks_of_infinities_and_constants_beside_the_batch_are_stacked(config, tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "built", lambda spec: Masked())
    gain(Stack(with_net(config, tmp_path, f"{__name__}.own"), Checkpoints(tmp_path), "id"))


def test_targets_of_networks_with_buffers_are_stacked_again(tmp_path, monkeypatch):
    """After the trial, and when a job leaves."""
    monkeypatch.setitem(globals(), "built", lambda spec: Scaled(spec.shape[0], spec.outputs))
    config = lambda *words: compose(*OTHERS["dqn"], "task=dqn", *words)  # noqa: E731
    members = with_net(config, tmp_path, f"{__name__}.own")
    stack = Stack(members, Checkpoints(tmp_path), "id")
    gain(stack)
    clocks = first_clocks(stack)[-1]
    batch = next(stack.learner.batches([member.session.data for member in members], clocks))
    assert stack.learner.step(batch, clocks)["loss"].isfinite().all()


class Scaled(nn.Linear):
    def __init__(self, *sizes) -> None:
        super().__init__(*sizes)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x * self.scale)


def own(spec: object) -> nn.Module:
    return globals()["built"](spec)


class Counter(Own):
    """Its outputs grow with the number of its steps, which a forward pass assigns to a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps = self.steps + 1
        return super().forward(x) * (self.steps / 4).clamp(max=1)


def counter(spec: object) -> nn.Module:
    return Counter()


def test_a_buffer_may_be_assigned_anew(config, tmp_path):
    members = with_net(config, tmp_path, f"{__name__}.counter")
    stack = Stack(members, Checkpoints(tmp_path), "id")
    gain(stack)
    clocks = [member.training.clock for member in members]
    for batch in islice(stack.learner.batches([member.session.data for member in members], clocks), 3):
        stack.learner.step(batch, clocks)
    assert [member.session.task.net.steps.item() for member in members] == [3, 3]
    saved = stack.parts()[0]["1"]["state"]
    assert saved["components"]["net"]["steps"].item() == 3
