"""Noise and codes: drawing and decoding them, and figures of interpolations and of two-dimensional latent spaces."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlrun.output.figures import COLOURS, drawable, new_figure, plain_ticks
from dlrun.seeds import generator
from dlrun.spec import Image
from dlrun.system.device import Device
from dlrun.tasks.images import first_inputs, grid, image_figure, interpolate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CLASSES, CODES = 10, 2000  # most classes of a sheet of arithmetic, and about as many codes give the means
Encode = Callable[[Tensor], Tensor]  # (B, C, H, W) -> (B, latent)


def noise(latent: int, count: int, device: Device, seed: int) -> Tensor:
    """Draw noise (count, latent) that is the same in every epoch and every run."""
    return torch.randn(count, latent, generator=generator(device.torch_device, 0, seed), device=device.torch_device)


@torch.no_grad()
def apply_in_chunks(net: Callable[[Tensor], Tensor], z: Tensor, device: Device, size: int = 500) -> Tensor:
    """Apply a network to noise or images in chunks that fit into memory: (N, ...) -> (N, ...)."""
    outputs = []
    for chunk in (z,) if torch.compiler.is_exporting() else z.split(size):  # an exported graph must take any batch size
        with device.autocast():
            outputs.append(net(chunk).float())
    return torch.cat(outputs)


@torch.no_grad()
def latent_figures(
    encode: Encode, decode: Callable, batches: Callable[[], Iterator], spec: Image
) -> dict[str, Callable]:
    """Figures of the latent space.

    interpolation: up to ten lines of ten images between the codes of two images. arithmetic, for up to ten classes: see
    `class_arithmetic`. latent_map and latent_plane, for two latent dimensions: the codes of all images (the book,
    section 12.1, after Hinton and Salakhutdinov 2006), and the images decoded over a grid of codes.
    """
    figures: dict[str, Callable] = {}
    codes = encode(first_inputs(batches(), 20)).float()
    half = len(codes) // 2
    if half:
        lines = decode(interpolate(codes[:half], codes[half : 2 * half], 10))
        figures["interpolation"] = partial(image_figure, grid(lines, 10), "interpolations between codes, test")
    if spec.classes and spec.classes <= CLASSES:
        moved = class_arithmetic(encode, decode, batches(), spec.classes)
        title = "codes moved from their class (rows) to each class (columns), test"
        figures |= {"arithmetic": partial(image_figure, grid(moved, spec.classes), title)} if moved is not None else {}
    if codes.shape[1] == 2:
        figures["latent_map"] = partial(latent_map, encode, batches(), spec)
        figures["latent_plane"] = partial(latent_plane, decode, codes.device)
    return figures


@torch.no_grad()
def class_arithmetic(encode: Encode, decode: Callable, batches: Iterator, classes: int) -> Tensor | None:
    """Images decoded from z - m(a) + m(b): (classes * classes, C, H, W), a row for each class a; None if one is absent.

    z is the code of the first image of class a, m(a) the mean code of its class (the book, section 13.4, figure 13.10:
    a man with glasses - man + woman; Radford et al. 2016, section 6.3.2; Larsen et al. 2016).
    """
    pairs: list[tuple[Tensor, Tensor]] = []
    count = 0
    for x, y in batches:
        pairs.append((encode(x).float(), y))
        count += len(y)
        if count >= CODES:
            break
    z, y = torch.cat([z for z, _ in pairs]), torch.cat([y for _, y in pairs])
    if min(torch.bincount(y, minlength=classes)) == 0:
        return None
    means = torch.stack([z[y == k].mean(0) for k in range(classes)])
    firsts = torch.stack([z[y == k][0] for k in range(classes)])
    return decode(((firsts - means)[:, None] + means).flatten(0, 1))


@torch.no_grad()
def latent_plane(decode: Callable, device: torch.device) -> "Figure":
    """Draw the images decoded from 20 x 20 two-dimensional codes, (-2.5, 2.5) at the top left."""
    steps = torch.linspace(-2.5, 2.5, 20, device=device)
    plane = torch.stack(torch.meshgrid(steps, -steps, indexing="xy"), -1).view(-1, 2)
    return image_figure(grid(decode(plane), 20), "images decoded from z over [-2.5, 2.5] squared")


@torch.no_grad()
def latent_map(encode: Encode, batches: Iterator, spec: Image) -> "Figure":
    """Draw the two-dimensional codes of all images in `batches`, coloured by class."""
    pairs = [(encode(x).float().cpu(), y.cpu()) for x, y in batches]
    z, y = torch.cat([z for z, _ in pairs]).numpy(), torch.cat([y for _, y in pairs]).numpy()
    figure, axes = new_figure(7.2, 6.0)
    names = drawable(spec.labels or map(str, range(spec.classes or 1)))
    for k in range(spec.classes or 1):
        codes = z[y == k] if spec.classes else z
        axes.scatter(*codes.T, s=5, color=COLOURS[k % len(COLOURS)], label=names[k], linewidths=0)
    if spec.classes and spec.classes <= 20:
        axes.legend(markerscale=3, loc="center left", bbox_to_anchor=(1, 0.5))
    axes.set(xlabel="z1", ylabel="z2", title="codes of the test images")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.set_aspect("equal", adjustable="datalim")
    return figure
