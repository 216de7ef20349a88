"""Figures of a GAN of single numbers: the densities of data and samples, and the discriminator between them.

Source: the book, section 13.5 (figure 13.14); Goodfellow et al. 2014, proposition 1 for the best discriminator.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.data.base import SampleData
from dlrun.output.figures import DARK, GOOD, GREY, VAL, new_figure, plain_ticks
from dlrun.system.device import Device
from dlrun.tasks.generative.latent import apply_in_chunks, noise
from dlrun.tasks.generative.quality import SAMPLES
from dlrun.tasks.images import first_inputs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEIGHT, BARS = 96, 192  # pixels of a preview


def histograms(real: Tensor, fake: Tensor) -> Tensor:
    """The histograms of numbers (N, 1) as an image (3, H, W): data in green, samples in magenta, both in grey."""
    low, high = (f(real).item() for f in (torch.amin, torch.amax))
    reach = (low - (high - low) / 2, high + (high - low) / 2)
    counts = torch.stack([torch.histc(each.float().cpu(), BARS, *reach) for each in (real, fake)])
    heights = (counts / (2 * counts[0].max()).clamp(min=1) * HEIGHT).clamp(max=HEIGHT)  # (2, W)
    rows = torch.arange(HEIGHT, 0, -1)[:, None]
    data, samples = (rows <= heights[:, None]).float()  # (H, W)
    return 1 - torch.stack([data, samples, data]) * 0.7


def density(numbers: np.ndarray, at: np.ndarray) -> np.ndarray:
    """A kernel density estimate with Silverman's width of kernels: (N,), (M,) -> (M,)."""
    width = max(1e-6, 1.06 * numbers.std() * len(numbers) ** -0.2)
    z = (at[:, None] - numbers) / width
    return np.exp(-(z**2) / 2).mean(1) / (width * np.sqrt(2 * np.pi))


@torch.no_grad()
def equilibrium(net: nn.Module, critic: nn.Module, latent: int, data: SampleData, device: Device) -> "Figure":
    """Draw the densities p_r of test data and p_g of samples, the discriminator, and the best one, p_r / (p_r + p_g).

    Where both densities are small the discriminator has seen nothing, and is drawn thin.
    """
    real = first_inputs(data.batches("test"), SAMPLES)
    fake = apply_in_chunks(net, noise(latent, SAMPLES, device, 2), device)
    middle, reach = real.mean().item(), 5 * real.std().item()
    x = torch.linspace(middle - reach, middle + reach, 400, device=real.device)
    at = x.cpu().numpy()
    of_data, of_samples = (density(each.flatten().cpu().double().numpy(), at) for each in (real, fake))
    d = torch.sigmoid(apply_in_chunks(critic, x[:, None], device)).cpu().numpy()
    seen = of_data + of_samples > 0.02 * (of_data + of_samples).max()
    figure, axes = new_figure()
    axes.fill_between(at, of_data, color=VAL, alpha=0.35, label="data")
    axes.fill_between(at, of_samples, color=GOOD, alpha=0.35, label="samples")
    axes.set(xlabel="x", ylabel="density")
    right = axes.twinx()
    right.plot(at, d, color=DARK, linewidth=0.6)
    right.plot(at, np.where(seen, d, np.nan), color=DARK, linewidth=1.8, label="discriminator")
    best = of_data / np.maximum(of_data + of_samples, 1e-12)
    right.plot(at, np.where(seen, best, np.nan), color=DARK, linewidth=1.2, linestyle=":", label="the best one")
    right.axhline(0.5, color=GREY, linewidth=0.8)
    right.set(ylim=(0, 1), ylabel="D(x)")
    plain_ticks(axes.xaxis)
    lines = [*axes.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    axes.legend(handles=lines, loc="upper left")
    return figure
