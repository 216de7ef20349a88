"""What tasks that play an environment share: epochs of frames, how they are judged, the film of the best."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.errors import UserError
from dlrun.optim.update import Update
from dlrun.seeds import generator, mix
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics, Task
from dlrun.tasks.rl.collector import Actor, Collector, scale_actions

SPLITS = {"val": 1, "test": 2}  # they differ in their starts


class RLTask(Task):
    """eval_episodes: in environments of their own, always from the same starts. greedy: judged by its best actions, or
    by drawn ones. Logged: return, length: means of the last episodes.

    Of several processes each plays data.num_envs environments of its own; they learn together.
    """

    goal = "return"
    takes = ("episodes",)
    own = ("collector",)
    compiled = ()  # what is played has any length, and code is made for each

    def __init__(
        self,
        net: nn.Module,
        spec: Env,
        place: Device,
        update: Callable[[nn.Module], Update],
        eval_episodes: int,
        greedy: bool,
    ) -> None:
        super().__init__(net, place)
        if not isinstance(spec, Env):
            raise UserError(
                f"this task plays an environment, the data gives {spec}\n  expected data=cartpole, gym or maze"
            )
        self.spec, self.eval_episodes, self.greedy = spec, eval_episodes, greedy
        self.update, self.collector = update(net), Collector(spec, place)
        self.parts |= {"update": self.update, "collector": self.collector}
        self.scores = {"return": "max", "length": "max", "return_std": "min"}

    def epoch_samples(self, data: object) -> int:
        return data.epoch_frames

    def goes_on(self, data: object, clock: object) -> bool:
        """Whether the epoch has frames left; what the last batch took too many, the next epoch has less."""
        return clock.batch == 0 or clock.samples < (clock.epoch + 1) * data.epoch_frames

    def batches(self, data: object, clock: object) -> Iterator:
        while self.goes_on(data, clock):
            batch = self.collect(data, clock)
            self.place.world.count(self.samples(batch))
            yield batch

    def collect(self, data: object, clock: object) -> object:
        """What is played for the next step."""
        raise NotImplementedError(f"{type(self).__name__} must say how it plays")

    def rollouts_per_epoch(self, data: object, length: int) -> int:
        """Of `length` steps of all environments, in an epoch."""
        return -(-data.epoch_frames // (data.num_envs * length * self.place.world.size))

    def observe(self, obs: Tensor) -> None:
        """For the statistics of a net that normalises; all processes take those of the first."""
        self.net.observe(obs)
        self.place.world.broadcast_tensors(self.net.buffers())
        self.update.save_buffers()

    def actor(self) -> Actor:
        """Who plays when it is judged."""
        return self.evaluated()

    def predict(self, batch: Tensor) -> Tensor:
        """The best actions for observations (B, features)."""
        return self.actor().act(batch, None)

    def evaluate(self, data: object, split: str) -> dict[str, float]:
        """Mean return and length, and the deviation of the returns."""
        found = self.play(data, self.eval_episodes, mix(SPLITS[split], self.eval_episodes, 3))
        returns, lengths = np.array(found).T
        return {"return": returns.mean().item(), "length": lengths.mean().item(), "return_std": returns.std().item()}

    @torch.inference_mode()
    def play(self, data: object, episodes: int, seed: int) -> list[tuple[float, int]]:
        """Return and length of so many episodes: one from each of as many starts, drawn by the seed."""
        worlds, actor, device = data.make(episodes), self.actor(), self.place.device
        random = None if self.greedy else generator(device, seed, 0)
        obs, alive = worlds.reset(seed), np.ones(episodes, bool)
        returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
        while alive.any():
            noise = None if random is None else actor.noise(episodes, generator=random)
            actions = actor.act(torch.from_numpy(obs).to(device), noise).cpu().numpy()
            obs, rewards, terminated, truncated, _ = worlds.step(scale_actions(self.spec, actions))
            returns += rewards * alive
            lengths += alive
            alive &= ~(terminated | truncated)
        worlds.close()
        return list(zip(returns.tolist(), lengths.tolist(), strict=True))

    def report(self, data: object) -> dict[str, object]:
        """A film of an episode, if the data wants one."""

        @torch.inference_mode()
        def act(obs: np.ndarray) -> np.ndarray:
            return scale_actions(self.spec, self.predict(torch.from_numpy(obs).to(self.place.device)).cpu().numpy())

        film = data.film(act, mix(SPLITS["test"], 1, 3))
        return {"films": {"film": film}} if film else {}

    def scalars(self, batch: object, **facts: float) -> Metrics:
        """Numbers of the host as metrics, with the return and length that a batch knows."""
        facts = {"return": batch.mean_return, "length": batch.mean_length, **facts}
        return {
            name: torch.tensor(value, dtype=torch.float32, device=self.place.device) for name, value in facts.items()
        }
