"""Noise and codes: drawn, turned into samples, and shown: lines between codes; where they are two numbers, a map."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from dlrun.output.drawing import COLOURS, drawable, new_figure, plain_ticks
from dlrun.seeds import generator
from dlrun.spec import Image
from dlrun.system.device import Device
from dlrun.tasks.images import between, first_rows, grid, shown

Encode = Callable[[Tensor], Tensor]  # (B, C, H, W) -> (B, latent)


def noise(latent: int, count: int, device: Device, seed: int) -> Tensor:
    """Noise (count, latent) that is the same in every epoch and every run."""
    return torch.randn(count, latent, generator=generator(device.device, 0, seed), device=device.device)


@torch.no_grad()
def draw(net: Callable[[Tensor], Tensor], z: Tensor, device: Device, size: int = 500) -> Tensor:
    """What a network makes of noise, or of pictures, in pieces that fit the memory: (N, ...) -> (N, ...)."""
    parts = []
    for piece in (z,) if torch.compiler.is_exporting() else z.split(size):  # a graph is for batches of any size
        with device.autocast():
            parts.append(net(piece).float())
    return torch.cat(parts)


@torch.no_grad()
def latent_figures(encode: Encode, decode: Callable, batches: Callable[[], Iterator], spec: Image) -> dict[str, object]:
    """interpolation: ten lines of ten between pictures of the split, as many as there are pictures for.

    latent_map, latent_plane: where codes lie (book section 12.1, Hinton 2006), and what they give, of two numbers.
    """
    figures = {}
    codes = encode(first_rows(batches(), 20)).float()
    half = len(codes) // 2
    if half:
        lines = decode(between(codes[:half], codes[half : 2 * half], 10))
        figures["interpolation"] = partial(shown, grid(lines, 10), "from code to code, test")
    if codes.shape[1] == 2:
        figures["latent_map"] = partial(latent_map, encode, batches(), spec)
        figures["latent_plane"] = partial(latent_plane, decode, codes.device)
    return figures


@torch.no_grad()
def latent_plane(decode: Callable, device: torch.device) -> object:
    """What 20 x 20 codes of two numbers give, (-2.5, 2.5) at the top left."""
    steps = torch.linspace(-2.5, 2.5, 20, device=device)
    plane = torch.stack(torch.meshgrid(steps, -steps, indexing="xy"), -1).view(-1, 2)
    return shown(grid(decode(plane), 20), "what z over [-2.5, 2.5] squared gives")


@torch.no_grad()
def latent_map(encode: Encode, batches: Iterator, spec: Image) -> object:
    """The codes of all pictures in `batches`, in the colour of their class."""
    parts = [(encode(x).float().cpu(), y.cpu()) for x, y in batches]
    z, y = torch.cat([p for p, _ in parts]).numpy(), torch.cat([p for _, p in parts]).numpy()
    figure, axes = new_figure(7.2, 6.0)
    names = drawable(spec.labels or map(str, range(spec.classes or 1)))
    for k in range(spec.classes or 1):
        mine = z[y == k] if spec.classes else z
        axes.scatter(*mine.T, s=5, color=COLOURS[k % len(COLOURS)], label=names[k], linewidths=0)
    if spec.classes and spec.classes <= 20:
        axes.legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel="z1", ylabel="z2", title="codes of the test pictures")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_aspect("equal", adjustable="datalim")
    return figure
