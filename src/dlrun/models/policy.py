"""Policies, value functions and tables of values, for observations that are vectors or images.

Source: the book, chapter 14 (dense nets with ReLU); convolutions before them: Mnih et al. 2015; orthogonal
initialisation with gain sqrt(2), 0.01 for the policy and 1 for the value (Huang et al. 2022, details 2 and 15). Dueling
networks: Wang et al. 2016, equation 9, which subtracts the mean of the advantages; the book, section 14.4.6, prints
Q = V + A.
"""

from math import log, pi
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.layers import initialise
from dlrun.models.trunk import trunk, trunk_width
from dlrun.spec import Env
from dlrun.types import Activation, Convolution, Init, Size


class Normaliser(nn.Module):
    """(x - mean) / std, clipped to [-10, 10], with running statistics that `update` changes (Welford 1962)."""

    mean: Tensor
    var: Tensor
    count: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("var", torch.ones(shape))
        self.register_buffer("count", torch.zeros(()))

    @torch.no_grad()
    def update(self, x: Tensor) -> None:
        """Add observations (B, ...) to the statistics."""
        x = x.float()
        total, delta = self.count + len(x), x.mean(0) - self.mean
        squares = (
            self.var * self.count + x.var(0, unbiased=False) * len(x) + delta.square() * self.count * len(x) / total
        )
        self.mean += delta * len(x) / total
        self.var.copy_(squares / total)
        self.count.copy_(total)

    def forward(self, x: Tensor) -> Tensor:
        return ((x - self.mean) * (self.var + 1e-8).rsqrt()).clamp(-10, 10)


