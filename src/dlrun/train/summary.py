"""A table of a network's layers: output shapes, parameters, multiply-adds. It needs the data's spec, not the data.

Multiply-adds are counted as in papers: for one sample, in convolutions and matrix products only (not in norms,
activations and pooling), a multiplication with its addition as one. The net runs once, in evaluation mode.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlrun.config.build import build
from dlrun.models.autoencoder import AdversarialAutoEncoder, EncoderDecoder
from dlrun.models.gan import Pair
from dlrun.output.console import table
from dlrun.spec import Spec

IDLE = (nn.Identity, nn.Sequential)  # without children, these return their input and need no row
LISTS = (nn.ParameterList, nn.ParameterDict)
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Layer(NamedTuple):
    """A row of the table.

    kind: the class's name. shape: of the output, without the batch; None if the layer did not run. num_calls: how often
    it ran. parameters, multiply_adds: without those of its child layers; multiply-adds per sample, over all calls.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    num_calls: int
    parameters: int
    multiply_adds: int


def summary(config: dict, names: dict[str, str]) -> str:
    """The table for a checked config. names: the choice of each config group.

    Raises UserError if the net cannot be built for the data.
    """
    spec = build(config["data"]).spec
    try:
        with torch.device("meta"):  # tensors without storage: fast for any size
            net = build(config["model"])(spec)
            table_layers = layers(net, spec)
    except NotImplementedError:  # an operation that torch lacks for meta tensors
        net = build(config["model"])(spec)
        table_layers = layers(net, spec)
    rows = [["layer", "output", "parameters", "multiply-adds"]]
    for layer in table_layers:
        kind = layer.kind + (f", {layer.num_calls} times" if layer.num_calls > 1 else "")
        shape = "-" if layer.shape is None else "x".join(map(str, layer.shape)) or "1"
        counts = (f"{count:,}" if count else "-" for count in (layer.parameters, layer.multiply_adds))
        rows.append([f"{layer.name} ({kind})" if layer.name else kind, shape, *counts])
    parameters = list(net.parameters())
    total = sum(p.numel() for p in parameters)
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    note = f"; {learning:,} of them learn" if learning < total else ""
    if idle := sum(layer.parameters for layer in table_layers if not layer.num_calls):
        note += f"; {idle:,} of them in layers that do not run in evaluation"
    megabytes = sum(p.numel() * p.element_size() for p in parameters) / 2**20
    return (
        f"model={names.get('model')} data={names.get('data')}: {spec}\n\n{table(rows)}\n\n"
        f"parameters     {total:,} ({megabytes:,.1f} MB){note}\n"
        f"multiply-adds  {readable(sum(layer.multiply_adds for layer in table_layers))} per sample"
    )


def layers(net: nn.Module, spec: Spec) -> list[Layer]:
    """The leaf layers, and all others with parameters or multiply-adds of their own, in the net's order."""
    shapes: dict[nn.Module, tuple[int, ...] | None] = {}
    num_calls: dict[nn.Module, int] = {}
    multiply_adds: dict[nn.Module, int] = {}
    counter = FlopCounterMode(display=False)
    stack: list[list[int]] = []  # for each module being run: the count when it was entered, its children's count so far

    def enter(module: nn.Module, args: object) -> None:
        stack.append([counter.get_total_flops(), 0])

    def leave(module: nn.Module, args: object, out: object) -> None:
        before, in_children = stack.pop()
        flops = counter.get_total_flops() - before
        if stack:
            stack[-1][1] += flops
        multiply_adds[module] = multiply_adds.get(module, 0) + (flops - in_children) // 2  # two operations each
        num_calls[module] = num_calls.get(module, 0) + 1
        shapes[module] = _shape(out)

    hooks = [h for m in net.modules() for h in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))]
    try:
        with torch.no_grad(), counter:
            _run(net.eval(), spec)
    finally:
        for hook in hooks:
            hook.remove()
    rows = []
    for name, module in net.named_modules():
        if isinstance(module, LISTS):  # its parameters are its owner's
            continue
        lists = [child for child in module.children() if isinstance(child, LISTS)]
        parameters = sum(p.numel() for part in (module, *lists) for p in part.parameters(recurse=False))
        is_leaf = len(lists) == len(list(module.children())) and type(module) not in IDLE
        if parameters or multiply_adds.get(module) or is_leaf and module in num_calls:
            kind, calls = type(module).__name__, num_calls.get(module, 0)
            rows.append(Layer(name, kind, shapes.get(module), calls, parameters, multiply_adds.get(module, 0)))
    return rows


def _run(net: nn.Module, spec: Spec) -> None:
    """Run all components of any net on a sample of zeros; encoder and decoder each on an input of its own shape."""
    if isinstance(net, Pair):
        net(torch.zeros(1, net.latent))
    elif isinstance(net, AdversarialAutoEncoder):  # its critic takes latent codes
        _run(net.autoencoder, spec)
        net.critic(torch.zeros(1, net.latent))
    elif isinstance(net, EncoderDecoder):
        net.encoder(torch.zeros(1, *spec.shape))
        net.decoder(torch.zeros(1, net.latent))
    else:
        net(torch.zeros(1, *spec.shape))


def _shape(out: object) -> tuple[int, ...] | None:
    """Shape of the first tensor in a layer's output, without a batch dimension of 1; None if there is no tensor."""
    while isinstance(out, tuple | list | dict) and out:
        out = next(iter(out.values() if isinstance(out, dict) else out))
    if not isinstance(out, Tensor):
        return None
    shape = tuple(out.shape)
    return shape[1:] if shape[:1] == (1,) else shape


def readable(count: int) -> str:
    """A large count in short: 118,013,952 -> 118.014 M."""
    size, unit = next(((s, u) for s, u in UNITS if count >= s), (1, ""))
    return f"{count / size:.3f} {unit}" if unit else str(count)
