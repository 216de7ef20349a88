"""Advantage actor-critic (A2C): all environments are stepped together.

Source: Mnih et al. 2016 (A3C; this is its synchronous form); the book, section 14.5: policy loss -log pi(a|s) A with
A = r + gamma V(s') - V(s), which is gae_lambda=0; gae_lambda=1 is the paper's n-step return.
Logged: return, length, policy_loss, value_loss, entropy, explained_variance.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.models.policy import Policy
from dlrun.optim.update import Update
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.base import RolloutTask
from dlrun.tasks.rl.collector import Rollout
from dlrun.tasks.rl.returns import explained_variance, gae
from dlrun.types import Fraction, NonNegative, Size


@dataclass(frozen=True)
class Loss:
    """The loss of a policy and its values on a rollout (Mnih et al. 2016, section 4)."""

    device: Device
    gamma: float
    gae_lambda: float
    vf_coef: float
    ent_coef: float
    normalise_advantage: bool
    end_reward: float | None = None  # takes the place of the last reward of an episode that ends; None: it stays

    def __call__(self, net: Policy, batch: Rollout) -> tuple[Tensor, Metrics, float]:
        """Return the loss, its terms, and the share of the returns' variance that the values explain."""
        with self.device.autocast():
            out, values = net(batch.obs)
            with torch.no_grad():
                bootstrap_values = net.values(batch.bootstrap_obs).float().cpu().numpy()
        out, values = out.float(), values.float()
        v = values.detach().cpu().numpy().reshape(batch.rewards.shape)
        next_values = batch.next_values(v, bootstrap_values)
        rewards = batch.rewards
        if self.end_reward is not None:
            rewards = np.where(batch.terminated, np.float32(self.end_reward), rewards)
        gains = gae(rewards, v, next_values, batch.terminated, batch.truncated, self.gamma, self.gae_lambda)
        advantages = torch.from_numpy(gains.reshape(-1)).to(self.device.torch_device)
        returns = values.detach() + advantages
        if self.normalise_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = -(net.log_prob(out, batch.actions) * advantages).mean()
        value_loss, entropy = 0.5 * (values - returns).square().mean(), net.entropy(out).mean()
        loss = policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy
        terms = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return loss, {name: value.detach() for name, value in terms.items()}, explained_variance(v, v + gains)


class A2C(RolloutTask):
    """Advantage actor-critic: one update from each rollout of `num_steps` steps of all environments."""

    net: Policy

    def __init__(
        self,
        net: Policy,
        spec: Env,
        device: Device,
        update: Callable[[nn.Module], Update],
        *,
        num_steps: Size,
        gamma: Fraction,
        gae_lambda: Fraction,
        vf_coef: NonNegative,
        ent_coef: NonNegative,
        normalise_advantage: bool,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        super().__init__(net, spec, device, update, eval_episodes, greedy)
        self.num_steps = num_steps
        self.loss = Loss(device, gamma, gae_lambda, vf_coef, ent_coef, normalise_advantage)

    def step(self, batch: Rollout, clock: Clock) -> Metrics:
        loss, metrics, explained = self.loss(self.net, batch)
        if not self.update.step(loss, clock):
            return {}
        self.observe(batch.obs)
        return self.scalars(batch, explained_variance=explained) | metrics
