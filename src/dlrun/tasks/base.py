"""What a task is: it owns networks and optimizers, learns from one batch, and says where its batches come from."""

from collections.abc import Iterator

import torch
from torch import Tensor

from dlrun.place import Place

Metrics = dict[str, Tensor]


class Task:
    """parts: everything that changes while it learns, by name, each with state_dict and load_state_dict.

    net: the network that is evaluated, saved as the best, and exported. scores: the metrics that `evaluate` gives,
    each with which is better, "max" or "min". goal: the one to choose the best epoch by, None where there is nothing to
    choose. A step must be a pure function of (parts, seed, clock).
    """

    goal: str | None = None

    def __init__(self, net: torch.nn.Module, place: Place) -> None:
        self.net, self.place = net, place
        self.scores: dict[str, str] = {}
        self.parts: dict[str, object] = {"net": net}

    def steps(self, data: object) -> int:
        """Batches in an epoch."""
        return -(-data.size("train") // data.batch_size)

    def batches(self, data: object, clock: object) -> Iterator:
        """The batches of the clock's epoch from the clock's position on."""
        return data.batches("train", clock.seed, clock.epoch, clock.batch)

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
        """The network to judge by, in evaluation mode."""
        return self.net.eval()

    def report(self, data: object) -> dict[str, object]:
        """At the end, on the test part: what does not fit a curve (figures by name under "figures", numbers beside)."""
        return {}

    def preview(self, data: object) -> dict[str, Tensor]:
        """Pictures to look at after an epoch, by name: (C, H, W) in [0, 1]."""
        return {}

    def predict(self, batch: Tensor) -> Tensor:
        """Outputs of the evaluated network for inputs as the data gives them."""
        raise NotImplementedError(f"{type(self).__name__} does not predict")
