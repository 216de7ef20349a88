"""The base class of tasks that play an environment: epochs of frames, evaluation by episodes, a video of an episode."""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import EnvData
from dlrun.errors import UserError
from dlrun.models.options import options_of
from dlrun.optim.update import Update
from dlrun.output.report import Report
from dlrun.seeds import generator, mix
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import BatchT, Metrics, Task
from dlrun.tasks.rl.actors import Actor
from dlrun.tasks.rl.collector import Collector, Rollout, play_once, scale_actions
from dlrun.tasks.rl.figures import episodes_figure, observations_figure

SHOWN, LOOKED_AT = 5, 60  # observations in a figure, of so many at the beginning of an episode
SPLITS = {"val": 1, "test": 2}  # seeds of the starting states, the only difference between the splits


class Played(Protocol):
    """A batch of any kind that was played: a Rollout, Episodes or a Round."""

    @property
    def mean_return(self) -> float: ...

    @property
    def mean_length(self) -> float: ...


class RLTask(Task[EnvData, BatchT]):
    """Base class of reinforcement learning tasks.

    eval_episodes: number of episodes per evaluation, in separate environments and always from the same starts.
    greedy: evaluate the best actions (true) or sampled ones (false). Logged: return and length, means over the last
    episodes. With several processes, each one plays its own data.num_envs environments, and they learn together.
    """

    goal = "return"
    accepts = ("episodes",)
    per_rank: tuple[str, ...] = ("collector",)
    compiled = ()  # batches differ in length, and torch.compile would compile each length anew

    def __init__(
        self,
        net: nn.Module,
        spec: Env,
        device: Device,
        update: Callable[[nn.Module], Update],
        eval_episodes: int,
        greedy: bool,
    ) -> None:
        super().__init__(net, device)
        if not isinstance(spec, Env):
            raise UserError(
                f"this task plays an environment, and the data is {spec}\n  expected data=cartpole, gym or maze"
            )
        self.spec, self.eval_episodes, self.greedy = spec, eval_episodes, greedy
        self.update, self.collector = update(net), Collector(spec, device)
        self.components |= {"update": self.update, "collector": self.collector}
        self.scores = {"return": "max", "length": "max", "return_std": "min"}

    def epoch_samples(self, data: EnvData) -> int:
        return data.epoch_frames

    def has_frames_left(self, data: EnvData, clock: Clock) -> bool:
        """Whether the epoch has frames left. Frames by which a batch overruns an epoch are taken off the next one."""
        return not clock.is_epoch_done

    def batches(self, data: EnvData, clock: Clock) -> Iterator[BatchT]:
        while self.has_frames_left(data, clock):
            batch = self.collect(data, clock)
            self.device.dist.count(self.samples(batch))
            yield batch

    def collect(self, data: EnvData, clock: Clock) -> BatchT:
        """Play the environments and return the batch of the next step."""
        raise NotImplementedError(f"{type(self).__name__} must define collect()")

    def rollouts_per_epoch(self, data: EnvData, length: int) -> int:
        """Number of rollouts in an epoch, each of `length` steps of all environments."""
        return -(-data.epoch_frames // (data.num_envs * length * self.device.dist.size))

    def observe(self, obs: Tensor) -> None:
        """Add observations to a normalising net's running statistics. All processes use those of rank 0."""
        if observe := options_of(self.net).observe:
            observe(obs)
        self.device.dist.broadcast_tensors(self.net.buffers())
        self.update.save_buffers()

    def actor(self) -> Actor:
        """The actor that plays in evaluations: a policy, unless the task overrides this."""
        return cast(Actor, self.evaluated())

    def predict(self, batch: Tensor) -> Tensor:
        """Return the best actions for observations (B, features)."""
        return self.actor().act(batch, None)

    def evaluate(self, data: EnvData, split: str) -> dict[str, float]:
        """Return the mean return and length of the episodes, and the standard deviation of the returns."""
        return self.scored(*np.array(self.play(data, self.eval_episodes, self.starts(split))).T)

    def starts(self, split: str) -> int:
        """The seed of a split's starting states."""
        return mix(SPLITS[split], self.eval_episodes, 3)

    def scored(self, returns: np.ndarray, lengths: np.ndarray) -> dict[str, float]:
        """The metrics of episodes."""
        return {"return": returns.mean().item(), "length": lengths.mean().item(), "return_std": returns.std().item()}

    @torch.inference_mode()
    def play(self, data: EnvData, episodes: int, seed: int) -> list[tuple[float, int]]:
        """Play episodes side by side from starts drawn by the seed; give the return and the length of each."""
        envs = data.make(episodes)
        random = None if self.greedy else generator(self.device.torch_device, seed, 0)
        returns, lengths = np.zeros(episodes), np.zeros(episodes, np.int64)
        for turn in play_once(envs, envs.reset(seed), self.actor(), random, self.spec, self.device):
            returns += turn.rewards
            lengths += turn.valid
        envs.close()
        return list(zip(returns.tolist(), lengths.tolist(), strict=True))

    def report(self, data: EnvData) -> Report:
        """The returns of the training episodes, images as the network sees them, and a video, if the data asks for one.

        The video is recorded when it is drawn.
        """

        @torch.inference_mode()
        def act(obs: np.ndarray) -> np.ndarray:
            actions = self.predict(torch.from_numpy(obs).to(self.device.torch_device))
            return scale_actions(self.spec, actions.cpu().numpy())

        seed, figures = mix(SPLITS["test"], 1, 3), dict[str, Callable]()
        if len(self.collector.history) > 1:
            figures["episodes"] = partial(episodes_figure, np.array(self.collector.history)[:, 0])
        if self.spec.has_pixels:
            figures["observations"] = partial(observations_figure, self.seen(data, seed))
        return Report(figures, videos={"video": partial(data.record_video, act, seed)})

    @torch.inference_mode()
    def seen(self, data: EnvData, seed: int) -> np.ndarray:
        """Observations (steps, ...) from the beginning of an episode, evenly spaced."""
        envs = data.make(1)
        turns = play_once(envs, envs.reset(seed), self.actor(), None, self.spec, self.device)
        seen = [turn.obs[0].cpu().numpy() for turn in islice(turns, LOOKED_AT)]
        envs.close()
        return np.stack(seen)[np.linspace(0, len(seen) - 1, min(SHOWN, len(seen))).astype(int)]

    def scalars(self, batch: Played, **values: float | list[float]) -> Metrics:
        """Numbers on the host as metrics, with the batch's mean return and length."""
        values = {"return": batch.mean_return, "length": batch.mean_length, **values}
        device = self.device.torch_device
        tensors = {name: torch.tensor(value, dtype=torch.float32, device=device) for name, value in values.items()}
        return {name: value.expand(self.jobs.shape) for name, value in tensors.items()}


class RolloutTask(RLTask[Rollout]):
    """Base class of tasks that learn from rollouts of `num_steps` steps of all environments."""

    num_steps: int

    def steps(self, data: EnvData) -> int:
        """Number of rollouts in an epoch."""
        return self.rollouts_per_epoch(data, self.num_steps)

    def collect(self, data: EnvData, clock: Clock) -> Rollout:
        self.collector.start(data, clock)
        return self.collector.collect(cast(Actor, self.net), self.num_steps, clock)

    def samples(self, batch: Rollout) -> int:
        return batch.rewards.size // self.jobs.num
