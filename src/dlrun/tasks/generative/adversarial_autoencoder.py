"""Adversarial autoencoders: a critic makes the codes look like the prior, so that noise can be decoded to images.

Source: Makhzani et al. 2016, section 2 (deterministic encoder, normal prior); the book, section 12.3. Every step has
the paper's two phases on the same batch. First the encoder and the decoder learn to reconstruct. Then the critic learns
to tell codes from samples of the prior, and the encoder learns to fool it. Deviation: Adam instead of the paper's SGD
with momentum.
"""

from collections.abc import Callable, Iterator
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.models.autoencoder import AdversarialAutoEncoder, AutoEncoder
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.seeds import generator
from dlrun.spec import Image, Unlabelled
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.tasks.generative.adversarial import frozen
from dlrun.tasks.generative.gan import nonsaturating_critic, nonsaturating_generator
from dlrun.tasks.generative.latent import apply_in_chunks, latent_figures, noise
from dlrun.tasks.generative.quality import ClassifierLoader, Quality, sliced_wasserstein
from dlrun.tasks.images import ROW, first_inputs, grid, means, rescaled, sheets, side_by_side, strip
from dlrun.types import Size


class AdversarialAutoencoder(SampleTask):
    """Reconstruct images, pixels in [0, 1], through codes that are distributed as N(0, 1).

    loss: bce treats pixels as probabilities and outputs as their logits; mse uses outputs as they are. quality: the
    folder of a classifier's run, whose features measure samples (Frechet distance), or None. num_samples: number of
    images on a sheet of samples.
    """

    accepts = ("images", "latent")
    net: AdversarialAutoEncoder
    num_samples: int
    compiled = ("autoencoder", "autoencoder.encoder", "critic")

    def __init__(
        self,
        net: AdversarialAutoEncoder,
        spec: Image | Unlabelled,
        device: Device,
        update: Callable[..., Update],
        load_classifier: ClassifierLoader,
        *,
        loss: Literal["bce", "mse"],
        quality: str | None,
        num_samples: Size,
    ) -> None:
        super().__init__(net, device)
        self.spec, self.bce, self.num_samples = spec, loss == "bce", num_samples
        self.update = update(net.autoencoder)
        self.critic_update = update(net.critic, ema=0.0)
        self.encoder_update = update(net.autoencoder.encoder, ema=0.0)
        self.components |= {
            "update": self.update,
            "critic_update": self.critic_update,
            "encoder_update": self.encoder_update,
        }
        self.quality = Quality(spec, load_classifier, quality)
        self.scores = {"loss": "min", "mse": "min", "code_swd": "min"} | self.quality.scores
        self.goal = "loss"

    def evaluated(self) -> AutoEncoder:
        return cast(AutoEncoder, super().evaluated())

    def batches(self, data: SampleData, clock: Clock) -> Iterator[Batch]:
        return rescaled(super().batches(data, clock), data, 0.0, 1.0)

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        net, critic, x, mean = self.net.autoencoder, self.net.critic, batch[0], self.jobs.mean

        with self.device.autocast():
            out = net(x)
        loss = mean(self._per_pixel(out.float(), x))
        if not self.update.step(loss, clock):
            return {}

        with self.device.autocast():
            code = net.encoder(x)  # (B, latent)
            prior = self.jobs.randn(*code.shape, device=x.device)
            critic_loss = nonsaturating_critic(critic(prior).float(), critic(code.detach()).float(), mean)
        if not self.critic_update.step(critic_loss, clock):
            return {}

        with frozen(critic), self.device.autocast():
            code_loss = nonsaturating_generator(critic(code).float(), mean)
        if not self.encoder_update.step(code_loss, clock):
            return {}
        return {"loss": loss.detach(), "critic_loss": critic_loss.detach(), "code_loss": code_loss.detach()}

    def _per_pixel(self, out: Tensor, x: Tensor) -> Tensor:
        if self.bce:
            return F.binary_cross_entropy_with_logits(out, x, reduction="none")
        return (out - x).square()

    @torch.no_grad()
    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        """Return loss and mse of reconstructions, and distances: code_swd of codes to the prior, swd and fd of images.

        code_swd and swd are sliced Wasserstein distances; swd and fd compare decoded noise with the data's images.
        """
        net = self.evaluated()
        codes: list[Tensor] = []
        metrics = means(self._measured(net, x, codes) for x, _ in rescaled(data.batches(split), data, 0.0, 1.0))
        code = torch.cat(codes)
        prior = torch.randn(code.shape, generator=generator(code.device, 0, 3), device=code.device)
        metrics["code_swd"] = sliced_wasserstein(code, prior).item()
        return metrics | self.quality.measure(lambda count, seed: 2 * self._samples(count, seed) - 1, data, split)

    def _measured(self, net: AutoEncoder, x: Tensor, codes: list[Tensor]) -> Metrics:
        with self.device.autocast():
            code = net.encoder(x)
            out = net.decoder(code).float()
        codes.append(code.float())
        image = torch.sigmoid(out) if self.bce else out
        return {"loss": self._per_pixel(out, x).flatten(1).mean(1), "mse": (image - x).square().flatten(1).mean(1)}

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """Reconstruct images (B, C, H, W) in [0, 1], or decode codes (B, latent) to such images."""
        net = self.evaluated()
        out = apply_in_chunks(net if batch.dim() == 4 else net.decoder, batch, self.device)
        return (torch.sigmoid(out) if self.bce else out).clamp(0, 1)

    def _samples(self, count: int, seed: int) -> Tensor:
        return self.predict(noise(self.net.latent, count, self.device, seed))

    @torch.no_grad()
    def preview(self, data: SampleData, split: str = "val") -> dict[str, Tensor]:
        """Originals with their reconstructions, and images decoded from the same codes of the prior every time."""
        x = first_inputs(rescaled(data.batches(split), data, 0.0, 1.0), 50)
        return {
            "reconstructions": side_by_side(x, self.predict(x)),
            "samples": grid(self._samples(self.num_samples, 2)),
        }

    @torch.no_grad()
    def report(self, data: SampleData) -> Report:
        """Figures of reconstructions, samples, interpolations and, with two latent dimensions, the map of codes."""
        figures = sheets(self.preview(data, "test"))
        batches = lambda: rescaled(data.batches("test"), data, 0.0, 1.0)  # noqa: E731
        x = first_inputs(batches(), ROW)
        rows = {"originals": strip(x), "reconstructions": strip(self.predict(x))}
        return Report(figures | latent_figures(self.evaluated().encoder, self.predict, batches, self.spec), rows=rows)
