"""Conditional GANs: both networks are given the class (Mirza and Osindero 2014; the book, section 9.7)."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.base import Batch, SampleData
from dlrun.models.conditional_gan import ConditionalPair
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.spec import Image
from dlrun.system.device import Device
from dlrun.tasks.generative.gan import Gan
from dlrun.tasks.generative.latent import apply_in_chunks, noise
from dlrun.tasks.generative.quality import SAMPLES, ClassifierLoader
from dlrun.tasks.images import grid, image_figure
from dlrun.types import Few, Size

TITLE = "samples: a class in each column, the same noise in each row"


class ConditionalGan(Gan):
    """A GAN whose samples have a wanted class. Keys: see Gan.

    class_acc (with task.quality): the share of samples that the classifier takes for the class they were asked to be.
    """

    net: ConditionalPair

    def __init__(
        self,
        net: ConditionalPair,
        spec: Image,
        device: Device,
        update: Callable[..., Update],
        load_classifier: ClassifierLoader,
        *,
        n_critic: Few,
        quality: str | None,
        num_samples: Size,
    ) -> None:
        super().__init__(
            net, spec, device, update, load_classifier,
            loss="nonsaturating", n_critic=n_critic, quality=quality, num_samples=num_samples,
        )  # fmt: skip
        if self.quality.features:
            self.scores = self.scores | {"class_acc": "max"}

    def players(self, batch: Batch) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]:
        """Both play with the classes of the batch."""
        x, y = batch
        classes = F.one_hot(y.long(), self.net.classes).to(x.dtype)
        return (
            lambda z: self.net.generator(torch.cat((z[:, : -self.net.classes], classes), 1)),
            lambda images: self.net.critic(images, classes),
            x,
        )

    def codes(self, count: int, seed: int) -> tuple[Tensor, Tensor]:
        """Codes (count, latent) of all classes in turn, with the same noise for each class of a row; the classes."""
        k, device = self.net.classes, self.device
        z = noise(self.net.latent - k, -(-count // k), device, seed).repeat_interleave(k, 0)[:count]
        y = torch.arange(count, device=z.device) % k
        return torch.cat((z, F.one_hot(y, k).to(z.dtype)), 1), y

    @torch.no_grad()
    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        metrics = super().evaluate(data, split)
        if self.quality.features:
            z, y = self.codes(SAMPLES, 7)
            samples = apply_in_chunks(self.evaluated(), z, self.device)
            predicted = self.quality.features.classify((samples + 1) / 2).argmax(1)
            metrics["class_acc"] = (predicted == y).float().mean().item()
        return metrics

    @torch.no_grad()
    def preview(self, data: SampleData) -> dict[str, Tensor]:
        z, _ = self.codes(self.num_samples, 2)
        return {"samples": grid((apply_in_chunks(self.evaluated(), z, self.device) + 1) / 2, self.net.classes)}

    def report(self, data: SampleData) -> Report:
        return Report({"samples": partial(image_figure, self.preview(data)["samples"], TITLE)})
