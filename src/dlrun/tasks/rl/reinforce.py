"""REINFORCE: learns from whole episodes; each step's log-probability is weighted by the rewards that follow it.

Source: Williams 1992; the book, sections 14.1 and 14.3 (causality, baseline: algorithm 2). Deviations from the book:
one update on the mean over all steps of one episode per environment, instead of an optimizer step for each time step;
the baseline can be a learned value instead of the mean.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from dlrun.clock import Clock
from dlrun.data.base import EnvData
from dlrun.models.policy import Policy
from dlrun.optim.update import Update
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.collector import Episodes
from dlrun.tasks.rl.returns import rewards_to_go
from dlrun.types import Fraction, NonNegative, Size


class Reinforce(RLTask[Episodes]):
    """REINFORCE with rewards to go. Returns end at a time limit: no value is added for what would follow it.

    baseline: none, mean (of the batch's rewards to go) or value (learned).
    """

    net: Policy

    def __init__(
        self,
        net: Policy,
        spec: Env,
        device: Device,
        update: Callable[[nn.Module], Update],
        *,
        gamma: Fraction,
        baseline: Literal["none", "mean", "value"],
        vf_coef: NonNegative,
        ent_coef: NonNegative,
        scale_returns: bool,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        super().__init__(net, spec, device, update, eval_episodes, greedy)
        self.gamma, self.baseline = gamma, baseline
        self.vf_coef, self.ent_coef, self.scale_returns = vf_coef, ent_coef, scale_returns

    def steps(self, data: EnvData) -> int:
        """The largest possible number of batches in an epoch: the lengths of episodes are not known."""
        return self.rollouts_per_epoch(data, 1)

    def collect(self, data: EnvData, clock: Clock) -> Episodes:
        return self.collector.episodes(self.net, data, clock)

    def samples(self, batch: Episodes) -> int:
        return len(batch.obs)

    def step(self, batch: Episodes, clock: Clock) -> Metrics:
        returns = rewards_to_go(batch.rewards, batch.done, self.gamma)[batch.valid]  # in the order of obs
        returns = torch.from_numpy(returns).to(self.device.torch_device)
        with self.device.autocast():
            out, values = self.net(batch.obs)
        out, values = out.float(), values.float()
        gains = {"none": returns, "mean": returns - returns.mean(), "value": returns - values.detach()}[self.baseline]
        if self.scale_returns:
            gains = gains / (gains.std() + 1e-8) if len(gains) > 1 else gains
        policy_loss = -(self.net.log_prob(out, batch.actions) * gains).mean()
        entropy = self.net.entropy(out).mean()
        loss = policy_loss - self.ent_coef * entropy
        losses = {"policy_loss": policy_loss, "entropy": entropy}
        if self.baseline == "value":
            losses["value_loss"] = 0.5 * (values - returns).square().mean()
            loss = loss + self.vf_coef * losses["value_loss"]
        if not self.update.step(loss, clock):
            return {}
        self.observe(batch.obs)
        return self.scalars(batch) | {name: value.detach() for name, value in losses.items()}
