"""A stacked network computes what the networks of its jobs compute."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlrun.seeds import mix
from dlrun.stack.functions import NotStackable
from dlrun.stack.net import StackedNet

K, B = 5, 6


class Reader(nn.Module):
    """Words -> recurrent layer, whose outputs lie in the memory step by step -> dropout -> outputs."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words, self.read = nn.Embedding(20, 6, padding_idx=0), kind(6, 5, batch_first=True, bidirectional=True)
        self.drop, self.out = nn.Dropout(0.3), nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.drop(self.read(self.words(x))[0]).mean(1))


class Own(nn.Module):
    """Arithmetic with parameters and a buffer, in no layer of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.randn(4)), nn.Linear(4, 3)
        self.register_buffer("mean", torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out((x * self.scale.exp()) @ (self.scale[:, None] - self.mean).square())


class Packed(Reader):
    """Reads as many words of each text as it has before its padding, with and without states of its own."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lengths = (x != 0).sum(1).clamp(min=1)
        packed = pack_padded_sequence(self.words(x), lengths, batch_first=True, enforce_sorted=False)
        out, states = self.read(packed)
        out, _ = self.read(out._replace(data=out.data[:, :6]), states)
        return self.out(self.drop(pad_packed_sequence(out, batch_first=True)[0]).mean(1))


class Turned(nn.Module):
    """Time is the first axis."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.read, self.out = nn.Embedding(20, 6), nn.RNN(6, 5, nonlinearity="relu"), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.read(self.words(x).transpose(0, 1))[0][-1])


class Cells(nn.Module):
    """Cells of all kinds, step by step."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.long, self.gru = nn.Embedding(20, 6), nn.LSTMCell(6, 5), nn.GRUCell(6, 5, bias=False)
        self.tanh, self.relu = nn.RNNCell(6, 5), nn.RNNCell(5, 5, nonlinearity="relu")
        self.out = nn.Linear(15, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pair = state = plain = last = None
        for word in self.words(x).unbind(1):
            pair, state, plain = self.long(word, pair), self.gru(word, state), self.tanh(word, plain)
            last = self.relu(plain, last)
        return self.out(torch.cat([pair[0], state, last], 1))


def dense() -> nn.Module:
    norms = nn.BatchNorm1d(8), nn.PReLU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.LayerNorm(8), nn.Dropout(0.2)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), *norms, nn.RMSNorm(8), nn.Linear(8, 3, bias=False))


def convolutions() -> nn.Module:
    first = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, groups=2, bias=False)
    norms = nn.GroupNorm(2, 6), nn.InstanceNorm2d(6, affine=True), nn.ConvTranspose2d(6, 2, 3, 2, output_padding=1)
    return nn.Sequential(*first, *norms, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))


def maps(norm: type[nn.Module] = nn.BatchNorm2d) -> nn.Module:
    """Dropout on maps, whose channels may lie last in the memory."""
    body = nn.Conv2d(1, 4, 3), nn.Dropout(0.3), norm(4), nn.PReLU(4), nn.Dropout(0.2), nn.MaxPool2d(2)
    ends = nn.Conv2d(4, 5, 1), nn.Dropout(0.4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)
    return nn.Sequential(*body, *ends)


NETS = {
    "dense": (dense, (B, 4)), "own": (Own, (B, 4)), "convolutions": (convolutions, (B, 2, 9, 9)),
    "maps": (maps, (B, 1, 9, 9)), "large_maps": (partial(maps, nn.PReLU), (B, 1, 60, 60)),
    "large_convolution": (lambda: nn.Sequential(nn.Conv2d(8, 3, 3), nn.AvgPool2d(28), nn.Flatten()), (B, 8, 30, 30)),
    "lstm": (partial(Reader, nn.LSTM), None), "gru": (partial(Reader, nn.GRU), None),
    "rnn": (partial(Reader, nn.RNN), None), "cells": (Cells, None), "turned": (Turned, None),
    "packed_lstm": (partial(Packed, nn.LSTM), None), "packed_gru": (partial(Packed, nn.GRU), None),
}  # fmt: skip


OF_MAPS = [name for name, (_, shape) in NETS.items() if shape and len(shape) == 4]


