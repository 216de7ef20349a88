"""InfoGAN: a GAN whose codes can be recovered from its images, so that they gain a meaning without labels.

Source: Chen et al. 2016, equations 5 and 6: to the losses of the generator and of Q, which guesses the codes of an
image and shares the critic's convolutions, comes a lower bound of the mutual information of codes and image,
L_I = E log Q(c|x) + H(c). One code is a category, the others are continuous, for which Q gives a normal distribution.
"""

from collections.abc import Callable
from functools import partial
from math import log, pi
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dlrun.data.base import SampleData
from dlrun.models.infogan import InfoPair, uniform
from dlrun.optim.update import Update
from dlrun.output.plots import confusion_matrix
from dlrun.output.report import Report
from dlrun.spec import Image, Unlabelled
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.generative.gan import Gan
from dlrun.tasks.generative.latent import apply_in_chunks, noise
from dlrun.tasks.generative.matching import clustering_accuracy, matched, purity
from dlrun.tasks.generative.quality import ClassifierLoader
from dlrun.tasks.images import grid, image_figure, rescaled
from dlrun.types import Few, NonNegative, Size

SWEPT, REACH = 10, 0.95  # values of a continuous code on a sheet, from -REACH to REACH
TITLES = {
    "samples": "samples: a category in each row, the same noise in each column",
    "code": "each row a category, along which continuous code {} grows from -0.95 to 0.95",
    "clusters": "test images that Q takes for each category (rows)",
}


