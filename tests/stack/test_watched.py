"""Networks and tasks of one's own whose steps cannot be stacked are refused with the reason."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlrun.output.checkpoints import Checkpoints
from dlrun.output.failures import OutOfMemory
from dlrun.stack.functions import NotStackable
from dlrun.stack.net import StackedNet
from dlrun.stack.run import make_job
from dlrun.stack.stacked import Stack
from dlrun.stack.trial import gain
from dlrun.stack.watch import watched


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
    "if": (
        lambda net, y: y if y.sum() > 0 else -y,
        "the network (Own) decides by values of the whole batch, as `if` an",
    ),
    "item": (
        lambda net, y: y * y.max().item(),
        "the network (Own) decides by values of the whole batch, as `if` and it",
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
    for then in (packed, lambda net, y: y * net.layer.weight.mean()):
        net = StackedNet([Own(then), Own(then)]).train().net
        with watched(fake_task(n=1, names=["a"]), net):
            net(torch.ones(6, 784))


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
    ):
        with pytest.raises(NotStackable, match=why):
            StackedNet([net, deepcopy(net)])


def counting(spec: object) -> nn.Module:
    return Own(count)


def test_a_network_that_counts_its_steps_trains_alone(config, tmp_path):
    members = []
    for k in range(2):
        plain, names = config(f"seed={k}")
        plain = deepcopy(plain) | {"model": {"_target_": f"{__name__}.counting"}}
        members.append(make_job(k, plain, names, tmp_path / str(k), members[-1].session if members else None))
    with pytest.raises(NotStackable, match="changes its attribute n in a step"):
        gain(Stack(members, Checkpoints(tmp_path), "id"))
