"""Recurrent networks for texts and series: simple RNN, LSTM (Hochreiter and Schmidhuber 1997), GRU (Cho et al. 2014).

Source: the book, sections 11.5 (two layers of 64 units, embedding 100, input dropout 0.5, the last output) and 11.11.
The GRU is torch's and Keras's: its reset gate is applied after the recurrent product, in the book's formula before.
"""

from typing import Annotated, Literal, cast

import torch
from torch import Tensor, nn

from dlrun.models.columns import since_last, step_entry
from dlrun.models.embedding import Embedding as EmbeddingLayer
from dlrun.models.embedding import make_embedding
from dlrun.models.layers import initialise
from dlrun.models.options import options_of
from dlrun.models.recurrence import unroll
from dlrun.output.report import Report
from dlrun.spec import Series, Tokens
from dlrun.types import Embedding, Probability, Range, Size

KINDS = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class Recurrent(nn.Module):
    """A first layer, recurrent layers and a dense layer: (B, T) integers or (B, T, columns) -> (B, outputs).

    embedding: the first layer, which gives vectors (B, T, C).
    """

    def __init__(
        self, embedding: nn.Module, layers: list[nn.RNNBase], output: nn.Linear, *,
        dropout: float, input_dropout: float, head: str, mask_padding: bool, is_fused: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding, self.layers, self.output = embedding, nn.ModuleList(layers), output
        self.between, self.at_inputs = nn.Dropout(dropout), nn.Dropout(input_dropout)
        self.head, self.mask_padding, self.is_fused = head, mask_padding, is_fused
        self.description = options_of(embedding).description

    def report(self) -> Report:
        """The embedding's files for the run's folder, at the end of a run."""
        return self.embedding.report() if isinstance(self.embedding, EmbeddingLayer) else Report()

    def forward(self, tokens: Tensor) -> Tensor:
        lengths = read = None
        if self.mask_padding and not tokens.is_meta:
            tokens, lengths = align(tokens)
            read = lengths.cpu() if self.is_fused else lengths  # once for all layers, since it waits for the GPU
        x = self.embedding(tokens)  # (B, T, C)
        for i, layer in enumerate(self.layers):
            x = self.between(x) if i else x
            if self.at_inputs.p:
                x = x * self.at_inputs(torch.ones_like(x[:, :1]))  # one mask for all times
            x = self._run(cast(nn.RNNBase, layer), x, read)  # (B, T, H)
        return self.output(self._summary(x, lengths))  # (B, outputs)

    def _run(self, layer: nn.RNNBase, x: Tensor, lengths: Tensor | None) -> Tensor:
        if not self.is_fused:
            return unroll(layer, x, lengths)
        if x.is_cuda and torch.get_autocast_dtype("cuda") == torch.bfloat16:  # autocast would run cuDNN in fp16
            with torch.autocast("cuda", enabled=False):
                return self._fused(layer, x.float(), lengths)
        return self._fused(layer, x, lengths)

    def _fused(self, layer: nn.RNNBase, x: Tensor, lengths: Tensor | None) -> Tensor:
        if lengths is None:
            return layer(x)[0]
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(layer(packed)[0], batch_first=True, total_length=x.shape[1])[0]

    def _summary(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """(B, T, H) -> (B, H): each direction's output after reading the whole text, or the mean or maximum."""
        if self.head == "last":
            half = self.layers[-1].hidden_size
            ends = x[:, -1] if lengths is None else x[torch.arange(x.shape[0], device=x.device), lengths - 1]
            return torch.cat((ends[:, :half], x[:, 0, half:]), 1) if self.layers[-1].bidirectional else ends
        if lengths is None:
            return x.mean(1) if self.head == "mean" else x.amax(1)
        if self.head == "mean":
            return x.sum(1) / lengths[:, None]  # outputs after the end are zero
        is_padding = torch.arange(x.shape[1], device=x.device) >= lengths[:, None]  # (B, T)
        return x.masked_fill(is_padding[:, :, None], float("-inf")).amax(1)


def align(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Move the padding of tokens (B, T) to the end; give the tokens and the lengths (B,), which are at least 1."""
    is_text = tokens != 0
    first = is_text.int().argmax(1)
    positions = (torch.arange(tokens.shape[1], device=tokens.device) + first[:, None]) % tokens.shape[1]
    return tokens.gather(1, positions), is_text.sum(1).clamp(min=1)


def recurrent(
    spec: Tokens | Series,
    *,
    kind: Literal["rnn", "lstm", "gru"],
    embedding: Embedding,
    units: Size,
    layers: Annotated[int, Range(1, 100)],
    bidirectional: bool,
    dropout: Probability,
    input_dropout: Probability,
    head: Literal["last", "mean", "max"],
    mask_padding: bool,
    cell: Literal["fused", "loop"],
    init: Literal["torch", "keras"],
) -> nn.Module:
    """Texts (B, length) or series (B, length, columns) -> (B, outputs).

    embedding, mask_padding: of texts; series have neither. dropout: between layers, drawn anew for every time step.
    input_dropout: on every layer's inputs, with one mask for all time steps (Keras's `dropout`; Gal and Ghahramani
    2016). mask_padding: skip padding. cell: torch's fused layers, or a loop over the formulas.
    """
    if isinstance(spec, Series):
        first, width = step_entry(spec)
    else:
        first, width = make_embedding(spec, embedding, init), embedding.size
    stack = []
    for _ in range(layers):
        layer = KINDS[kind](width, units, batch_first=True, bidirectional=bidirectional)
        if init == "keras":
            initialise_keras(layer)
        stack.append(layer)
        width = units * (1 + bidirectional)
    net = Recurrent(
        first, stack, initialise(nn.Linear(width, spec.outputs), init),
        dropout=dropout, input_dropout=input_dropout, head=head,
        mask_padding=mask_padding and isinstance(spec, Tokens), is_fused=cell == "fused",
    )  # fmt: skip
    return since_last(net, spec)


def initialise_keras(layer: nn.RNNBase) -> None:
    """Initialise like Keras: kernels Glorot uniform, recurrent kernels orthogonal, biases 0, the LSTM's forget bias 1.

    Keras's RNN and LSTM have one bias where torch adds two, so the second is fixed at 0. Keras's GRU has both.
    """
    for name, weight in layer.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(weight)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(weight)
        else:
            nn.init.zeros_(weight)
            if name.startswith("bias_hh") and layer.mode != "GRU":
                weight.requires_grad_(False)
            elif layer.mode == "LSTM":
                nn.init.ones_(weight[layer.hidden_size : 2 * layer.hidden_size])  # in torch's order i, f, g, o