class Pixels(nn.Module):
    """Pixels in 0 .. 255 as numbers in [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x / 255


def input_layer(spec: Env, normalise: bool) -> nn.Module | None:
    """The layer before the trunk: a normaliser; without one images are scaled, and vectors are taken as they are."""
    if normalise:
        return Normaliser(spec.shape)
    return Pixels() if spec.has_pixels else None


class Policy(nn.Module):
    """An actor and a critic: (B, features) -> outputs (B, outputs), values (B,).

    The outputs are logits of discrete actions, or means of a Gaussian with a learned log_std.
    """

    def __init__(
        self, spec: Env, trunk: nn.Module, critic_trunk: nn.Module | None, width: int, norm: nn.Module
    ) -> None:
        super().__init__()
        self.norm, self.trunk, self.critic_trunk = norm, trunk, critic_trunk
        self.actor, self.critic = nn.Linear(width, spec.outputs), nn.Linear(width, 1)
        self.log_std = None if spec.actions else nn.Parameter(torch.zeros(spec.outputs))

    def forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(obs)
        features = self.trunk(x)  # (B, width)
        critic_features = features if self.critic_trunk is None else self.critic_trunk(x)
        return self.actor(features), self.critic(critic_features).squeeze(1)

    def outputs(self, obs: Tensor) -> Tensor:
        """The policy's outputs alone: (B, features) -> (B, outputs)."""
        return self.actor(self.trunk(self.norm(obs)))

    def values(self, obs: Tensor) -> Tensor:
        """The critic's values alone: (B, features) -> (B,)."""
        return self.critic((self.critic_trunk or self.trunk)(self.norm(obs))).squeeze(1)

    def observe(self, obs: Tensor) -> None:
        """Add observations (B, features) to the running statistics, if the net has any."""
        if isinstance(self.norm, Normaliser):
            self.norm.update(obs)

    def noise(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Draw the noise with which `act` samples actions of this shape, for a whole rollout at once."""
        shape = (*shape, self.actor.out_features)
        if self.log_std is not None:
            return torch.randn(shape, generator=generator, device=generator.device)
        return -torch.log(torch.empty(shape, device=generator.device).exponential_(generator=generator))  # Gumbel

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Return actions (B,) or (B, axes): sampled with the noise, or the most likely ones without it."""
        out = self.outputs(obs)
        if self.log_std is None:
            return (out if noise is None else out + noise).argmax(1)
        return out if noise is None else out + self.log_std.exp() * noise

    def log_prob(self, out: Tensor, actions: Tensor) -> Tensor:
        """Log-probabilities of actions under outputs (B, outputs): (B,)."""
        if self.log_std is None:
            return out.log_softmax(1).gather(1, actions[:, None]).squeeze(1)
        z = (actions - out) * (-self.log_std).exp()
        return (-0.5 * z.square() - self.log_std - 0.5 * log(2 * pi)).sum(1)

    def entropy(self, out: Tensor) -> Tensor:
        """Entropies of the distributions with outputs (B, outputs): (B,)."""
        if self.log_std is None:
            logs = out.log_softmax(1)
            return -(logs.exp() * logs).sum(1)
        return ((self.log_std + 0.5 * log(2 * pi) + 0.5) * torch.ones_like(out)).sum(1)


def policy(
    spec: Env,
    *,
    convolutions: list[Convolution],
    hidden: list[Size],
    activation: Activation,
    shared: bool,
    init: Init,
    normalise: bool,
) -> Policy:
    """A policy and a value function: (B, features) or (B, C, H, W) -> (B, outputs), (B,).

    convolutions: of the trunk, for images. hidden: widths of its dense layers. shared: one trunk for both, or one each.
    normalise: normalise observations by running statistics.
    """
    width = trunk_width(spec, convolutions, hidden)
    trunks = [trunk(spec, convolutions, hidden, activation, init) for _ in range(1 if shared else 2)]
    norm = input_layer(spec, normalise) or nn.Identity()
    net = Policy(spec, trunks[0], None if shared else trunks[1], width, norm)
    for head, gain in ((net.actor, 0.01), (net.critic, 1.0)):
        initialise(head, init)
        if init == "orthogonal":
            nn.init.orthogonal_(head.weight, gain)
    return net


class Dueling(nn.Module):
    """A dueling head, Q = V + A - mean(A), or the plain sum Q = V + A: (B, width) -> (B, actions)."""

    def __init__(self, width: int, actions: int, kind: str) -> None:
        super().__init__()
        self.value, self.advantage, self.kind = nn.Linear(width, 1), nn.Linear(width, actions), kind

    def forward(self, x: Tensor) -> Tensor:
        advantage = self.advantage(x)
        if self.kind == "mean":
            advantage = advantage - advantage.mean(1, keepdim=True)
        return self.value(x) + advantage


class QNetwork(nn.Sequential):
    """A network of action values: (B, features) -> (B, actions)."""

    def observe(self, obs: Tensor) -> None:
        """Add observations (B, features) to the running statistics, if the net has any."""
        norm = self[0]
        if isinstance(norm, Normaliser):
            norm.update(obs)


def q_net(
    spec: Env,
    *,
    convolutions: list[Convolution],
    hidden: list[Size],
    activation: Activation,
    dueling: Literal["mean", "plain"] | None,
    init: Init,
    normalise: bool,
) -> QNetwork:
    """A network of action values: (B, features) or (B, C, H, W) -> (B, actions).

    convolutions: before the dense layers, for images. dueling: compute the values from a state value and advantages,
    whose mean is subtracted (mean) or not (plain). normalise: normalise observations by running statistics.
    """
    width = trunk_width(spec, convolutions, hidden)
    head = Dueling(width, spec.outputs, dueling) if dueling else nn.Linear(width, spec.outputs)
    first = input_layer(spec, normalise)
    layers = trunk(spec, convolutions, hidden, activation, init)
    return QNetwork(*([first] if first else []), layers, initialise(head, init))


class ValueTable(nn.Linear):
    """A table with a value for each state and action, or for each state."""


def table(spec: Env, *, values: Literal["actions", "states"]) -> ValueTable:
    """A table of zeros, for states that are encoded one-hot: (B, states) -> (B, actions) or (B, 1)."""
    if not spec.actions or not spec.states:
        lacks = "states" if spec.actions else "discrete actions"
        raise UserError(
            f"a table of values needs {lacks}, and the data is {spec}\n"
            "  expected data=maze, or data=gym data.id=FrozenLake-v1"
        )
    net = ValueTable(spec.features, spec.actions if values == "actions" else 1, bias=False)
    nn.init.zeros_(net.weight)
    return net
