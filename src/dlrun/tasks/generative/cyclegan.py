"""CycleGAN: translate images of two domains into each other, learned from images that are not in pairs.

Source: Zhu et al. 2017, equations 1 to 3, with the squared errors of section 4 instead of logarithms; the identity
loss of section 5.2. The domains are the two classes of the data; a batch has images of both, in any share. Every step
updates both generators, then both critics. Deviation: critics see the translations of the present step only, not a
history of 50.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Batch, SampleData
from dlrun.errors import UserError, counted
from dlrun.models.cyclegan import Cycle
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.spec import Image
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, SampleTask
from dlrun.tasks.generative.adversarial import frozen
from dlrun.tasks.generative.gan import least_squares_critic
from dlrun.tasks.generative.latent import apply_in_chunks
from dlrun.tasks.generative.quality import SAMPLES, sliced_wasserstein
from dlrun.tasks.images import first_inputs, grid, image_figure, rescaled
from dlrun.types import NonNegative, Size

LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class Cyclegan(SampleTask):
    """Two generators and two critics. The domains are numbered as the classes are.

    cycle_weight: lambda of the cycle loss. identity_weight: that of the identity loss, as a share of lambda.
    num_samples: number of images of each domain on a sheet of translations.

    swd: sliced Wasserstein distance of translations to the images of their domain. cycle_mae: mean absolute error of a
    translation there and back, for pixels in [0, 1]. luminance_corr: correlation of an image's luminance with that of
    its translation. colour_gap, for colour images: how far the colourfulness of translations is from that of their
    domain. All are means over both domains.
    """

    accepts = ("images",)
    compiled = ()  # the number of images of a domain differs from batch to batch
    net: Cycle
    num_samples: int

    def __init__(
        self,
        net: Cycle,
        spec: Image,
        device: Device,
        update: Callable[..., Update],
        *,
        cycle_weight: NonNegative,
        identity_weight: NonNegative,
        num_samples: Size,
    ) -> None:
        super().__init__(net, device)
        self.update, self.critic_update = update(net.generator), update(net.critic, ema=0.0)
        self.components |= {"update": self.update, "critic_update": self.critic_update}
        self.spec, self.num_samples = spec, num_samples
        self.cycle_weight, self.identity_weight = cycle_weight, identity_weight
        self.is_colour = spec.shape[0] == len(LUMINANCE)
        self.scores = {"swd": "min", "cycle_mae": "min", "luminance_corr": "max"}
        self.scores |= {"colour_gap": "min"} if self.is_colour else {}
        self.goal = "swd"

    def prepare(self, data: SampleData) -> None:
        """Raise UserError if a split has no image of one of the domains."""
        targets: Callable[[str], Tensor] | None = getattr(data, "targets", None)
        if targets is None:
            return
        for split in ("train", "val", "test"):
            counts = torch.bincount(targets(split), minlength=2).tolist()
            if 0 in counts:
                first, second = self.spec.labels or ("class 0", "class 1")
                raise UserError(
                    f"the {split} split has {counted(counts[0], 'image')} of {first} and {counts[1]:,} of {second}\n"
                    "  expected some of both domains in each split: more images, or other shares of the splits"
                )

    def batches(self, data: SampleData, clock: Clock) -> Iterator[Batch]:
        """Iterate over batches with pixels in [-1, 1], the range of the generators' tanh."""
        return rescaled(super().batches(data, clock), data, -1.0, 1.0)

    def step(self, batch: Batch, clock: Clock) -> Metrics:
        to, critic = self.net.generator, self.net.critic
        parts = domains(batch)

        fakes: list[Tensor] = []
        fooled, cycle, identity = (torch.zeros((), device=batch[0].device) for _ in range(3))
        with frozen(critic), self.device.autocast():
            for here, there, x in parts:
                fake = to[there](x)
                fooled = fooled + (critic[there](fake).float() - 1).square().mean()
                cycle = cycle + (to[here](fake).float() - x).abs().mean()
                if self.identity_weight:
                    identity = identity + (to[here](x).float() - x).abs().mean()
                fakes.append(fake.detach())
        loss = fooled + self.cycle_weight * (cycle + self.identity_weight * identity)
        if not self.update.step(loss, clock):
            return {}

        critic_loss = torch.zeros((), device=batch[0].device)
        with self.device.autocast():
            for (here, there, x), fake in zip(parts, fakes, strict=True):
                real_score, fake_score = critic[here](x).float(), critic[there](fake).float()
                critic_loss = critic_loss + least_squares_critic(real_score, fake_score)
        if not self.critic_update.step(critic_loss, clock):
            return {}
        metrics = {"loss": loss, "adversarial_loss": fooled, "cycle_loss": cycle, "critic_loss": critic_loss}
        metrics |= {"identity_loss": identity} if self.identity_weight else {}
        return {name: value.detach() for name, value in metrics.items()}

    def evaluated(self) -> nn.ModuleList:
        return cast(nn.ModuleList, super().evaluated())

    @torch.no_grad()
    def measured(self, data: SampleData, split: str) -> list[dict[str, float]]:
        """For each domain, measures of the translation of its images, and the colourfulness of both.

        swd and colour_of_translations are measured on images translated into this domain, the others on its own images.
        """
        to = self.evaluated()
        values: list[dict[str, list[Tensor]]] = [{}, {}]
        for batch in rescaled(data.batches(split), data, -1.0, 1.0):
            for here, there, x in domains(batch):
                fake = apply_in_chunks(to[there], x, self.device)
                cycle = (apply_in_chunks(to[here], fake, self.device) - x).abs().flatten(1).mean(1) / 2
                measures = {"cycle_mae": cycle, "luminance_corr": correlation(luminance(x), luminance(fake)), "real": x}
                measures |= {"colour": colourfulness(x)} if self.is_colour else {}
                for name, value in measures.items():
                    values[here].setdefault(name, []).append(value)
                measures = {"fake": fake} | ({"colour_of_translations": colourfulness(fake)} if self.is_colour else {})
                for name, value in measures.items():
                    values[there].setdefault(name, []).append(value)
        results = []
        for measures in ({name: torch.cat(parts) for name, parts in each.items()} for each in values):
            real, fake = measures.pop("real"), measures.pop("fake")
            count = min(SAMPLES, len(real), len(fake))
            result = {"swd": sliced_wasserstein(real[:count], fake[:count]).item()}
            results.append(result | {name: value.mean().item() for name, value in measures.items()})
        return results

    def evaluate(self, data: SampleData, split: str) -> dict[str, float]:
        measures = self.measured(data, split)
        if self.is_colour:
            measures = [
                each | {"colour_gap": abs(each["colour"] - each["colour_of_translations"])} for each in measures
            ]
        return {name: sum(each[name] for each in measures) / len(measures) for name in self.scores}

    @torch.no_grad()
    def predict(self, batch: Tensor) -> Tensor:
        """Translate images (B, C, H, W) in [0, 1] into both domains: (B, C, H, 2 W), the first domain on the left."""
        both = [apply_in_chunks(to, 2 * batch - 1, self.device) for to in self.evaluated()]
        return ((torch.cat(both, 3) + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def preview(self, data: SampleData, split: str = "val") -> dict[str, Tensor]:
        """For each domain: images in the first row, their translations in the second, the way back in the third."""
        to, sheets = self.evaluated(), {}
        for here, there in ((0, 1), (1, 0)):
            batches = rescaled(data.batches(split), data, -1.0, 1.0)
            x = first_inputs(((x[y == here], y) for x, y in batches), self.num_samples)
            fake = apply_in_chunks(to[there], x, self.device)
            rows = torch.cat((x, fake, apply_in_chunks(to[here], fake, self.device)))
            sheets[f"from_{here}"] = grid((rows + 1) / 2, len(x))
        return sheets

    def report(self, data: SampleData) -> Report:
        """Sheets of translations of test images, and the measures of each domain."""
        names = self.spec.labels or ("the first domain", "the second domain")
        figures: dict[str, Callable] = {
            name: partial(image_figure, sheet, f"{names[here]}, translated to {names[1 - here]}, and back, test")
            for here, (name, sheet) in enumerate(self.preview(data, "test").items())
        }
        return Report(figures, numbers={"domains": dict(zip(names, self.measured(data, "test"), strict=True))})


def domains(batch: Batch) -> list[tuple[int, int, Tensor]]:
    """The images of each domain that a batch has: the domain's number, that of the other one, images (B', C, H, W)."""
    x, y = batch
    parts = [(here, 1 - here, x[y == here]) for here in (0, 1)]
    return [part for part in parts if len(part[2])]


def luminance(x: Tensor) -> Tensor:
    """The luminance (B, H * W) of images (B, C, H, W); the mean over the channels unless there are three."""
    weights = LUMINANCE if x.shape[1] == len(LUMINANCE) else (1 / x.shape[1],) * x.shape[1]
    return (x * torch.tensor(weights, device=x.device).view(-1, 1, 1)).sum(1).flatten(1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation (B,) of rows (B, N); 0 for rows that are constant."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-8)


def colourfulness(x: Tensor) -> Tensor:
    """The mean over the pixels of the range of the channels (B,), for pixels in [0, 1]; x (B, 3, H, W) in [-1, 1]."""
    return (x.amax(1) - x.amin(1)).flatten(1).mean(1) / 2
