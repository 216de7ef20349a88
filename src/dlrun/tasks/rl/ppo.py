"""Proximal policy optimisation.

Source: Schulman et al. 2017 (clipping: equation 7; KL penalty, fixed or adaptive: equation 8); the book, sections
14.3.5 and 14.3.6. Details follow Huang et al. 2022: advantages by GAE, normalised in each minibatch; value clipping;
an entropy bonus; no more passes over a rollout once the approximate KL exceeds a target. Deviations from the book: GAE
instead of returns over the whole buffer (task.gae_lambda=1 comes near), and one Adam for policy and value instead of
two; the value's rate may differ (task.value_lr_multiplier).
Logged: return and length (means over the last 100 episodes), policy_loss, value_loss, entropy, approx_kl
((r - 1) - log r: Schulman 2020), clip_fraction, explained_variance (share of the returns' variance that the values
explain, before learning), update_epochs (number of passes made).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import EnvData
from dlrun.errors import UserError
from dlrun.models.policy import Policy
from dlrun.optim.update import Update
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.base import RolloutTask
from dlrun.tasks.rl.collector import Rollout
from dlrun.tasks.rl.returns import RewardScale, explained_variance, gae
from dlrun.types import Few, Fraction, NonNegative, Positive, Size


class KLPenalty:
    """The weight of the KL penalty. With a target it adapts to the measured KL (Schulman et al. 2017, section 4)."""

    def __init__(self, weight: float, target: float | None) -> None:
        self.weight, self.target = weight, target

    def adapt(self, kl: float) -> None:
        """Double the weight above 1.5 x target, halve it below target / 1.5."""
        if self.target is None:
            return
        if kl > 1.5 * self.target:
            self.weight *= 2
        elif kl < self.target / 1.5:
            self.weight /= 2

    def state_dict(self) -> dict:
        return {"weight": self.weight}

    def load_state_dict(self, state: dict) -> None:
        self.weight = state["weight"]


class PPO(RolloutTask):
    """Proximal policy optimisation: several passes of minibatches over each rollout, with a clipped ratio.

    The keys are described in configs/task/ppo.yaml.
    """

    net: Policy

    def __init__(
        self,
        net: Policy,
        spec: Env,
        device: Device,
        update: Callable[[nn.Module], Update],
        *,
        num_steps: Size,
        update_epochs: Few,
        minibatch: Size,
        gamma: Fraction,
        gae_lambda: Fraction,
        clip_coef: Positive | None,
        anneal_clip: bool,
        clip_vloss: Positive | None,
        vf_coef: NonNegative,
        value_lr_multiplier: Positive,
        ent_coef: NonNegative,
        normalise_advantage: bool,
        normalise_rewards: bool,
        target_kl: Positive | None,
        kl_coef: NonNegative,
        kl_target: Positive | None,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        super().__init__(net, spec, device, with_value_rate(update, value_lr_multiplier), eval_episodes, greedy)
        if kl_target and not kl_coef:
            raise UserError(f"task.kl_target={kl_target} with task.kl_coef=0: expected a weight > 0 to adapt")
        self.num_steps, self.update_epochs, self.minibatch = num_steps, update_epochs, minibatch
        self.gamma, self.gae_lambda = gamma, gae_lambda
        self.clip_coef, self.anneal_clip, self.clip_vloss = clip_coef, anneal_clip, clip_vloss
        self.vf_coef, self.ent_coef = vf_coef, ent_coef
        self.normalise_advantage, self.target_kl = normalise_advantage, target_kl
        self.penalty = KLPenalty(kl_coef, kl_target)
        self.reward_scale = RewardScale(gamma) if normalise_rewards else None
        self.components["penalty"] = self.penalty
        if self.reward_scale:
            self.components["reward_scale"] = self.reward_scale
            self.per_rank = (*self.per_rank, "reward_scale")

    def steps(self, data: EnvData) -> int:
        """Number of rollouts in an epoch. Raises UserError unless minibatches divide a rollout evenly."""
        frames = data.num_envs * self.num_steps
        if frames % self.minibatch:
            raise UserError(
                f"a rollout of data.num_envs={data.num_envs} x task.num_steps={self.num_steps} = {frames} frames "
                f"is not a whole number of minibatches of task.minibatch={self.minibatch}\n"
                f"  expected a divisor of {frames}"
            )
        return super().steps(data)

    def step(self, batch: Rollout, clock: Clock) -> Metrics:
        with torch.no_grad():
            old_out, values = self._forward(torch.cat((batch.obs, batch.bootstrap_obs)))
            old_out = old_out[: len(batch.obs)]
            values, bootstrap_values = values.split((len(batch.obs), len(batch.bootstrap_obs)))
            old = self.net.log_prob(old_out, batch.actions)
            old_log_std = None if self.net.log_std is None else self.net.log_std.detach().clone()
        v = values.cpu().numpy().reshape(batch.rewards.shape)
        ends = batch.terminated, batch.truncated
        rewards = batch.rewards if self.reward_scale is None else self.reward_scale(batch.rewards, ends[0] | ends[1])
        next_values = batch.next_values(v, bootstrap_values.cpu().numpy())
        gains = gae(rewards, v, next_values, *ends, self.gamma, self.gae_lambda)
        explained = explained_variance(v, v + gains)
        advantages = torch.from_numpy(gains.reshape(-1)).to(self.device.torch_device)
        columns = (batch.obs, batch.actions, old, advantages, values + advantages, values, old_out)
        clip = None if self.clip_coef is None else self.clip_coef * (1 - clock.fraction if self.anneal_clip else 1)
        rows_of_metrics: list[Metrics] = []
        for num_passes in range(1, self.update_epochs + 1):  # noqa: B007
            order = torch.randperm(len(batch.obs), device=self.device.torch_device)
            first = len(rows_of_metrics)
            for rows in order.split(self.minibatch):
                loss, metrics = self._loss(tuple(c[rows] for c in columns), old_log_std, clip)
                if not self.update.step(loss, clock):
                    return {}
                rows_of_metrics.append(metrics)
            last_kl = self.device.dist.mean(torch.stack([m["approx_kl"] for m in rows_of_metrics[first:]]).mean())
            if self.target_kl and last_kl.item() > self.target_kl:
                break
        means = {name: torch.stack([m[name] for m in rows_of_metrics]).mean() for name in rows_of_metrics[0]}
        if self.penalty.target:
            self.penalty.adapt(last_kl.item())
        self.observe(batch.obs)  # after learning, since the ratios need the statistics that the actor used
        return self.scalars(batch, explained_variance=explained, update_epochs=num_passes) | means

    def _forward(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        with self.device.autocast():
            out, values = self.net(obs)
        return out.float(), values.float()

    def _loss(
        self, columns: tuple[Tensor, ...], old_log_std: Tensor | None, clip: float | None
    ) -> tuple[Tensor, Metrics]:
        obs, actions, old, advantages, returns, old_values, old_out = columns
        out, values = self._forward(obs)
        log_ratio = self.net.log_prob(out, actions) - old
        if self.normalise_advantage and len(advantages) > 1:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = surrogate(log_ratio, advantages, clip)
        value_loss = (values - returns).square()
        if self.clip_vloss:
            clipped = old_values + (values - old_values).clamp(-self.clip_vloss, self.clip_vloss)
            value_loss = torch.maximum(value_loss, (clipped - returns).square())
        value_loss, entropy = 0.5 * value_loss.mean(), self.net.entropy(out).mean()
        loss = policy_loss + self.vf_coef * value_loss - self.ent_coef * entropy
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


def with_value_rate(update: Callable[..., Update], multiplier: float) -> Callable[[nn.Module], Update]:
    """Give the parameters of the value their own factor on the learning rate.

    Raises UserError if policy and value share parameters.
    """
    if multiplier == 1:
        return update

    def make(net: nn.Module) -> Update:
        if not isinstance(net, Policy) or net.critic_trunk is None:
            raise UserError(
                f"task.value_lr_multiplier={multiplier}: expected a network whose policy and value share no layer\n"
                "  set model.shared=false, or task.value_lr_multiplier=1"
            )
        value = [*net.critic_trunk.parameters(), *net.critic.parameters()]
        policy = [param for param in net.parameters() if all(param is not other for other in value)]
        return update(net, groups=[(1.0, policy), (multiplier, value)])

    return make


def surrogate(log_ratio: Tensor, advantages: Tensor, clip: float | None) -> Tensor:
    """The policy loss -min(r A, clip(r) A), averaged; its gradient at r = 1 is the policy gradient."""
    ratio = log_ratio.exp()
    gain = ratio * advantages
    return -(gain if clip is None else torch.minimum(gain, ratio.clamp(1 - clip, 1 + clip) * advantages)).mean()


def kl(old: Tensor, new: Tensor, old_log_std: Tensor | None, log_std: Tensor | None) -> Tensor:
    """KL(old || new) of categorical logits (B, actions), or of Gaussian means (B, axes) with log_std (axes,): (B,)."""
    if log_std is None or old_log_std is None:
        logs = old.log_softmax(1)
        return (logs.exp() * (logs - new.log_softmax(1))).sum(1)
    spread = (2 * (old_log_std - log_std)).exp() + ((old - new) * (-log_std).exp()).square()
    return (log_std - old_log_std + 0.5 * (spread - 1)).sum(1)
