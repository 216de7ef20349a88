"""REINFORCE: whole episodes, each step's log-probability weighed by the rewards that came after it.

Source: Williams 1992; the book, sections 14.1 and 14.3 (causality, baseline: algorithm 2). Deviations: one update from
the mean over the steps of one episode of every environment, where the book takes an optimizer step for each time step;
the baseline may be a learned value as well as the book's mean.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import nn

from dlrun.clock import Clock
from dlrun.data.base import Data
from dlrun.models.policy import Policy
from dlrun.optim.update import Update
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.collector import Episodes
from dlrun.tasks.rl.returns import rewards_to_go
from dlrun.types import Fraction, NonNegative, Size


class Reinforce(RLTask):
    """baseline: none, mean (of the batch's rewards to go) or value (learned). A return is one up to a time limit."""

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

    def steps(self, data: Data) -> int:
        """At most: how long episodes are is not known."""
        return self.rollouts_per_epoch(data, 1)

    def collect(self, data: Data, clock: Clock) -> Episodes:
        return self.collector.episodes(self.net, data, clock)

    def samples(self, batch: Episodes) -> int:
        return len(batch.obs)

    def step(self, batch: Episodes, clock: Clock) -> Metrics:
        returns = rewards_to_go(batch.rewards, batch.done, self.gamma)[batch.lived]  # in the order of obs
        returns = torch.from_numpy(returns).to(self.device.device)
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
