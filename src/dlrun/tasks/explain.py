"""Explain a trained network's prediction for one input: feature maps, saliency and class activation, gates over a text.

Source: Zeiler and Fergus 2014 and the book, section 10.5 (what layers see); Simonyan et al. 2014 for saliency;
Selvaraju et al. 2017 for Grad-CAM; the book, sections 11.7 to 11.10, for gates.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.models.recurrence import gates
from dlrun.models.rnn import Recurrent
from dlrun.output.panels import overlay, panels, rows_of_maps, words_and_gates
from dlrun.spec import Image, Labelled, Tokens
from dlrun.tasks.images import grid, image_figure

LAYERS, MAPS, KERNELS = 6, 8, 64  # most that are drawn
GATES = {"LSTM": ("input gate", "forget gate", "output gate"), "GRU": ("reset gate", "update gate"), "RNN_TANH": ()}

Figures = dict[str, Callable]


def explain(net: nn.Module, x: Tensor, spec: Labelled, labels: Sequence[str], predict: Callable) -> Figures:
    """Figures by name for one input (1, *shape). predict: inputs -> probabilities (1, classes)."""
    if isinstance(spec, Image):
        return of_image(net, x, predict, labels)
    if isinstance(spec, Tokens) and isinstance(net, Recurrent):
        return of_text(net, x, spec, predict, labels)
    return {}


def of_image(net: nn.Module, x: Tensor, predict: Callable, labels: Sequence[str]) -> Figures:
    """Kernels of the first convolution, maps of some layers, saliency and Grad-CAM of the most probable class.

    The maps are below the kernels of the first layer's maps.
    """
    convolutions = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)}
    with torch.enable_grad(), kept_outputs(convolutions) as maps:
        x = x.clone().requires_grad_()
        out = net(x).float()
        best = int(predict(x.detach()).argmax(1))
        score = out[0, best] if out.shape[1] > 1 else out[0, 0] * (1 if best else -1)
        last = next((maps[name] for name in reversed(maps) if maps[name].shape[2:].numel() > 1), None)
        slopes = torch.autograd.grad(score, [x] if last is None else [x, last])
    image = stretched(x.detach()[0])
    saliency = slopes[0][0].abs().amax(0)
    p = float(predict(x.detach())[0, best])
    shown = {f"{labels[best]}, {p:.1%}": image, "saliency": saliency[None].cpu().numpy()}
    if last is not None:
        shown["Grad-CAM"] = overlay(image, grad_cam(last.detach(), slopes[1], x.shape[2:]).cpu().numpy())
    figures: Figures = {"saliency": partial(panels, shown, len(shown), 2.8)}
    if maps:
        name, layer = next(iter(maps.items()))
        kernels = kernels_of(convolutions[name])
        number, _, *sides = kernels.shape
        title = f"{name}: {_shown(number)} kernels of {' x '.join(map(str, sides))}"
        rows = {title: kernels[strength(layer)].numpy()} | dict(strongest(maps))
        figures["feature_maps"] = partial(rows_of_maps, rows)
        title = "kernels of the first convolution" + (f", {KERNELS} of {number}" if number > KERNELS else "")
        figures["first_kernels"] = partial(image_figure, grid(kernels[:KERNELS]), title)
    return figures


def kernels_of(layer: nn.Conv2d) -> Tensor:
    """A layer's kernels as images in [0, 1], each by its own range: (maps, 3, H, W) in colour, or (maps, 1, H, W)."""
    weight = layer.weight.detach().float().cpu()
    kernels = weight if weight.shape[1] == 3 else weight.mean(1, keepdim=True)
    low, high = (f(kernels, (1, 2, 3), keepdim=True) for f in (torch.amin, torch.amax))
    return (kernels - low) / (high - low).clamp(min=1e-9)


@contextmanager
def kept_outputs(layers: Mapping[str, nn.Module]) -> Iterator[dict[str, Tensor]]:
    """A context in which the layers' first outputs are kept by name, in the order in which they run."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, layer: nn.Module, inputs: object, out: Tensor) -> None:  # what a hook returns replaces `out`
        outputs.setdefault(name, out)

    hooks = [layer.register_forward_hook(partial(keep, name)) for name, layer in layers.items()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


def grad_cam(maps: Tensor, slopes: Tensor, size: Sequence[int]) -> Tensor:
    """The maps (1, C, H, W) weighted by their mean gradients, where positive, at the image's size, in [0, 1]."""
    cam = F.relu((slopes.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))
    cam = F.interpolate(cam, tuple(size), mode="bilinear", align_corners=False)[0, 0]
    return cam / cam.max().clamp(min=1e-12)


def strongest(maps: dict[str, Tensor]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the maps with the greatest means after a ReLU of up to LAYERS evenly spaced layers: name, (maps, H, W)."""
    names = list(maps)
    picked = sorted({round(k * (len(names) - 1) / max(1, LAYERS - 1)) for k in range(LAYERS)})
    for name in (names[k] for k in picked):
        layer = maps[name].detach()[0].float().cpu()
        number, height, width = layer.shape
        yield f"{name}: {_shown(number)} maps of {height} x {width}", layer[strength(maps[name])].numpy()


def strength(maps: Tensor) -> Tensor:
    """The numbers of the MAPS maps of (1, C, H, W) with the greatest means after a ReLU, the greatest first."""
    return F.relu(maps.detach()[0].float().cpu()).mean((1, 2)).argsort(descending=True, stable=True)[:MAPS]


def _shown(number: int) -> str:
    return f"{MAPS} of {number}" if number > MAPS else str(number)


def stretched(x: Tensor) -> np.ndarray:
    """An image's values moved to [0, 1]: whatever it was normalised by, it can be seen."""
    return ((x - x.min()) / (x.max() - x.min()).clamp(min=1e-9)).cpu().numpy()


@torch.no_grad()
def of_text(net: Recurrent, x: Tensor, spec: Tokens, predict: Callable, labels: Sequence[str]) -> Figures:
    """The means of the last layer's gates at each word, and the prediction for the text up to it."""
    tokens = x[0][x[0] != 0].long()
    if not len(tokens):
        return {}
    words = ["", "(start)", "?", "", *spec.words()]
    names = [words[k] if k < len(words) else "?" for k in tokens.tolist()]
    inputs = net.embedding(tokens[None])
    for layer in net.layers[:-1]:
        inputs = layer(inputs)[0]
    last = cast(nn.RNNBase, net.layers[-1])
    values = gates(last, inputs)[:, 0].mean(2).cpu().numpy() if GATES[last.mode] else None  # (gates, T)
    so_far = torch.zeros(len(tokens), x.shape[1], dtype=x.dtype, device=x.device)
    is_left = bool(x[0, -1])  # where the padding is
    for k in range(len(tokens)):
        first = x.shape[1] - k - 1 if is_left else 0
        so_far[k, first : first + k + 1] = tokens[: k + 1].to(x.dtype)
    p = torch.cat([predict(part) for part in so_far.split(256)])
    best = int(p[-1].argmax())
    curves = {} if values is None else dict(zip(GATES[last.mode], values, strict=True))
    return {"gates": partial(words_and_gates, names, curves, labels[best], p[:, best].cpu().numpy())}
