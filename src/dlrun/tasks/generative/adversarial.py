"""The base class of adversarial tasks: two updates, samples from fixed noise, and figures of the samples."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import SampleData
from dlrun.models.gan import Pair
from dlrun.optim.update import Update
from dlrun.output.figures import GOOD, VAL, new_figure, plain_ticks
from dlrun.output.report import Report
from dlrun.spec import Image, Table
from dlrun.system.device import Device
from dlrun.tasks.base import SampleTask
from dlrun.tasks.generative.latent import apply_in_chunks, latent_plane, noise
from dlrun.tasks.generative.line import equilibrium, histograms
from dlrun.tasks.generative.quality import SAMPLES, ClassifierLoader, Quality
from dlrun.tasks.images import first_inputs, grid, image_figure, interpolate, rescaled

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {"samples": "samples", "interpolation": "interpolations between noise vectors"}


class Adversarial(SampleTask):
    """Base class of tasks that train a generator against a critic.

    n_critic: number of critic steps per generator step. quality: the folder of a classifier's run, whose features
    measure samples (Frechet distance), or None. num_samples: number of images on a sheet of samples.
    """

    accepts = ("latent",)
    compiled: tuple[str, ...] = ("generator", "critic")
    net: Pair
    num_samples: int

    def __init__(
        self,
        net: Pair,
        spec: Image | Table,
        device: Device,
        update: Callable[..., Update],
        load_classifier: ClassifierLoader,
        n_critic: int,
        quality: str | None,
        num_samples: int,
    ) -> None:
        super().__init__(net, device)
        self.n_critic = self.cycle = n_critic
        self.update, self.critic_update = update(net.generator), update(net.critic, ema=0.0)
        self.components |= {"update": self.update, "critic_update": self.critic_update}
        self.quality, self.spec, self.num_samples = Quality(spec, load_classifier, quality), spec, num_samples
        self.scores, self.goal = self.quality.scores, self.quality.goal

    def batches(self, data: SampleData, clock: Clock) -> Iterator:
        """Iterate over batches with pixels in [-1, 1], the range of the generator's tanh; tables are not rescaled."""
        return rescaled(super().batches(data, clock), data, -1.0, 1.0)

    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        return measured(self.evaluated(), self.net.latent, self.quality, data, split, self.device)

    def predict(self, batch: Tensor) -> Tensor:
        """Turn noise (B, latent) into samples (B, *shape), with pixels in [0, 1]."""
        samples = apply_in_chunks(self.evaluated(), batch, self.device)
        return ((samples + 1) / 2).clamp(0, 1) if isinstance(self.spec, Image) else samples

    def preview(self, data: SampleData) -> dict[str, Tensor]:
        return previews(self.evaluated(), self.net.latent, self.num_samples, data, self.device)

    def report(self, data: SampleData) -> Report:
        net, critic = self.evaluated(), self.net.critic.eval()
        return Report(figures(net, critic, self.net.latent, self.num_samples, data, self.device))


@contextmanager
def frozen(net: nn.Module) -> Iterator[None]:
    """A context in which these weights get no gradients, because another update trains them."""
    params = [p for p in net.parameters() if p.requires_grad]
    for p in params:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in params:
            p.requires_grad_(True)


def measured(
    net: nn.Module, latent: int, quality: Quality, data: SampleData, split: str, device: Device
) -> dict[str, float]:
    """Measure the quality of a generator's samples from fixed noise."""
    return quality.measure(
        lambda count, seed: apply_in_chunks(net, noise(latent, count, device, seed), device), data, split
    )


@torch.no_grad()
def previews(net: nn.Module, latent: int, count: int, data: SampleData, device: Device) -> dict[str, Tensor]:
    """Samples from the same noise every time: `count` images, or for points in the plane a density over the data's."""
    if isinstance(data.spec, Image):
        return {"samples": grid((apply_in_chunks(net, noise(latent, count, device, 2), device) + 1) / 2)}
    if not isinstance(data.spec, Table) or data.spec.features > 2:
        return {}
    real, fake = (
        first_inputs(data.batches("val"), SAMPLES),
        apply_in_chunks(net, noise(latent, SAMPLES, device, 2), device),
    )
    if data.spec.features == 1:
        return {"samples": histograms(real, fake)}
    reach = 1.2 * real.abs().max()
    return {"samples": torch.stack([_density(fake, reach), _density(real, reach), _density(fake, reach)])}


def _density(points: Tensor, reach: Tensor, side: int = 96) -> Tensor:
    """The density of points in the plane as a channel (side, side). `previews` shows samples magenta, data green."""
    cells = ((points / reach + 1) / 2 * side).long()
    cells = cells[((cells >= 0) & (cells < side)).all(1)]
    counts = torch.bincount((side - 1 - cells[:, 1]) * side + cells[:, 0], minlength=side * side).view(side, side)
    return (counts.float() / counts.float().quantile(0.995).clamp(min=1)).clamp(0, 1).sqrt().cpu()


@torch.no_grad()
def figures(
    net: nn.Module, critic: nn.Module, latent: int, count: int, data: SampleData, device: Device
) -> dict[str, Callable]:
    """Figures of samples, of interpolations and, with two latent dimensions, of the latent plane.

    For points in the plane: the samples over the data, with contour lines of the critic. For numbers: see line.py.
    """
    if isinstance(data.spec, Image):
        ends, decode = noise(latent, 20, device, 6), lambda z: (apply_in_chunks(net, z, device) + 1) / 2
        lines = decode(interpolate(ends[:10], ends[10:], 10))
        sheets = previews(net, latent, count, data, device) | {"interpolation": grid(lines, 10)}
        drawn: dict[str, Callable] = {
            name: partial(image_figure, sheet, TITLES[name]) for name, sheet in sheets.items()
        }
        return drawn | ({"latent_plane": partial(latent_plane, decode, device.torch_device)} if latent == 2 else {})
    features = data.spec.features if isinstance(data.spec, Table) else 0
    if features == 1:
        return {"samples": partial(equilibrium, net, critic, latent, data, device)}
    return {"samples": partial(_plane, net, critic, latent, data, device)} if features == 2 else {}


def _plane(net: nn.Module, critic: nn.Module, latent: int, data: SampleData, device: Device) -> "Figure":
    """Draw test data and samples in the plane over contour lines of the critic."""
    real = first_inputs(data.batches("test"), SAMPLES)
    fake = apply_in_chunks(net, noise(latent, SAMPLES, device, 2), device).cpu()
    reach = 1.3 * real.abs().max().item()
    line = torch.linspace(-reach, reach, 120, device=real.device)
    points = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)  # (120, 120, 2)
    level = apply_in_chunks(critic, points.view(-1, 2), device, 4000).view(120, 120).cpu()
    figure, axes = new_figure(6.4, 6.0)
    axes.contour(line.cpu().numpy(), line.cpu().numpy(), level.numpy(), 16, cmap="viridis", linewidths=0.7, alpha=0.7)
    axes.scatter(*real.cpu().T.numpy(), s=5, color=VAL, label="data", linewidths=0)
    axes.scatter(*fake.T.numpy(), s=5, color=GOOD, label="samples", linewidths=0, alpha=0.6)
    axes.set(
        xlim=(-reach, reach), ylim=(-reach, reach), title="samples over test data, with contour lines of the critic"
    )
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    axes.legend(loc="upper right", markerscale=3)
    return figure
