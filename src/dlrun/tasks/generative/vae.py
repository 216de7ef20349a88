"""Variational autoencoders: learn q(z|x) and p(x|z) by maximising the evidence lower bound (ELBO).

Source: Kingma and Welling 2014; the book, section 12.4 (equations 12-1 and 12-2, loss and reparameterisation); Higgins
et al. 2017 for beta; Burda et al. 2016, equation 8, for the importance-weighted bound. Reconstruction and KL are summed
over each image and averaged over the batch, as in the book. All bounds are in nats per image. The Bernoulli likelihood
treats grey levels as probabilities, which is common but is not a density of grey images.
"""

from collections.abc import Callable, Iterator
from math import log, pi
from typing import Annotated, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.models.autoencoder import VAE
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.seeds import generator
from dlrun.spec import Image, Unlabelled
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.tasks.generative.latent import apply_in_chunks, latent_figures, noise
from dlrun.tasks.generative.quality import ClassifierLoader, Quality
from dlrun.tasks.images import (
    ROW,
    first_inputs,
    grid,
    means,
    rescaled,
    sheets,
    side_by_side,
    strip,
)
from dlrun.types import NonNegative, Positive, Range, Size


class Vae(SampleTask):
    """Learn to generate images like the data's, pixels in [0, 1].

    likelihood: bernoulli (outputs are logits) or gaussian (outputs are means; sigma: the standard deviation).
    beta: weight of the KL; kl_warmup_epochs: epochs over which it rises from 0 to beta. iwae_samples: codes per image
    for the importance-weighted bound on the test split, 0 for none. quality: the folder of a classifier's run, whose
    features measure samples (Frechet distance), or None. num_samples: number of images on a sheet of samples.
    """

    accepts = ("latent", "images")
    compiled = ("", "decoder")
    net: VAE
    num_samples: int

    def __init__(
        self,
        net: VAE,
        spec: Image | Unlabelled,
        device: Device,
        update: Callable[[nn.Module], Update],
        load_classifier: ClassifierLoader,
        *,
        likelihood: Literal["bernoulli", "gaussian"],
        sigma: Positive,
        beta: NonNegative,
        kl_warmup_epochs: NonNegative,
        iwae_samples: Annotated[int, Range(0, 10_000)],
        quality: str | None,
        num_samples: Size,
    ) -> None:
        super().__init__(net, device)
        self.spec, self.bernoulli, self.sigma = spec, likelihood == "bernoulli", sigma
        self.beta, self.kl_warmup_epochs, self.iwae_samples = beta, kl_warmup_epochs, iwae_samples
        self.update = update(net)
        self.components["update"] = self.update
        self.quality, self.num_samples = Quality(spec, load_classifier, quality), num_samples
        self.scores = {"elbo": "max", "rec": "min", "kl": "min"} | self.quality.scores
        self.goal = "elbo"

    def evaluated(self) -> VAE:
        return cast(VAE, super().evaluated())

    def batches(self, data: SampleData, clock: Clock) -> Iterator[Batch]:
        return rescaled(super().batches(data, clock), data, 0.0, 1.0)

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        x = batch[0]
        with self.device.autocast():
            mean, log_var = (v.float() for v in self.net(x))  # (B, latent) each
            z = mean + (0.5 * log_var).exp() * self.jobs.randn_like(mean)  # (B, latent)
            out = self.net.decoder(z).float()  # (B, C, H, W)
        rec = -self.jobs.mean(self.log_likelihood(x, out))
        kl = self.jobs.mean(kl_to_standard(mean, log_var))
        loss = rec + self.kl_weight(clock) * kl
        if not self.update.step(loss, clock):
            return {}
        rec, kl = rec.detach(), kl.detach()
        return {"loss": loss.detach(), "elbo": -rec - kl, "rec": rec, "kl": kl}

    def kl_weight(self, clock: Clock) -> float:
        """The weight of the KL now: it rises linearly to beta over the first `kl_warmup_epochs` epochs."""
        steps = self.kl_warmup_epochs * clock.steps_per_epoch
        return self.beta * min(1.0, (clock.step + 1) / steps) if steps else self.beta

    def log_likelihood(self, x: Tensor, out: Tensor) -> Tensor:
        """log p(x|z) for the decoder's outputs, summed over the pixels: (..., C, H, W) -> (...)."""
        if self.bernoulli:
            return -F.binary_cross_entropy_with_logits(out, x.expand_as(out), reduction="none").flatten(-3).sum(-1)
        each = -0.5 * ((x - out) / self.sigma).square() - log(self.sigma) - 0.5 * log(2 * pi)
        return each.flatten(-3).sum(-1)

    @torch.no_grad()
    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        """Return the ELBO and its terms from one code per image, with the same noise every time; on test, IWAE too."""
        net = self.evaluated()
        random = generator(self.device.torch_device, 0, 1)
        codes = self.iwae_samples if split == "test" else 0
        metrics = means(self._bounds(net, x, random, codes) for x, _ in rescaled(data.batches(split), data, 0.0, 1.0))
        return metrics | self.quality.measure(lambda count, seed: 2 * self._samples(count, seed) - 1, data, split)

    def _bounds(self, net: VAE, x: Tensor, random: torch.Generator, codes: int) -> Metrics:
        with self.device.autocast():
            mean, log_var = (v.float() for v in net(x))
            z = mean + (0.5 * log_var).exp() * torch.randn(mean.shape, generator=random, device=x.device)
            out = net.decoder(z).float()
        rec, kl = -self.log_likelihood(x, out), kl_to_standard(mean, log_var)
        bounds = {"elbo": -rec - kl, "rec": rec, "kl": kl}
        if codes:
            bounds["iwae"] = self.iwae(net, x, mean, log_var, random, codes)
        return bounds

    @torch.no_grad()
    def iwae(self, net: VAE, x: Tensor, mean: Tensor, log_var: Tensor, random: torch.Generator, codes: int) -> Tensor:
        """The importance-weighted bound: log of the mean over k codes of p(x, z) / q(z|x): (B, C, H, W) -> (B,).

        More codes make it tighter.
        """
        log_weights = []
        for _ in range(codes):
            eps = torch.randn(mean.shape, generator=random, device=x.device)
            z = mean + (0.5 * log_var).exp() * eps
            with self.device.autocast():
                out = net.decoder(z).float()
            log_prior, log_q = -0.5 * z.square(), -0.5 * (eps.square() + log_var)  # log(2 pi) / 2 cancels
            log_weights.append(self.log_likelihood(x, out) + (log_prior - log_q).sum(1))
        return torch.logsumexp(torch.stack(log_weights), 0) - log(codes)

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """Reconstruct images (B, C, H, W) in [0, 1] from their mean codes, or decode codes (B, latent) to images."""
        net = self.evaluated()
        out = apply_in_chunks(net.decoder if batch.dim() == 2 else lambda x: net.decoder(net(x)[0]), batch, self.device)
        return (torch.sigmoid(out) if self.bernoulli else out).clamp(0, 1)

    def _samples(self, count: int, seed: int) -> Tensor:
        return self.predict(noise(self.net.latent, count, self.device, seed))

    @torch.no_grad()
    def preview(self, data: SampleData, split: str = "val") -> dict[str, Tensor]:
        """The book's two grids: originals with reconstructions, and samples from the same codes every time."""
        x = first_inputs(rescaled(data.batches(split), data, 0.0, 1.0), 50)
        return {
            "reconstructions": side_by_side(x, self.predict(x)),
            "samples": grid(self._samples(self.num_samples, 2)),
        }

    @torch.no_grad()
    def report(self, data: SampleData) -> Report:
        """Figures of reconstructions, samples, interpolations and, with two latent dimensions, the map of codes."""
        figures = sheets(self.preview(data, "test"))
        net, batches = self.evaluated(), lambda: rescaled(data.batches("test"), data, 0.0, 1.0)
        x = first_inputs(batches(), ROW)
        rows = {"originals": strip(x), "reconstructions": strip(self.predict(x))}
        return Report(figures | latent_figures(lambda x: net(x)[0], self.predict, batches, self.spec), rows=rows)


def kl_to_standard(mean: Tensor, log_var: Tensor) -> Tensor:
    """KL(N(mean, exp(log_var)) || N(0, 1)), summed over the code: (B, latent) -> (B,). The book, equation 12-2."""
    return 0.5 * (log_var.exp() + mean.square() - 1 - log_var).sum(1)
