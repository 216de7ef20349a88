"""A table of a network's layers: output shapes, parameters, multiply-adds. Built from the spec alone; no data is read.

Multiply-adds are those of convolutions and matrix products, for one sample, as papers count them: not those of norms,
activations and poolings, and a multiplication with its addition is one. The net runs once in evaluation mode.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from dlrun.config.build import build
from dlrun.output.console import table
from dlrun.spec import Spec

IDLE = (nn.Identity, nn.Sequential)  # an empty one: they hand on what comes in
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


class Layer(NamedTuple):
    """shape: of the output without the batch, None where the layer did not run. times: how often it ran.

    parameters, multiply_adds: its own, without those of the layers in it; multiply-adds of all its runs, per sample.
    """

    name: str
    kind: str
    shape: tuple[int, ...] | None
    times: int
    parameters: int
    multiply_adds: int


def summary(config: dict, names: dict[str, str]) -> str:
    """The table for a config that was checked. Raises UserError where the net cannot be built for the data."""
    spec = build(config["data"]).spec
    try:
        with torch.device("meta"):  # shapes without numbers: any size in no time
            net = build(config["model"])(spec)
            found = layers(net, spec)
    except NotImplementedError:  # an operation that torch has for numbers only
        net = build(config["model"])(spec)
        found = layers(net, spec)
    rows = [["layer", "output", "parameters", "multiply-adds"]]
    for layer in found:
        kind = layer.kind + (f", {layer.times} times" if layer.times > 1 else "")
        shape = "-" if layer.shape is None else "x".join(map(str, layer.shape)) or "1"
        counts = (f"{count:,}" if count else "-" for count in (layer.parameters, layer.multiply_adds))
        rows.append([f"{layer.name} ({kind})" if layer.name else kind, shape, *counts])
    parameters = list(net.parameters())
    total = sum(p.numel() for p in parameters)
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    told = f"; {learning:,} of them learn" if learning < total else ""
    if idle := sum(layer.parameters for layer in found if not layer.times):
        told += f"; {idle:,} of them in layers that do not run in evaluation"
    megabytes = sum(p.numel() * p.element_size() for p in parameters) / 2**20
    return (
        f"model={names.get('model')} data={names.get('data')}: {spec}\n\n{table(rows)}\n\n"
        f"parameters     {total:,} ({megabytes:,.1f} MB){told}\n"
        f"multiply-adds  {readable(sum(layer.multiply_adds for layer in found))} per sample"
    )


def layers(net: nn.Module, spec: Spec) -> list[Layer]:
    """The layers that have none in them, and those with parameters or products of their own, in the net's order."""
    shapes: dict[nn.Module, tuple[int, ...]] = {}
    times: dict[nn.Module, int] = {}
    own: dict[nn.Module, int] = {}
    counter, stack = FlopCounterMode(display=False), []

    def enter(module: nn.Module, args: object) -> None:
        stack.append([counter.get_total_flops(), 0])

    def leave(module: nn.Module, args: object, out: object) -> None:
        before, inside = stack.pop()
        spent = counter.get_total_flops() - before
        if stack:
            stack[-1][1] += spent
        own[module] = own.get(module, 0) + (spent - inside) // 2  # a multiplication and an addition are two operations
        times[module] = times.get(module, 0) + 1
        shapes[module] = _shape(out)

    hooks = [h for m in net.modules() for h in (m.register_forward_pre_hook(enter), m.register_forward_hook(leave))]
    try:
        with torch.no_grad(), counter:
            _run(net.eval(), spec)
    finally:
        for hook in hooks:
            hook.remove()
    found = []
    for name, module in net.named_modules():
        parameters = sum(p.numel() for p in module.parameters(recurse=False))
        is_leaf = not any(True for _ in module.children()) and type(module) not in IDLE
        if parameters or own.get(module) or is_leaf and module in times:
            kind, count = type(module).__name__, times.get(module, 0)
            found.append(Layer(name, kind, shapes.get(module), count, parameters, own.get(module, 0)))
    return found


def _run(net: nn.Module, spec: Spec) -> None:
    """All parts of a net, on a sample of zeros; an encoder and a decoder each on one of its own."""
    if hasattr(net, "generator") and hasattr(net, "critic"):
        net(torch.zeros(1, net.latent))
    elif hasattr(net, "autoencoder") and hasattr(net, "critic"):  # which judges codes
        _run(net.autoencoder, spec)
        net.critic(torch.zeros(1, net.latent))
    elif hasattr(net, "encoder") and hasattr(net, "decoder"):
        net.encoder(torch.zeros(1, *spec.shape))
        net.decoder(torch.zeros(1, net.latent))
    else:
        net(torch.zeros(1, *spec.shape))


def _shape(out: object) -> tuple[int, ...] | None:
    """Of the first tensor in what a layer gives, without the batch."""
    while isinstance(out, tuple | list) and out:
        out = out[0]
    if not isinstance(out, Tensor):
        return None
    shape = tuple(out.shape)
    return shape[1:] if shape[:1] == (1,) else shape


def readable(count: int) -> str:
    """118,013,952 -> 118.0 M"""
    size, unit = next(((s, u) for s, u in UNITS if count >= s), (1, ""))
    return f"{count / size:.3f} {unit}" if unit else str(count)
