"""Autoencoders: learn to reproduce the input through a code of a few numbers.

Source: the book, sections 12.2 and 12.3 (denoising, dropout); Vincent et al. 2008 for denoising. The loss is the mean
over all pixels, as in the book. A denoising autoencoder is evaluated on noisy images as well, with the same noise every
time; the book does not describe its evaluation.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.models.autoencoder import AutoEncoder
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.seeds import generator
from dlrun.spec import Image, Unlabelled
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.tasks.generative.latent import apply_in_chunks, latent_figures
from dlrun.tasks.generative.pca import components, project
from dlrun.tasks.images import ROW, first_inputs, image_figure, means, rescaled, sheets, side_by_side, strip
from dlrun.types import NonNegative


class Autoencoder(SampleTask):
    """Reconstruct images, pixels in [0, 1].

    loss: bce treats pixels as probabilities and the net's outputs as their logits; mse uses outputs as they are.
    noise: standard deviation of the Gaussian noise that is added to the net's inputs; the targets are clean.
    """

    accepts = ("images", "latent")
    net: AutoEncoder

    def __init__(
        self,
        net: AutoEncoder,
        spec: Image | Unlabelled,
        device: Device,
        update: Callable[[nn.Module], Update],
        *,
        loss: Literal["bce", "mse"],
        noise: NonNegative,
    ) -> None:
        super().__init__(net, device)
        self.spec, self.bce, self.noise = spec, loss == "bce", noise
        self.update = update(net)
        self.components["update"] = self.update
        self.scores = {"loss": "min", "mse": "min"}
        self.goal = "loss"

    def evaluated(self) -> AutoEncoder:
        return cast(AutoEncoder, super().evaluated())

    def batches(self, data: SampleData, clock: Clock) -> Iterator[Batch]:
        return rescaled(super().batches(data, clock), data, 0.0, 1.0)

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        x = batch[0]
        noisy = x + self.noise * self.jobs.randn_like(x) if self.noise else x
        with self.device.autocast():
            out = self.net(noisy)
        loss = self.jobs.mean(self._per_pixel(out.float(), x))
        return {"loss": loss.detach()} if self.update.step(loss, clock) else {}

    def _per_pixel(self, out: Tensor, x: Tensor) -> Tensor:
        if self.bce:
            return F.binary_cross_entropy_with_logits(out, x, reduction="none")
        return (out - x).square()

    @torch.no_grad()
    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        net = self.evaluated()
        return means(self._measured(net, x, out) for x, out in self._outputs(net, data, split))

    def _measured(self, net: nn.Module, x: Tensor, out: Tensor) -> Metrics:
        image = torch.sigmoid(out) if self.bce else out
        return {"loss": self._per_pixel(out, x).flatten(1).mean(1), "mse": (image - x).square().flatten(1).mean(1)}

    def _outputs(self, net: nn.Module, data: SampleData, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Clean images and the net's outputs for them; the noise is the same in every evaluation."""
        for x, noisy in self._noisy(data, split):
            with self.device.autocast():
                out = net(noisy)
            yield x, out.float()

    def _noisy(self, data: SampleData, split: str) -> Iterator[tuple[Tensor, Tensor]]:
        random = generator(self.device.torch_device, 0, 1)
        for x, _ in rescaled(data.batches(split), data, 0.0, 1.0):
            noise = self.noise * torch.randn(x.shape, generator=random, device=x.device) if self.noise else 0.0
            yield x, x + noise

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """Reconstruct images (B, C, H, W) in [0, 1], or decode codes (B, latent) to such images."""
        net = self.evaluated()
        out = apply_in_chunks(net if batch.dim() == 4 else net.decoder, batch, self.device)
        return (torch.sigmoid(out) if self.bce else out).clamp(0, 1)

    @torch.no_grad()
    def preview(self, data: SampleData, split: str = "val") -> dict[str, Tensor]:
        """The first 50 images on the left and their reconstructions on the right (the grid of the book)."""
        x = first_inputs(rescaled(data.batches(split), data, 0.0, 1.0), 50)
        if not self.noise:
            return {"reconstructions": side_by_side(x, self.predict(x))}
        noisy = x + self.noise * torch.randn(x.shape, generator=generator(x.device, 0, 1), device=x.device)
        return {
            "reconstructions": side_by_side(x, self.predict(noisy)),
            "denoised": side_by_side(noisy, self.predict(noisy)),
        }

    @torch.no_grad()
    def report(self, data: SampleData) -> Report:
        """Figures of reconstructions and interpolations, and the same for a linear code by PCA.

        pca_mse: the error with as many principal components of the train split as the code has numbers.
        """
        figures = sheets(self.preview(data, "test"))
        batches = lambda: rescaled(data.batches("test"), data, 0.0, 1.0)  # noqa: E731
        figures |= latent_figures(self.evaluated().encoder, self.predict, batches, self.spec)
        linear = components(rescaled(data.batches("train"), data, 0.0, 1.0), self.net.latent)
        pairs = lambda: ((x, project(noisy, *linear)) for x, noisy in self._noisy(data, "test"))  # noqa: E731
        pca = means({"mse": (copy - x).square().flatten(1).mean(1)} for x, copy in pairs())
        sheet = side_by_side(*next(pairs()))
        x, noisy = next(self._noisy(data, "test"))
        x, noisy = x[:ROW], noisy[:ROW]
        rows = {"originals": x} | ({"with noise": noisy} if self.noise else {})
        rows |= {
            "reconstructions": self.predict(noisy),
            f"{len(linear[1])} principal components": project(noisy, *linear),
        }
        heads = ("originals", f"from {len(linear[1])} principal components")
        figures["pca_reconstructions"] = partial(image_figure, sheet, "PCA reconstructions, test", heads)
        strips = {label: strip(images.float()) for label, images in rows.items()}
        return Report(figures, numbers={"pca_mse": pca["mse"]}, rows=strips)
