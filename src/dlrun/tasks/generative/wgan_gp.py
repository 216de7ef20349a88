"""Wasserstein GAN with gradient penalty: it pulls the critic's slope to 1 on lines between data and samples.

Source: Gulrajani et al. 2017, algorithm 1; the book, sections 13.7.3 and 13.8. The penalty is per sample: each pair has
its own point on the line, and the norm is over all entries of the gradient. Deviation from the book: the critic has no
batch normalisation by default (model.critic_norm=batch adds it, with a warning). Every step updates the critic; every
`n_critic`-th step updates the generator too.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Batch
from dlrun.models.gan import Pair
from dlrun.optim.update import Update
from dlrun.spec import Image, Table, Unlabelled
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.generative.adversarial import Adversarial, frozen
from dlrun.tasks.generative.quality import ClassifierLoader
from dlrun.types import Few, NonNegative, Size


class WganGp(Adversarial):
    """A generator against a critic. gp_weight: the weight of the gradient penalty, lambda."""

    compiled = ()  # torch.compile does not support second derivatives

    def __init__(
        self,
        net: Pair,
        spec: Image | Table | Unlabelled,
        device: Device,
        update: Callable[..., Update],
        load_classifier: ClassifierLoader,
        *,
        gp_weight: NonNegative,
        n_critic: Few,
        quality: str | None,
        num_samples: Size,
    ) -> None:
        super().__init__(net, spec, device, update, load_classifier, n_critic, quality, num_samples)
        if any(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in net.critic.modules()):
            warnings.warn(
                "model.critic_norm=batch: a sample's score depends on its whole batch, which the penalty per sample "
                "ignores; the paper uses none or layer",
                stacklevel=2,
            )
        self.weight = gp_weight

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        generator, critic, x, mean = self.net.generator, self.net.critic, batch[0], self.jobs.mean

        z = self.jobs.randn(len(x), self.net.latent, device=x.device)  # (B, latent)
        with self.device.autocast():
            with torch.no_grad():
                fake = generator(z)
            real_score, fake_score = mean(critic(x).float()), mean(critic(fake).float())
        slopes = gradient_norms(critic, x, fake.float(), self.jobs.rand(len(x), device=x.device))  # (B,)
        penalty = mean((slopes - 1).square())
        loss = fake_score - real_score + self.weight * penalty
        if not self.critic_update.step(loss, clock):
            return {}
        metrics = {
            "critic_loss": loss.detach(),
            "distance": (real_score - fake_score).detach(),
            "penalty": penalty.detach(),
            "gradient_norm": mean(slopes.detach()),
        }

        if clock.step % self.n_critic == self.n_critic - 1:
            z = self.jobs.randn_like(z)
            with frozen(critic), self.device.autocast():
                loss = -mean(critic(generator(z)).float())
            if not self.update.step(loss, clock):
                return {}
            metrics["loss"] = loss.detach()
        return metrics


def gradient_norms(critic: nn.Module, real: Tensor, fake: Tensor, t: Tensor, differentiable: bool = True) -> Tensor:
    """Norms of the critic's gradient at t real + (1 - t) fake; real and fake (B, *shape), t (B,) -> (B,)."""
    shares = t.view(-1, *[1] * (real.dim() - 1))
    between = (shares * real + (1 - shares) * fake).detach().requires_grad_(True)
    score = critic(between).sum()
    (slope,) = torch.autograd.grad(score, between, create_graph=differentiable)
    return slope.flatten(1).norm(dim=1)
