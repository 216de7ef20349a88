"""Recurrent layers and cells of torch for the parameters of several jobs at once.

torch's fused layers run job after job. Cells are computed from their formulas.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from dlrun.models.recurrence import gru_step, lstm_step
from dlrun.stack.functions import NotStackable, linear
from dlrun.system.torch_internals import own_tensors, refresh_flat_weights

States = Tensor | tuple[Tensor, ...] | None  # (layers, K * B, H), those of an LSTM twice


class Reading:
    """The forward pass of a recurrent layer, whose parameters are handles, for K jobs. plain: that of one job."""

    def __init__(self, layer: nn.RNNBase, num: int, owner: str) -> None:
        self.layer, self.plain, self.num, self.owner = layer, layer.forward, num, owner
        if layer.dropout and layer.num_layers > 1:  # drawn within torch's kernel, from one generator
            raise NotStackable(f"{owner}: its own dropout has no stacked form: expected nn.Dropout between layers")

    def __call__(self, x: Tensor | PackedSequence, states: States = None) -> tuple[Tensor | PackedSequence, States]:
        """(K * B, T, C), or (T, K * B, C) without batch_first, or packed sequences -> outputs, last states."""
        if isinstance(x, PackedSequence):
            padded, lengths = pad_packed_sequence(x, batch_first=True)
            parts = zip(padded.chunk(self.num), lengths.chunk(self.num), strict=True)
            packed = [pack_padded_sequence(*part, batch_first=True, enforce_sorted=False) for part in parts]
            outs, ends = self._each(packed, states)
            whole = torch.cat([pad_packed_sequence(out, True, total_length=padded.shape[1])[0] for out in outs])
            return pack_padded_sequence(whole, lengths, batch_first=True, enforce_sorted=False), ends
        if x.dim() != 3 or x.shape[0 if self.layer.batch_first else 1] % self.num:
            raise NotStackable(f"{self.owner}: an input without an axis for the batch has no stacked form")
        if not self.layer.batch_first:
            outs, ends = self._each(x.chunk(self.num, 1), states)
            return torch.cat(outs, 1), ends
        outs, ends = self._each(x.chunk(self.num), states)
        return torch.cat([out.transpose(0, 1) for out in outs], 1).transpose(0, 1), ends  # torch's layout: by steps

    def _each(self, inputs: Any, states: States) -> tuple[list[Any], States]:
        """The outputs of each job, and the last states of all."""
        params = own_tensors(self.layer)[0]
        handles: dict[str, Any] = dict(params)
        given = states if isinstance(states, tuple) else () if states is None else (states,)
        columns = [state.chunk(self.num, 1) for state in given]
        outs, ends = [], []
        try:
            for i, x in enumerate(inputs):
                params.update({name: handle.stack[i] for name, handle in handles.items()})
                refresh_flat_weights(self.layer)
                mine = tuple(column[i].contiguous() for column in columns)
                out, end = self.plain(x, mine if isinstance(states, tuple) else mine[0] if mine else None)
                outs.append(out)
                ends.append(end)
        finally:
            params.update(handles)
            refresh_flat_weights(self.layer)
        if isinstance(ends[0], Tensor):
            return outs, torch.cat(ends, 1)
        return outs, tuple(torch.cat(each, 1) for each in zip(*ends, strict=True))


def lstm_cell(x: Tensor, states: tuple[Tensor, Tensor], w_x: Any, w_h: Any, b_x: Any, b_h: Any) -> tuple[Tensor, ...]:
    """(K * B, C) and both states (K * B, H) -> the new states."""
    return lstm_step(linear(x, w_x, b_x), linear(states[0], w_h, b_h), *states)


def gru_cell(x: Tensor, h: Tensor, w_x: Any, w_h: Any, b_x: Any, b_h: Any) -> Tensor:
    """(K * B, C) and the state (K * B, H) -> the new state."""
    return gru_step(linear(x, w_x, b_x), linear(h, w_h, b_h), h, h)[0]


def tanh_cell(x: Tensor, h: Tensor, w_x: Any, w_h: Any, b_x: Any, b_h: Any) -> Tensor:
    """(K * B, C) and the state (K * B, H) -> the new state."""
    return torch.tanh(linear(x, w_x, b_x) + linear(h, w_h, b_h))


def relu_cell(x: Tensor, h: Tensor, w_x: Any, w_h: Any, b_x: Any, b_h: Any) -> Tensor:
    """(K * B, C) and the state (K * B, H) -> the new state."""
    return torch.relu(linear(x, w_x, b_x) + linear(h, w_h, b_h))


CELLS: dict[Callable, Callable] = {
    torch.lstm_cell: lstm_cell,
    torch.gru_cell: gru_cell,
    torch.rnn_tanh_cell: tanh_cell,
    torch.rnn_relu_cell: relu_cell,
}