class Infogan(Gan):
    """A GAN that tells its codes. Further keys: see Gan.

    info_weight, code_weight: lambda of the categorical code, and of the continuous ones. mutual_information: the lower
    bound of the mutual information of all codes and the image, in nats. If the images have classes, Q sorts the real
    ones: clustering_acc is the share whose category is that of their class, if each category is matched with one class;
    purity the share that is of the commonest class of their category.
    """

    net: InfoPair

    def __init__(
        self,
        net: InfoPair,
        spec: Image | Unlabelled,
        device: Device,
        update: Callable[..., Update],
        load_classifier: ClassifierLoader,
        *,
        loss: Literal["nonsaturating", "least_squares", "hinge"],
        info_weight: NonNegative,
        code_weight: NonNegative,
        n_critic: Few,
        quality: str | None,
        num_samples: Size,
    ) -> None:
        super().__init__(
            net, spec, device, update, load_classifier,
            loss=loss, n_critic=n_critic, quality=quality, num_samples=num_samples,
        )  # fmt: skip
        self.info_weight, self.code_weight = info_weight, code_weight
        self.classes = spec.classes or 0
        if self.classes:
            self.scores = self.scores | {"clustering_acc": "max", "purity": "max"}

    def code_losses(self, out: Tensor, z: Tensor) -> tuple[list[Tensor], Metrics]:
        """Minus log Q of the codes z (B, latent), from the critic's outputs for their images (B, outputs)."""
        k, codes, mean = self.net.categories, self.net.codes, self.jobs.mean
        guesses = out[:, 1:]
        category = mean(F.cross_entropy(guesses[:, :k], z[:, -k:].argmax(1), reduction="none"))
        centre, log_std = guesses[:, k:].chunk(2, 1)
        log_std = log_std.clamp(-5, 2)
        wanted = uniform(z[:, z.shape[1] - k - codes : -k])  # (B, codes)
        away = (wanted - centre) / log_std.exp()
        code = mean((0.5 * away.square() + log_std + 0.5 * log(2 * pi)).sum(1))
        information = (log(k) - category + codes * log(2) - code).detach()  # uniform in (-1, 1): H = log 2
        return [self.info_weight * category, self.code_weight * code], {"mutual_information": information}

    @torch.no_grad()
    def categories(self, data: SampleData, split: str) -> tuple[Tensor, Tensor]:
        """The category (N,) in which Q sorts each image of a split, and its class (N,)."""
        critic, k = self.net.critic.eval(), self.net.categories
        pairs = [
            (apply_in_chunks(critic, x, self.device)[:, 1 : 1 + k].argmax(1), y)
            for x, y in rescaled(data.batches(split), data, -1.0, 1.0)
        ]
        return torch.cat([category for category, _ in pairs]), torch.cat([y for _, y in pairs])

    def counts(self, category: Tensor, y: Tensor) -> np.ndarray:
        """Number of images of each category (rows) and class."""
        cells = torch.bincount(category * self.classes + y, minlength=self.net.categories * self.classes)
        return cells.view(self.net.categories, self.classes).cpu().numpy()

    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        metrics = super().evaluate(data, split)
        if self.classes:
            counts = self.counts(*self.categories(data, split))
            metrics |= {"clustering_acc": clustering_accuracy(counts), "purity": purity(counts)}
        return metrics

    def codes(self, count: int, seed: int, swept: int | None = None) -> Tensor:
        """Codes (categories * count, latent): for each category, `count` with the same noise.

        swept: number of the continuous code that goes from -REACH to REACH, with all else equal; None for none.
        """
        k, latent = self.net.categories, self.net.latent
        z = noise(latent, count, self.device, seed)
        if swept is not None:
            z = z[:1].repeat(count, 1)
            z[:, latent - k - self.net.codes : latent - k] = 0
            shares = torch.linspace(-REACH, REACH, count, device=z.device)
            z[:, latent - k - self.net.codes + swept] = torch.erfinv(shares) * 2**0.5
        z = z.repeat(k, 1)
        z[:, -k:] = torch.eye(k, device=z.device).repeat_interleave(count, 0)
        return z

    @torch.no_grad()
    def preview(self, data: SampleData) -> dict[str, Tensor]:
        count = max(1, self.num_samples // self.net.categories)
        codes = {"samples": self.codes(count, 2)}
        codes |= {f"code_{i + 1}": self.codes(SWEPT, 2, i) for i in range(self.net.codes)}
        columns = {name: len(z) // self.net.categories for name, z in codes.items()}
        net = self.evaluated()
        return {name: grid((apply_in_chunks(net, z, self.device) + 1) / 2, columns[name]) for name, z in codes.items()}

    def report(self, data: SampleData) -> Report:
        """Sheets of all codes; with classes, test images by category, and the categories matched with classes."""
        sheets = self.preview(data)
        titles = {name: TITLES[name.partition("_")[0]].format(name.partition("_")[2]) for name in sheets}
        figures: dict[str, Callable] = {n: partial(image_figure, sheet, titles[n]) for n, sheet in sheets.items()}
        category, y = self.categories(data, "test")
        figures["clusters"] = partial(image_figure, self.sorted_images(data, category), TITLES["clusters"])
        if not self.classes:
            return Report(figures)
        counts = self.counts(category, y)
        label_of = matched(counts)
        if self.net.categories == self.classes:
            by_class = counts[np.argsort(label_of)].T  # true classes in rows, matched categories in columns
            labels = self.spec.labels or tuple(map(str, range(self.classes)))
            figures["confusion_matrix"] = partial(confusion_matrix, by_class, labels)
        return Report(figures, numbers={"class_of_category": label_of})

    def sorted_images(self, data: SampleData, category: Tensor) -> Tensor:
        """A sheet with the first test images of each category in a row; grey where there are too few."""
        k = self.net.categories
        rows: list[list[Tensor]] = [[] for _ in range(k)]
        first = 0
        for x, _ in rescaled(data.batches("test"), data, 0.0, 1.0):
            for image, row in zip(x, category[first : first + len(x)].tolist(), strict=True):
                if len(rows[row]) < SWEPT:
                    rows[row].append(image)
            first += len(x)
            if all(len(row) == SWEPT for row in rows):
                break
        empty = torch.full(tuple(data.spec.shape), 0.5, device=category.device)
        return grid(torch.stack([image for row in rows for image in (row + [empty] * SWEPT)[:SWEPT]]), SWEPT)
