"""A function of real variables as data: nothing is read, and each step evaluates it at the points of a model."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import sha256

import torch
from torch import Tensor

from dlrun.errors import UserError
from dlrun.spec import Function
from dlrun.types import Count, FunctionReader


class Functions:
    """A function to draw and to minimise.

    spec: names and range of the variables, which replace the function's own. source: gives the function. steps: number
    of steps in an epoch.
    """

    batch_size = eval_batch_size = 1

    def __init__(self, *, spec: Function, source: FunctionReader, steps: Count) -> None:
        make: Callable[[], Function] = source
        function = make()
        for key in ("names", "low", "high"):
            values = getattr(spec, key)
            if values and len(values) != function.features:
                raise UserError(
                    f"data.spec.{key} has {len(values)} entries {list(values)}, and the function is one of "
                    f"{', '.join(function.names)}\n  expected {function.features}, or [] for the function's own"
                )
        if len({"f", *spec.names}) <= len(spec.names):
            raise UserError(
                f"data.spec.names={list(spec.names)}: expected different names, and none that is f, the value's name"
            )
        changes = {key: getattr(spec, key) for key in ("names", "low", "high") if getattr(spec, key)}
        self.spec: Function = replace(function, **changes)
        if not all(low < high for low, high in zip(self.spec.low, self.spec.high, strict=True)):
            raise UserError(
                f"data.spec.low={list(self.spec.low)} data.spec.high={list(self.spec.high)}: expected low < high"
            )
        self.steps = steps

    def load(self, device: torch.device, channels_last: bool = False) -> None:
        """Read nothing."""
        self.device = device

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (an offset of zero from the points, the step's number), once for each step from `first` on."""
        zero = torch.zeros(1, self.spec.features, device=self.device)
        for step in range(first, self.steps) if split == "train" else range(1):
            yield zero, torch.tensor([step])

    def size(self, split: str) -> int:
        return self.steps if split == "train" else 0

    def encode(self, stored: object) -> Tensor:
        """Points as they are typed: (B, variables)."""
        return torch.as_tensor(stored, dtype=torch.float32, device=self.device)

    def fitted(self) -> dict:
        """Return nothing: the config states the function."""
        return {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        self.device = device

    def digest(self) -> str:
        """Return a hash of the variables; the values are in `sums`."""
        return sha256(" ".join(self.spec.names).encode()).hexdigest()

    def sums(self) -> list[float]:
        """Return values at a few points of the range, to detect another function."""
        low, high = torch.tensor(self.spec.low), torch.tensor(self.spec.high)
        shares = torch.linspace(0.05, 0.95, 7)[:, None]
        return self.spec.at(low + shares * (high - low)).tolist()

    def describe(self) -> str:
        ends = zip(self.spec.names, self.spec.low, self.spec.high, strict=True)
        return ", ".join(f"{name} in [{low:.4g}, {high:.4g}]" for name, low, high in ends)