@pytest.mark.parametrize(("name", "channels_last"), [*((n, False) for n in NETS), *((n, True) for n in OF_MAPS)])
def test_a_stacked_network_computes_what_its_jobs_compute(name, channels_last):
    torch.manual_seed(0)
    make, shape = NETS[name]
    nets = [make().to(memory_format=torch.channels_last if channels_last else torch.preserve_format) for _ in range(K)]
    alone = deepcopy(nets)
    inputs = [torch.randn(shape) if shape else torch.randint(0, 20, (B, 7)) for _ in nets]
    net = StackedNet(nets, channels_last).train()
    net.jobs.seed(list(range(K)), step=3)
    net(torch.cat(inputs)).square().sum().backward()
    for k, (one, x) in enumerate(zip(alone, inputs, strict=True)):
        torch.manual_seed(mix(k, 3, 0))  # as a job alone is seeded before its step
        one(x).square().sum().backward()
        for param, wanted in zip(nets[0].parameters(), one.parameters(), strict=True):
            torch.testing.assert_close(net.leaves[param].grad[k], wanted.grad, rtol=1e-3, atol=1e-4)
        for buffer, wanted in zip(nets[k].buffers(), one.buffers(), strict=True):
            torch.testing.assert_close(buffer, wanted)


class InPlace(Own):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x.mul_(self.scale))


class Normal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.utils.spectral_norm(nn.Linear(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class Bounded(Own):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.clamp(x, max=self.scale))


class Last(nn.Module):
    """The last outputs of a recurrent layer."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.read = nn.GRU(size, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.read(x)[0][:, -1]


class Constant(Own):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x + self.scale * torch.arange(4.0))


class OnConstant(Own):
    """A layer reads a constant, or a parameter, instead of the batch."""

    def __init__(self, x: torch.Tensor | None = None, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.x, self.layer = x, layer or nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(self.scale if self.x is None else self.x).sum() * x


ALONE = "an input without an axis for the batch has no stacked form$"


@pytest.mark.parametrize(
    ("net", "why"),
    [
        (OnConstant(torch.ones(4)), f"^layer.weight of Linear: {ALONE}"),
        (OnConstant(torch.ones(1, 4)), f"^layer.weight of Linear: {ALONE}"),
        (OnConstant(), "^layer.weight of Linear: an input computed from parameters alone has no stacked form$"),
        (OnConstant(torch.ones(1, 4, 4), nn.Conv1d(4, 2, 3)), f"^layer.weight of Conv1d: {ALONE}"),
        (OnConstant(torch.ones(4, 4), nn.Conv1d(4, 2, 3)), f"^layer.weight of Conv1d: {ALONE}"),
        (OnConstant(torch.ones(4), nn.LayerNorm(4)), f"^layer.weight of LayerNorm: {ALONE}"),
        (OnConstant(torch.ones(3, 4), nn.BatchNorm1d(4)), f"^layer.running_mean of BatchNorm1d: {ALONE}"),
        (OnConstant(torch.arange(3), nn.Embedding(3, 2)), f"^layer.weight of Embedding: {ALONE}"),
        (OnConstant(torch.ones(3), nn.PReLU()), f"^layer.weight of PReLU: {ALONE}"),
        (OnConstant(torch.ones(4), nn.GRUCell(4, 2)), f"^layer.weight_ih of GRUCell: {ALONE}"),
        (OnConstant(torch.ones(1, 4, 4), Last(4)), f"^layer.read of GRU: {ALONE}"),
    ],
    ids=["vector", "row", "parameter", "map", "maps", "layer", "batch", "ids", "prelu", "cell", "gru"],
)
def test_a_layer_that_does_not_read_the_batch_is_named(net, why):
    with pytest.raises(NotStackable, match=why):
        StackedNet([net, deepcopy(net)]).train()(torch.ones(4, 4))


def test_a_layer_without_a_stacked_form_is_named():
    ids = torch.ones(4, dtype=torch.long)
    for net, x, why in (
        (InPlace(), torch.ones(4, 4), "^scale of InPlace: mul_ has no stacked form$"),
        (Constant(), torch.ones(4, 4), "^scale of Constant: mul has no stacked form$"),
        (nn.Sequential(nn.Embedding(4, 3, max_norm=1.0)), ids, "0.weight of Embedding: an embedding with max_norm"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout1d(0.5)), torch.ones(4, 4), "1: Dropout1d has no stacked form"),
        (Normal(), torch.ones(4, 4), "^layer.weight_orig of Linear: normalize has no stacked form$"),
        (Bounded(), torch.ones(4, 4), "^scale of Bounded: clamp has no stacked form$"),
        (nn.GRU(4, 2, 2, dropout=0.1), torch.ones(3, 4, 4), "GRU: its own dropout has no stacked form"),
        (nn.ReLU(), torch.ones(4, 4), "^a network without parameters has no stacked form$"),
    ):
        with pytest.raises(NotStackable, match=why):
            StackedNet([net, deepcopy(net)]).train()(x)
    with pytest.raises(NotStackable, match="1 is not the same layer in all jobs"):
        StackedNet([nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())])
