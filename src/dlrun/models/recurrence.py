"""Recurrent layers computed step by step from their formulas, with the weights of torch's fused layers.

Source: the book, sections 11.2 (h = tanh(W x + U h + b)), 11.8 (LSTM) and 11.10 (GRU).
Letters in shapes: B batch, T time steps, C inputs, H units.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Step = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]  # (W x, U h, h, c) -> new h, new c


def unroll(layer: nn.RNNBase, x: Tensor, lengths: Tensor | None = None) -> Tensor:
    """Compute `layer(x)[0]`: (B, T, C) -> (B, T, H), or (B, T, 2H) if the layer is bidirectional.

    lengths (B,): steps after a text's end are skipped and their outputs are zero, as with packed sequences.
    """
    step = {"RNN_TANH": rnn_step, "LSTM": lstm_step, "GRU": gru_step}[layer.mode]
    ends = ("_l0", "_l0_reverse") if layer.bidirectional else ("_l0",)
    return torch.cat([_direction(layer, step, x, lengths, end) for end in ends], 2)


def _direction(layer: nn.RNNBase, step: Step, x: Tensor, lengths: Tensor | None, end: str) -> Tensor:
    w_x, w_h, b_x, b_h = (getattr(layer, name + end) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    from_x = F.linear(x, w_x, b_x)  # (B, T, gates * H)
    h = c = x.new_zeros(x.shape[0], layer.hidden_size)  # (B, H)
    outputs = [h] * x.shape[1]
    times = range(x.shape[1])
    for t in reversed(times) if end.endswith("reverse") else times:
        new_h, new_c = step(from_x[:, t], F.linear(h, w_h, b_h), h, c)
        if lengths is None:
            h = outputs[t] = new_h
            c = new_c
        else:
            is_text = (t < lengths)[:, None]  # (B, 1)
            outputs[t] = torch.where(is_text, new_h, 0)
            h, c = torch.where(is_text, new_h, h), torch.where(is_text, new_c, c)
    return torch.stack(outputs, 1)


def gates(layer: nn.RNNBase, x: Tensor) -> Tensor:
    """The gates of an LSTM (input, forget, output) or a GRU (reset, update) over time: (B, T, C) -> (gates, B, T, H).

    Of the forward direction. The update gate is torch's: 1 keeps the old state.
    """
    w_x, w_h, b_x, b_h = (getattr(layer, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    h = unroll(layer, x)[:, :, : layer.hidden_size]  # (B, T, H)
    before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
    parts = (F.linear(x, w_x, b_x) + F.linear(before, w_h, b_h)).chunk(4 if layer.mode == "LSTM" else 3, 2)
    chosen = [parts[k] for k in ((0, 1, 3) if layer.mode == "LSTM" else (0, 1))]
    return torch.stack(chosen).sigmoid()


def rnn_step(from_x: Tensor, from_h: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h' = tanh(W x + U h + b)."""
    return torch.tanh(from_x + from_h), c


def lstm_step(from_x: Tensor, from_h: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """c' = f c + i g, h' = o tanh(c'): input, forget and output gates i, f, o, and the candidate g."""
    i, f, g, o = (from_x + from_h).chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_step(from_x: Tensor, from_h: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """h' = (1 - z) n + z h, n = tanh(W x + r U h). Here z = 1 keeps the old state; the book's z is 1 - z."""
    r_x, z_x, n_x = from_x.chunk(3, 1)
    r_h, z_h, n_h = from_h.chunk(3, 1)
    z, r = (z_x + z_h).sigmoid(), (r_x + r_h).sigmoid()
    return (1 - z) * (n_x + r * n_h).tanh() + z * h, c
