"""Advantage actor-critic, all environments in step.

Source: Mnih et al. 2016 (A3C; here synchronous); the book, section 14.8: policy loss -log pi(a|s) A, A = r + gamma
V(s') - V(s), with lam=0; lam=1 is the paper's n-step return. Logged: as in tasks/ppo.py, without what is of the ratio.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dlrun.place import Place
from dlrun.spec import Env
from dlrun.tasks.base import Metrics, Task
from dlrun.tasks.returns import explained_variance, gae
from dlrun.tasks.rollout import Player, Rollout, check_player, play, score
from dlrun.types import Count, Fraction, NonNegative
from dlrun.update import Update


class A2C(Task):
    """length: steps of each environment per rollout, each the batch of one update."""

    goal = "return"
    takes = ("episodes",)

    def __init__(
        self,
        net: nn.Module,
        spec: Env,
        place: Place,
        update: Callable[[nn.Module], Update],
        *,
        length: Count,
        gamma: Fraction,
        lam: Fraction,
        value_weight: NonNegative,
        entropy_weight: NonNegative,
        normalise_advantage: bool,
        eval_episodes: Count,
    ) -> None:
        super().__init__(net, place)
        check_player(net, spec, "policy")
        self.spec, self.length, self.gamma, self.lam, self.eval_episodes = spec, length, gamma, lam, eval_episodes
        self.value_weight, self.entropy_weight = value_weight, entropy_weight
        self.normalise_advantage = normalise_advantage
        self.update, self.player = update(net), Player(spec, place.device)
        self.parts |= {"update": self.update, "player": self.player}
        self.scores = {"return": "max", "length": "max"}

    def steps(self, data: object) -> int:
        """Rollouts in an epoch."""
        return -(-data.epoch_frames // (data.num_envs * self.length))

    def batches(self, data: object, clock: object) -> Iterator[Rollout]:
        self.player.start(data, clock)
        for _ in range(clock.batch, self.steps(data)):
            yield self.player.collect(self.net, self.length, clock)

    def samples(self, batch: Rollout) -> int:
        return batch.rewards.size

    def step(self, batch: Rollout, clock: object) -> Metrics:
        with self.place.autocast():
            out, values = self.net(batch.obs)
            with torch.no_grad():
                ahead = self.net.values(batch.ahead)
        out, values = out.float(), values.float()
        v = values.detach().cpu().numpy().reshape(batch.rewards.shape)
        behind = batch.next_values(v, ahead.float().cpu().numpy())
        found = gae(batch.rewards, v, behind, batch.terminated, batch.truncated, self.gamma, self.lam)
        advantages = torch.from_numpy(found.reshape(-1)).to(self.place.device)
        returns = values.detach() + advantages
        if self.normalise_advantage:
            advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        policy_loss = -(self.net.log_prob(out, batch.actions) * advantages).mean()
        value_loss, entropy = 0.5 * (values - returns).square().mean(), self.net.entropy(out).mean()
        loss = policy_loss + self.value_weight * value_loss - self.entropy_weight * entropy
        if not self.update.step(loss, clock):
            return {}
        if hasattr(self.net.norm, "update"):
            self.net.norm.update(batch.obs)
        explained = explained_variance(v, v + found)
        facts = {"return": batch.mean_return, "length": batch.mean_length, "explained_variance": explained}
        metrics = {
            name: torch.tensor(value, dtype=torch.float32, device=self.place.device) for name, value in facts.items()
        }
        losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": entropy}
        return metrics | {name: value.detach() for name, value in losses.items()}

    def evaluate(self, data: object, split: str) -> dict[str, float]:
        return score(self.predict, data, self.spec, self.place.device, split, self.eval_episodes)

    def predict(self, batch: Tensor) -> Tensor:
        """The likeliest actions for observations (B, features)."""
        return self.evaluated().act(batch, None)

    def play(self, data: object, episodes: int, seed: int) -> list[tuple[float, int]]:
        return play(self.predict, data, self.spec, self.place.device, episodes, seed)
