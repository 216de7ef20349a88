"""Actors choose actions: policies (models/policy.py), and action values with random exploration."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.errors import UserError


def checked_epsilons(start: float, end: float, share: float) -> tuple[float, float, float]:
    """The arguments of `epsilon_at`. Raises UserError if epsilon would rise."""
    if end > start:
        raise UserError(
            f"task.epsilon_end={end:g} is more than task.epsilon_start={start:g}: exploration would grow\n"
            "  expected it to fall, or to stay: task.epsilon_end of at most task.epsilon_start"
        )
    return start, end, share


def epsilon_at(clock: Clock, start: float, end: float, share: float) -> float:
    """The probability of a random action: it falls from `start` to `end` over the first `share` of the run."""
    return end + (start - end) * max(0.0, 1 - clock.fraction / share) if share else end


class Actor(Protocol):
    """Chooses actions: a policy, or action values with random exploration."""

    def noise(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Draw the random numbers for actions of this shape."""

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Return actions for observations (B, features): drawn with the noise, or the best ones."""


class EpsilonGreedy:
    """An actor over action values (B, features) -> (B, actions): random with probability epsilon, else the best.

    starts: make the very first action random in all environments (exploring starts: Sutton and Barto 2018, 5.3).
    """

    def __init__(self, values: Callable[[Tensor], Tensor], actions: int, epsilon: float, starts: bool = False) -> None:
        self.values, self.actions, self.epsilon, self.starts = values, actions, epsilon, starts

    def noise(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Draw (*shape, 2) in [0, 1): one number for whether to explore, one for the action."""
        return torch.rand((*shape, 2), generator=generator, device=generator.device)

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Return actions (B,); the best ones without noise."""
        best = self.values(obs).argmax(1)
        if noise is None:
            return best
        explores = noise[:, 0] < (1.0 if self.starts else self.epsilon)
        self.starts = False
        return torch.where(explores, (noise[:, 1] * self.actions).long(), best)
