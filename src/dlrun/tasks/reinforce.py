"""REINFORCE: whole episodes, each step's log-probability weighed by the rewards that came after it.

Source: Williams 1992; the book, sections 14.1 and 14.3 (causality, baseline: algorithm 2). Deviations: one update from
the mean over the steps of one episode of every environment, where the book takes an optimizer step for each time step;
the baseline may be a learned value as well as the book's mean.
"""

from collections.abc import Callable, Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from dlrun.place import Place
from dlrun.spec import Env
from dlrun.tasks.base import Metrics, Task
from dlrun.tasks.returns import rewards_to_go
from dlrun.tasks.rollout import Episodes, Player, check_player, play, score
from dlrun.types import Count, Fraction, NonNegative
from dlrun.update import Update


class Reinforce(Task):
    """baseline: none, mean (of the batch's rewards to go) or value (learned). A return is one up to a time limit."""

    goal = "return"
    takes = ("episodes",)

    def __init__(
        self,
        net: nn.Module,
        spec: Env,
        place: Place,
        update: Callable[[nn.Module], Update],
        *,
        gamma: Fraction,
        baseline: Literal["none", "mean", "value"],
        value_weight: NonNegative,
        entropy_weight: NonNegative,
        scale_returns: bool,
        eval_episodes: Count,
    ) -> None:
        super().__init__(net, place)
        check_player(net, spec, "policy")
        self.spec, self.gamma, self.baseline, self.eval_episodes = spec, gamma, baseline, eval_episodes
        self.value_weight, self.entropy_weight, self.scale_returns = value_weight, entropy_weight, scale_returns
        self.update, self.player = update(net), Player(spec, place.device)
        self.parts |= {"update": self.update, "player": self.player}
        self.scores = {"return": "max", "length": "max"}

    def steps(self, data: object) -> int:
        """At most: how long episodes are is not known."""
        return -(-data.epoch_frames // data.num_envs)

    def epoch_samples(self, data: object) -> int:
        return data.epoch_frames

    def batches(self, data: object, clock: object) -> Iterator[Episodes]:
        """Until the frames of all epochs so far are spent; the last episodes may go beyond."""
        while clock.samples < (clock.epoch + 1) * data.epoch_frames:
            yield self.player.episodes(self.net, data, clock)

    def samples(self, batch: Episodes) -> int:
        return len(batch.obs)

    def step(self, batch: Episodes, clock: object) -> Metrics:
        returns = rewards_to_go(batch.rewards, batch.done, self.gamma)[batch.lived]  # in the order of obs
        returns = torch.from_numpy(returns).to(self.place.device)
        with self.place.autocast():
            out, values = self.net(batch.obs)
        out, values = out.float(), values.float()
        gains = {"none": returns, "mean": returns - returns.mean(), "value": returns - values.detach()}[self.baseline]
        if self.scale_returns:
            gains = gains / (gains.std() + 1e-8) if len(gains) > 1 else gains
        policy_loss = -(self.net.log_prob(out, batch.actions) * gains).mean()
        entropy = self.net.entropy(out).mean()
        loss = policy_loss - self.entropy_weight * entropy
        losses = {"policy_loss": policy_loss, "entropy": entropy}
        if self.baseline == "value":
            losses["value_loss"] = 0.5 * (values - returns).square().mean()
            loss = loss + self.value_weight * losses["value_loss"]
        if not self.update.step(loss, clock):
            return {}
        if hasattr(self.net.norm, "update"):
            self.net.norm.update(batch.obs)
        facts = {"return": batch.mean_return, "length": batch.mean_length}
        metrics = {
            name: torch.tensor(value, dtype=torch.float32, device=self.place.device) for name, value in facts.items()
        }
        return metrics | {name: value.detach() for name, value in losses.items()}

    def evaluate(self, data: object, split: str) -> dict[str, float]:
        return score(self.predict, data, self.spec, self.place.device, split, self.eval_episodes)

    def predict(self, batch: Tensor) -> Tensor:
        """The likeliest actions for observations (B, features)."""
        return self.evaluated().act(batch, None)

    def play(self, data: object, episodes: int, seed: int) -> list[tuple[float, int]]:
        return play(self.predict, data, self.spec, self.place.device, episodes, seed)
