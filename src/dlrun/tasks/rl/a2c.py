"""Advantage actor-critic, all environments in step.

Source: Mnih et al. 2016 (A3C; here synchronous); the book, section 14.8: policy loss -log pi(a|s) A, A = r + gamma
V(s') - V(s), with lam=0; lam=1 is the paper's n-step return. Logged: as in tasks/rl/ppo.py, without what is of the
ratio.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import Data
from dlrun.models.policy import Policy
from dlrun.optim.update import Update
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.collector import Rollout
from dlrun.tasks.rl.returns import explained_variance, gae
from dlrun.types import Fraction, NonNegative, Size


@dataclass(frozen=True)
class Loss:
    """Of a policy and its values on a rollout (Mnih et al. 2016, section 4). gae_lambda: of GAE."""

    device: Device
    gamma: float
    gae_lambda: float
    vf_coef: float
    ent_coef: float
    normalise_advantage: bool

    def __call__(self, net: nn.Module, batch: Rollout) -> tuple[Tensor, Metrics, float]:
        """With its terms, and the share of the returns' variance that the values explain."""
        with self.device.autocast():
            out, values = net(batch.obs)
            with torch.no_grad():
                ahead = net.values(batch.bootstrap_obs)
        out, values = out.float(), values.float()
        v = values.detach().cpu().numpy().reshape(batch.rewards.shape)
        behind = batch.next_values(v, ahead.float().cpu().numpy())
        found = gae(batch.rewards, v, behind, batch.terminated, batch.truncated, self.gamma, self.gae_lambda)
        advantages = torch.from_numpy(found.reshape(-1)).to(self.device.device)
        returns = values.detach() + advantages
        if self.normalise_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = -(net.log_prob(out, batch.actions) * advantages).mean()
        value_loss, entropy = 0.5 * (values - returns).square().mean(), net.entropy(out).mean()
        loss = policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy
        terms = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return loss, {name: value.detach() for name, value in terms.items()}, explained_variance(v, v + found)


class A2C(RLTask):
    """num_steps: steps of each environment per rollout, each the batch of one update."""

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

    def steps(self, data: Data) -> int:
        """Rollouts in an epoch."""
        return self.rollouts_per_epoch(data, self.num_steps)

    def collect(self, data: Data, clock: Clock) -> Rollout:
        self.collector.start(data, clock)
        return self.collector.collect(self.net, self.num_steps, clock)

    def samples(self, batch: Rollout) -> int:
        return batch.rewards.size

    def step(self, batch: Rollout, clock: Clock) -> Metrics:
        loss, metrics, explained = self.loss(self.net, batch)
        if not self.update.step(loss, clock):
            return {}
        self.observe(batch.obs)
        return self.scalars(batch, explained_variance=explained) | metrics
