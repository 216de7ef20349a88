"""What a task is: it owns networks and optimizers, learns from one batch, and says where its batches come from."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dlrun.optim.update import Update
from dlrun.system.device import Device

Metrics = dict[str, Tensor]


class Task:
    """parts: everything that changes while it learns, by name, each with state_dict and load_state_dict.

    net: everything that is saved as the best and can be started from. update: of the weights to judge by; a leaf makes
    it, and puts it among the parts, with any others that it has. own: names of the parts that each of several processes
    has for itself (the others are the same in all). scores: the metrics that `evaluate` gives,
    each with which is better, "max" or "min". goal: the one to choose the best epoch by, None where there is nothing to
    choose. A step must be a pure function of (parts, seed, clock).

    compiled: what its steps call of the net, by name ("" is all of it), for torch.compile; () where that cannot help.
    takes: what predictions are made from, the usual first: "inputs" (as the data gives them), "pictures" (in [0, 1]) or
    "latent" (codes (B, net.latent)), which `predict` is given; or "episodes", which `play` plays.
    """

    goal: str | None = None
    takes: tuple[str, ...] = ("inputs",)
    own: tuple[str, ...] = ()
    compiled: tuple[str, ...] = ("",)
    update: Update

    def __init__(self, net: torch.nn.Module, place: Device) -> None:
        self.net, self.place = net, place
        self.scores: dict[str, str] = {}
        self.parts: dict[str, object] = {"net": net}

    def steps(self, data: object) -> int:
        """Batches in an epoch."""
        return -(-data.size("train") // data.batch_size)

    def epoch_samples(self, data: object) -> int | None:
        """Samples (frames) that end an epoch, where `steps` is only the most that there can be."""
        return None

    def batches(self, data: object, clock: object) -> Iterator:
        """The batches of the clock's epoch from the clock's position on."""
        batches, world = data.batches("train", clock.seed, clock.epoch, clock.batch), self.place.world
        return batches if world.size == 1 else world.shards(batches)

    def samples(self, batch: tuple) -> int:
        return len(batch[0])

    def step(self, batch: tuple, clock: object) -> Metrics:
        """Learns from one batch. Gives detached tensors on the device: scalars: the batch's means; vectors: per sample.

        Nothing where the step was left out (trainer.on_nan=skip).
        """
        raise NotImplementedError(f"{type(self).__name__} must say how it learns from a batch")

    def evaluate(self, data: object, split: str) -> dict[str, float]:
        """Metrics over a whole split, as `scores` names them."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is evaluated")

    def evaluated(self) -> torch.nn.Module:
        """The network to judge by, in evaluation mode: the averaged one where there is one."""
        return self.update.ema if self.update.ema is not None else self.update.net.eval()

    def named_updates(self) -> dict[str, Update]:
        return {name: part for name, part in self.parts.items() if isinstance(part, Update)}

    def best_state(self) -> dict[str, Tensor]:
        """The whole net's state, averaged weights in the place of those that they are averages of."""
        state = self.net.state_dict()
        for update in self.named_updates().values():
            if update.ema is not None:
                name = next(name for name, child in self.net.named_modules() if child is update.net)
                state |= {f"{name}.{key}" if name else key: v for key, v in update.ema.state_dict().items()}
        return state

    def load_best_state(self, state: dict[str, Tensor]) -> None:
        self.net.load_state_dict(state)
        for update in self.named_updates().values():
            if update.ema is not None:
                update.ema.load_state_dict(update.net.state_dict())

    def report(self, data: object) -> dict[str, object]:
        """At the end, on the test part: what does not fit a curve (figures by name under "figures", numbers beside)."""
        return {}

    def preview(self, data: object) -> dict[str, Tensor]:
        """Pictures to look at after an epoch, by name: (C, H, W) in [0, 1]."""
        return {}

    def predict(self, batch: Tensor) -> Tensor:
        """Outputs of the evaluated network for what `takes` says; pictures (B, C, H, W) are in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} does not predict")

    def play(self, data: object, episodes: int, seed: int) -> list[tuple[float, int]]:
        """Return and length of so many episodes, from starts by the seed."""
        raise NotImplementedError(f"{type(self).__name__} does not play")
