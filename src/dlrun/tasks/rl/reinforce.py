"""REINFORCE: learns from whole episodes; each step's log-probability is weighted by the rewards that follow it.

Source: Williams 1992; the book, sections 14.1 (an optimizer step for each time step) and 14.3 (whole returns:
algorithm 1; causality and baseline: algorithm 2). The baseline can be a learned value, too. Deviation from the book:
with a step for each time step, gradients are taken at the present weights, not at those that played the episode.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

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
    """REINFORCE. Returns end at a time limit: no value is added for what would follow it.

    causal: weight a step by the rewards that follow it; else by the whole episode's. baseline: none, mean (over the
    batch) or value (learned). each_step: an optimizer step for each time step, from the last to the first; else one for
    all.
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
        causal: bool,
        each_step: bool,
        baseline: Literal["none", "mean", "value"],
        vf_coef: NonNegative,
        ent_coef: NonNegative,
        scale_returns: bool,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        super().__init__(net, spec, device, update, eval_episodes, greedy)
        self.gamma, self.causal, self.each_step, self.baseline = gamma, causal, each_step, baseline
        self.vf_coef, self.ent_coef, self.scale_returns = vf_coef, ent_coef, scale_returns

    def steps(self, data: EnvData) -> int:
        """The largest possible number of batches in an epoch: the lengths of episodes are not known."""
        return self.rollouts_per_epoch(data, 1)

    def collect(self, data: EnvData, clock: Clock) -> Episodes:
        return self.collector.episodes(self.net, data, clock)

    def samples(self, batch: Episodes) -> int:
        return len(batch.obs)

    def step(self, batch: Episodes, clock: Clock) -> Metrics:
        to_go = rewards_to_go(batch.rewards, batch.done, self.gamma)
        weights = to_go if self.causal else np.broadcast_to(to_go[0], to_go.shape)
        returns = torch.from_numpy(weights[batch.valid]).to(self.device.torch_device)  # in the order of obs
        gains = returns
        if self.baseline == "mean":
            gains = returns - returns.mean()
        elif self.baseline == "value":
            with torch.no_grad():
                gains = returns - self._forward(batch.obs)[1]
        if self.scale_returns:
            gains = gains / (gains.std() + 1e-8) if len(gains) > 1 else gains
        counts = batch.valid.sum(1).tolist() if self.each_step else [len(returns)]
        columns = (each.split(counts) for each in (batch.obs, batch.actions, returns, gains))
        rows: list[Metrics] = []
        for part in reversed(list(zip(*columns, strict=True))):
            loss, losses = self._loss(*part)
            if not self.update.step(loss, clock):
                return {}
            rows.append(losses)
        self.observe(batch.obs)
        means = {name: torch.stack([losses[name] for losses in rows]).mean() for name in rows[0]}
        return self.scalars(batch) | means

    def _forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        with self.device.autocast():
            out, values = self.net(obs)
        return out.float(), values.float()

    def _loss(self, obs: Tensor, actions: Tensor, returns: Tensor, gains: Tensor) -> tuple[Tensor, Metrics]:
        """Return the loss of some steps, and its terms."""
        out, values = self._forward(obs)
        policy_loss = -(self.net.log_prob(out, actions) * gains).mean()
        entropy = self.net.entropy(out).mean()
        loss = policy_loss - self.ent_coef * entropy
        losses = {"policy_loss": policy_loss, "entropy": entropy}
        if self.baseline == "value":
            losses["value_loss"] = 0.5 * (values - returns).square().mean()
            loss = loss + self.vf_coef * losses["value_loss"]
        return loss, {name: value.detach() for name, value in losses.items()}
