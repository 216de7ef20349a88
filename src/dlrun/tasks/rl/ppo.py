"""Proximal policy optimisation.

Source: Schulman et al. 2017 (clip: equation 7; KL penalty, fixed or adaptive: equation 8); the book, section 14.4.
Details after Huang et al. 2022: advantages by GAE, normalised in each minibatch; value clipping; entropy bonus; stop
of a rollout's passes when the approximate KL is above a target. Deviations from the book: GAE in place of returns over
the whole buffer, one optimizer. Logged: return, length (of the last 100 episodes), policy_loss, value_loss, entropy,
approx_kl ((r - 1) - log r: Schulman 2020), clip_fraction, explained_variance (of the returns, by the values before
learning), passes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.models.policy import Policy
from dlrun.optim.update import Update
from dlrun.spec import Env
from dlrun.system.device import Place
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.base import Playing
from dlrun.tasks.rl.collector import RewardScale, Rollout
from dlrun.tasks.rl.returns import explained_variance, gae
from dlrun.types import Few, Fraction, NonNegative, Positive, Size


class Penalty:
    """The weight of the KL penalty; with a goal it doubles above 1.5 times the goal and halves below its 1.5th
    (section 4).
    """

    def __init__(self, weight: float, goal: float | None) -> None:
        self.weight, self.goal = weight, goal

    def adapt(self, kl: float) -> None:
        if kl > 1.5 * self.goal:
            self.weight *= 2
        elif kl < self.goal / 1.5:
            self.weight /= 2

    def state_dict(self) -> dict:
        return {"weight": self.weight}

    def load_state_dict(self, state: dict) -> None:
        self.weight = state["weight"]


class PPO(Playing):
    """length: steps of each environment per rollout. passes: over each rollout, in minibatches. clip: of the ratio, to
    1 -+ clip; null: no clipping. value_clip: of the change of a value, or null. max_kl: no more passes above it, or
    null. kl_weight: of the penalty; kl_goal: it adapts to keep this, or null. anneal: clip goes to 0 with the run.
    """

    def __init__(
        self,
        net: Policy,
        spec: Env,
        place: Place,
        update: Callable[[nn.Module], Update],
        *,
        length: Size,
        passes: Few,
        minibatch: Size,
        gamma: Fraction,
        lam: Fraction,
        clip: Positive | None,
        anneal: bool,
        value_clip: Positive | None,
        value_weight: NonNegative,
        entropy_weight: NonNegative,
        normalise_advantage: bool,
        normalise_rewards: bool,
        max_kl: Positive | None,
        kl_weight: NonNegative,
        kl_goal: Positive | None,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        super().__init__(net, spec, place, update, eval_episodes, greedy)
        if kl_goal and not kl_weight:
            raise UserError(f"task.kl_goal={kl_goal} with task.kl_weight=0: expected a weight > 0 to adapt")
        self.length, self.passes, self.minibatch = length, passes, minibatch
        self.gamma, self.lam, self.clip, self.anneal, self.value_clip = gamma, lam, clip, anneal, value_clip
        self.value_weight, self.entropy_weight = value_weight, entropy_weight
        self.normalise_advantage, self.max_kl = normalise_advantage, max_kl
        self.penalty = Penalty(kl_weight, kl_goal)
        self.reward_scale = RewardScale(gamma) if normalise_rewards else None
        self.parts["penalty"] = self.penalty
        if self.reward_scale:
            self.parts["reward_scale"] = self.reward_scale
            self.own = (*self.own, "reward_scale")

    def steps(self, data: object) -> int:
        """Rollouts in an epoch. Raises UserError where a rollout is no whole number of minibatches."""
        frames = data.num_envs * self.length
        if frames % self.minibatch:
            raise UserError(
                f"a rollout of data.num_envs={data.num_envs} x task.length={self.length} = {frames} frames is not a "
                f"whole number of minibatches of task.minibatch={self.minibatch}\n  expected a divisor of {frames}"
            )
        return self.rounds(data, self.length)

    def experience(self, data: object, clock: object) -> Rollout:
        self.player.start(data, clock)
        return self.player.collect(self.net, self.length, clock)

    def samples(self, batch: Rollout) -> int:
        return batch.rewards.size

    def step(self, batch: Rollout, clock: object) -> Metrics:
        with torch.no_grad():
            old_out, values = self._forward(torch.cat((batch.obs, batch.ahead)))
            old_out, (values, ahead) = old_out[: len(batch.obs)], values.split((len(batch.obs), len(batch.ahead)))
            old = self.net.log_prob(old_out, batch.actions)
            old_log_std = None if self.net.log_std is None else self.net.log_std.detach().clone()
        v = values.cpu().numpy().reshape(batch.rewards.shape)
        ends = batch.terminated, batch.truncated
        rewards = batch.rewards if self.reward_scale is None else self.reward_scale(batch.rewards, ends[0] | ends[1])
        advantages = gae(rewards, v, batch.next_values(v, ahead.cpu().numpy()), *ends, self.gamma, self.lam)
        explained = explained_variance(v, v + advantages)
        advantages = torch.from_numpy(advantages.reshape(-1)).to(self.place.device)
        columns = (batch.obs, batch.actions, old, advantages, values + advantages, values, old_out)
        clip = None if self.clip is None else self.clip * (1 - clock.fraction if self.anneal else 1)
        found, done = [], 0
        for done in range(1, self.passes + 1):  # noqa: B007
            order = torch.randperm(len(batch.obs), device=self.place.device)
            first = len(found)
            for rows in order.split(self.minibatch):
                loss, metrics = self._loss(*(c[rows] for c in columns), old_log_std, clip)
                if not self.update.step(loss, clock):
                    return {}
                found.append(metrics)
            last_kl = self.place.world.mean(torch.stack([m["approx_kl"] for m in found[first:]]).mean())
            if self.max_kl and last_kl.item() > self.max_kl:
                break
        means = {name: torch.stack([m[name] for m in found]).mean() for name in found[0]}
        if self.penalty.goal:
            self.penalty.adapt(last_kl.item())
        self.observe(batch.obs)  # after learning: the ratios are of the statistics that acted
        return self.scalars(batch, explained_variance=explained, passes=done) | means

    def _forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        with self.place.autocast():
            out, values = self.net(obs)
        return out.float(), values.float()

    def _loss(
        self, obs: Tensor, actions: Tensor, old: Tensor, advantages: Tensor, returns: Tensor, old_values: Tensor,
        old_out: Tensor, old_log_std: Tensor | None, clip: float | None,
    ) -> tuple[Tensor, Metrics]:  # fmt: skip
        out, values = self._forward(obs)
        log_ratio = self.net.log_prob(out, actions) - old
        if self.normalise_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = surrogate(log_ratio, advantages, clip)
        value_loss = (values - returns).square()
        if self.value_clip:
            clipped = old_values + (values - old_values).clamp(-self.value_clip, self.value_clip)
            value_loss = torch.maximum(value_loss, (clipped - returns).square())
        value_loss, entropy = 0.5 * value_loss.mean(), self.net.entropy(out).mean()
        loss = policy_loss + self.value_weight * value_loss - self.entropy_weight * entropy
        if self.penalty.weight:
            loss = loss + self.penalty.weight * kl(old_out, out, old_log_std, self.net.log_std).mean()
        with torch.no_grad():
            ratio = log_ratio.exp()
            metrics = {
                "policy_loss": policy_loss.detach(),
                "value_loss": value_loss.detach(),
                "entropy": entropy.detach(),
                "approx_kl": (ratio - 1 - log_ratio).mean(),
                "clip_fraction": ((ratio - 1).abs() > (torch.inf if clip is None else clip)).float().mean(),
            }
        return loss, metrics


def surrogate(log_ratio: Tensor, advantages: Tensor, clip: float | None) -> Tensor:
    """What is to be minimised: -min(r A, clip(r) A); its gradient at r = 1 is the policy gradient's."""
    ratio = log_ratio.exp()
    gain = ratio * advantages
    return -(gain if clip is None else torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * advantages)).mean()


def kl(old: Tensor, new: Tensor, old_log_std: Tensor | None, log_std: Tensor | None) -> Tensor:
    """KL(old || new) of categorical logits (B, actions), or of Gaussian means (B, axes) with these deviations: (B,)."""
    if log_std is None:
        logs = old.log_softmax(1)
        return (logs.exp() * (logs - new.log_softmax(1))).sum(1)
    spread = (2 * (old_log_std - log_std)).exp() + ((old - new) * (-log_std).exp()).square()
    return (log_std - old_log_std + 0.5 * (spread - 1)).sum(1)
