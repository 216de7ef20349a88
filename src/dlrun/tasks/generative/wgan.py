"""Wasserstein GAN with weight clipping: a critic with a bounded slope estimates the earth mover's distance.

Source: Arjovsky et al. 2017, algorithm 1; the book, section 13.7, for the theory. Every step updates the critic; every
`n_critic`-th step updates the generator too.
"""

from collections.abc import Callable

import torch
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
from dlrun.tasks.generative.wgan_gp import gradient_norms
from dlrun.types import Few, Positive, Size


class Wgan(Adversarial):
    """A generator against a critic. clip: every weight of the critic is kept in [-clip, clip]."""

    def __init__(
        self,
        net: Pair,
        spec: Image | Table | Unlabelled,
        device: Device,
        update: Callable[..., Update],
        load_classifier: ClassifierLoader,
        *,
        clip: Positive,
        n_critic: Few,
        quality: str | None,
        num_samples: Size,
    ) -> None:
        super().__init__(net, spec, device, update, load_classifier, n_critic, quality, num_samples)
        self.clip = clip

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        generator, critic, x, mean = self.net.generator, self.net.critic, batch[0], self.jobs.mean

        z = self.jobs.randn(len(x), self.net.latent, device=x.device)  # (B, latent)
        with self.device.autocast():
            with torch.no_grad():
                fake = generator(z)
            real_score, fake_score = mean(critic(x).float()), mean(critic(fake).float())
        loss = fake_score - real_score
        if not self.critic_update.step(loss, clock):
            return {}
        with torch.no_grad():
            weights: list[Tensor] = [*critic.parameters()]
            torch._foreach_clamp_min_(weights, -self.clip)
            torch._foreach_clamp_max_(weights, self.clip)
        metrics = {"critic_loss": loss.detach(), "distance": -loss.detach()}

        if clock.step % self.n_critic == self.n_critic - 1:
            z = self.jobs.randn_like(z)
            with frozen(critic):
                t = self.jobs.rand(len(x), device=x.device)
                slopes = gradient_norms(critic, x, fake.float(), t, differentiable=False)  # (B,)
                with self.device.autocast():
                    loss = -mean(critic(generator(z)).float())
            if not self.update.step(loss, clock):
                return {}
            metrics |= {"loss": loss.detach(), "gradient_norm": mean(slopes.detach())}
        return metrics
