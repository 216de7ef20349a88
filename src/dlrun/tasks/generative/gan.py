"""Generative adversarial networks: a discriminator learns to tell samples from data, and a generator to fool it.

Source: Goodfellow et al. 2014 (non-saturating form, section 3); the book, sections 13.2 and 13.3; Mao et al. 2017 for
least squares (targets 1, 0 and 1); Lim and Ye 2017 for the hinge loss. Every step updates the discriminator; every
`n_critic`-th step updates the generator too (k in the book, section 13.2).
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Batch
from dlrun.models.gan import Pair
from dlrun.optim.update import Update
from dlrun.spec import Image, Table, Unlabelled
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.generative.adversarial import Adversarial, frozen
from dlrun.tasks.generative.quality import ClassifierLoader
from dlrun.types import Few, Size

Mean = Callable[[Tensor], Tensor]  # over each job's samples


class Gan(Adversarial):
    """A generator against a discriminator, by the loss named: nonsaturating, least_squares or hinge."""

    def __init__(
        self,
        net: Pair,
        spec: Image | Table | Unlabelled,
        device: Device,
        update: Callable[..., Update],
        load_classifier: ClassifierLoader,
        *,
        loss: Literal["nonsaturating", "least_squares", "hinge"],
        n_critic: Few,
        quality: str | None,
        num_samples: Size,
    ) -> None:
        super().__init__(net, spec, device, update, load_classifier, n_critic, quality, num_samples)
        self.losses = LOSSES[loss]

    def players(self, batch: Batch) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]:
        """The generator of codes, the critic of samples, and the data's samples."""
        return self.net.generator, self.net.critic, batch[0]

    def code_losses(self, out: Tensor, z: Tensor) -> tuple[list[Tensor], Metrics]:
        """Return extra losses, for both players, and metrics on how well the critic recovers the codes z."""
        return [], {}

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        generator, critic, x = self.players(batch)
        mean = self.jobs.mean
        critic_loss, generator_loss = self.losses

        z = self.jobs.randn(len(x), self.net.latent, device=x.device)  # (B, latent)
        with self.device.autocast():
            with torch.no_grad():
                fake = generator(z)
            real_out, fake_out = critic(x).float(), critic(fake).float()  # (B,), or (B, outputs)
        real_score, fake_score = scores(real_out), scores(fake_out)
        terms, more = self.code_losses(fake_out, z)
        loss = sum(terms, critic_loss(real_score, fake_score, mean))
        if not self.critic_update.step(loss, clock):
            return {}
        metrics = {
            "critic_loss": loss.detach(),
            "real_score": mean(real_score.detach()),
            "fake_score": mean(fake_score.detach()),
            **more,
        }

        if clock.step % self.n_critic == self.n_critic - 1:
            z = self.jobs.randn_like(z)
            with frozen(self.net.critic), self.device.autocast():
                out = critic(generator(z)).float()
                loss = sum(self.code_losses(out, z)[0], generator_loss(scores(out), mean))
            if not self.update.step(loss, clock):
                return {}
            metrics["loss"] = loss.detach()
        return metrics


def scores(out: Tensor) -> Tensor:
    """The scores (B,) among a critic's outputs: (B,), or (B, outputs), of which they are the first."""
    return out if out.dim() == 1 else out[:, 0]


def nonsaturating_critic(real: Tensor, fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), which is 2 log 2 if D cannot tell samples from data."""
    return mean(F.softplus(-real)) + mean(F.softplus(fake))


def nonsaturating_generator(fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    """-log D(G(z)), which is log 2 if D cannot tell samples from data."""
    return mean(F.softplus(-fake))


def least_squares_critic(real: Tensor, fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    return 0.5 * mean((real - 1).square()) + 0.5 * mean(fake.square())


def least_squares_generator(fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    return 0.5 * mean((fake - 1).square())


def hinge_critic(real: Tensor, fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    return mean((1 - real).clamp(min=0)) + mean((1 + fake).clamp(min=0))


def hinge_generator(fake: Tensor, mean: Mean = torch.mean) -> Tensor:
    return -mean(fake)


LOSSES = {
    "nonsaturating": (nonsaturating_critic, nonsaturating_generator),
    "least_squares": (least_squares_critic, least_squares_generator),
    "hinge": (hinge_critic, hinge_generator),
}
