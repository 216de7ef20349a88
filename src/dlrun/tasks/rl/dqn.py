"""Deep Q-learning, plain and double. A dueling network is a choice of the model.

Source: Mnih et al. 2015 (replay, target net, Huber loss); van Hasselt et al. 2016 (double); the book, sections 14.4.6
and 14.4.7. Deviations from the book: epsilon and the copies to the target net depend on frames and steps, not on the
number of episodes; the environments are played in rounds of `num_steps` steps, with `gradient_steps` updates after
each round. Logged: return, length, loss, q (mean), epsilon.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlrun.clock import Clock
from dlrun.data.base import EnvData
from dlrun.errors import UserError
from dlrun.models.policy import QNetwork
from dlrun.optim.buffers import copy_all
from dlrun.optim.update import Update
from dlrun.seeds import mix
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.base import Metrics
from dlrun.tasks.rl.actors import EpsilonGreedy, checked_epsilons, epsilon_at
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.replay import Replay
from dlrun.types import Count, Factor, Few, Fraction, Index, Size


class Round(NamedTuple):
    """The frames played since the last updates, which are in the replay buffer too. obs: (frames, features)."""

    obs: Tensor
    epsilon: float
    mean_return: float
    mean_length: float


class DQN(RLTask[Round]):
    """Q-learning with a network, a replay buffer and a target network.

    The keys are described in configs/task/dqn.yaml.
    """

    per_rank = ("collector", "replay")
    net: QNetwork

    def __init__(
        self,
        net: QNetwork,
        spec: Env,
        device: Device,
        update: Callable[[nn.Module], Update],
        *,
        num_steps: Size,
        gradient_steps: Few,
        batch_size: Size,
        buffer_size: Count,
        learning_starts: Index,
        gamma: Fraction,
        reward_scale: Factor,
        epsilon_start: Fraction,
        epsilon_end: Fraction,
        exploration_fraction: Fraction,
        target_update_interval: Count,
        double: bool,
        eval_episodes: Size,
        greedy: bool,
    ) -> None:
        if isinstance(spec, Env) and not spec.actions:
            raise UserError(
                f"DQN needs discrete actions, and the data is {spec}\n  for real-valued actions: model=ppo, model=a2c"
            )
        super().__init__(net, spec, device, update, eval_episodes, greedy)
        self.num_steps, self.gradient_steps = num_steps, gradient_steps
        self.batch_size, self.learning_starts = batch_size, learning_starts
        self.gamma, self.double, self.target_update_interval = gamma, double, target_update_interval
        self.reward_scale = reward_scale
        self.epsilons = checked_epsilons(epsilon_start, epsilon_end, exploration_fraction)
        self.target, self.replay = deepcopy(net).requires_grad_(False), Replay(spec, buffer_size, device.torch_device)
        self.components |= {"target": self.target, "replay": self.replay}

    def actor(self) -> EpsilonGreedy:
        return EpsilonGreedy(self.evaluated(), self.spec.outputs, self.epsilons[1])

    @torch.no_grad()
    def observe(self, obs: Tensor) -> None:
        """Update the running statistics, and copy them to the target net so that both scale observations alike."""
        super().observe(obs)
        copy_all(self.target.buffers(), self.net.buffers())

    def steps(self, data: EnvData) -> int:
        """Number of rounds in an epoch. Raises UserError if a round does not fit into the replay buffer."""
        if data.num_envs * self.num_steps > self.replay.capacity:
            raise UserError(
                f"a round of {data.num_envs} x {self.num_steps} frames does not fit into "
                f"task.buffer_size={self.replay.capacity}\n  expected room for at least one round"
            )
        return self.rollouts_per_epoch(data, self.num_steps)

    @torch.no_grad()
    def collect(self, data: EnvData, clock: Clock) -> Round:
        """Play a round into the replay buffer, epsilon-greedy with random numbers by (seed, step)."""
        if clock.step == 0 and self.learning_starts > clock.epochs * data.epoch_frames:
            raise UserError(
                f"task.learning_starts={self.learning_starts} frames before the first update, and the run has only "
                f"{clock.epochs * data.epoch_frames}\n  expected fewer, or a longer run (trainer.epochs)"
            )
        rounds = clock.epochs * self.steps(data)
        if clock.step == 0 and self.target_update_interval > rounds:
            raise UserError(
                f"task.target_update_interval={self.target_update_interval} rounds, and the run has only {rounds}: the "
                "target net would never be renewed\n  expected fewer, or a longer run (trainer.epochs)"
            )
        self.collector.start(data, clock)
        epsilon = epsilon_at(clock, *self.epsilons)
        randoms = [np.random.default_rng(mix(seed, clock.step, 0, 1)) for seed in self.collector.seeds(clock)]
        shape = self.num_steps, len(self.collector.obs) // len(randoms)
        explores = np.concatenate([random.random(shape) for random in randoms], 1) < epsilon
        random_actions = np.concatenate([random.integers(self.spec.outputs, size=shape) for random in randoms], 1)
        taken = []
        for t in range(self.num_steps):
            obs, actions = self.collector.obs, random_actions[t]
            if not explores[t].all():
                best = self.net(torch.from_numpy(obs).to(self.device.torch_device)).argmax(1).cpu().numpy()
                actions = np.where(explores[t], actions, best)
            rewards, terminated, _, next_obs = self.collector.step(actions)
            taken.append((obs, actions, rewards, next_obs, terminated))
        columns = zip(*taken, strict=True)
        obs, actions, rewards, next_obs, terminated = (self.jobs.flat(np.stack(column)) for column in columns)
        rewards = rewards * np.float32(self.reward_scale)
        self.replay.add(obs=obs, actions=actions, rewards=rewards, next_obs=next_obs, terminated=terminated)
        return Round(torch.from_numpy(obs).to(self.device.torch_device), epsilon, *self.collector.means())

    def samples(self, batch: Round) -> int:
        return len(batch.obs) // self.jobs.num

    def step(self, batch: Round, clock: Clock) -> Metrics:
        self.observe(batch.obs)
        if clock.samples + (self.device.dist.samples or self.samples(batch)) < self.learning_starts:
            return {}
        if clock.step % self.target_update_interval == 0:
            copy_all(self.target.parameters(), self.net.parameters())
        losses, values = [], []
        for _ in range(self.gradient_steps):
            steps = self.replay.sample(self.batch_size)
            goal = targets(self.net if self.double else self.target, self.target, steps, self.gamma)
            with self.device.autocast():
                q = self.net(steps["obs"])
            q = q.float().gather(1, steps["actions"][:, None]).squeeze(1)
            loss = self.jobs.loss(F.smooth_l1_loss, q, goal)
            if not self.update.step(loss, clock):
                return {}
            losses.append(loss.detach())
            values.append(self.jobs.mean(q.detach()))
        metrics = self.scalars(batch, epsilon=batch.epsilon)
        return metrics | {"loss": torch.stack(losses).mean(0), "q": torch.stack(values).mean(0)}


@torch.no_grad()
def targets(chooser: nn.Module, target: nn.Module, steps: dict[str, Tensor], gamma: float) -> Tensor:
    """The targets r + gamma Q_target(s', argmax_a Q_chooser(s', a)), or r at the end of an episode: (B,).

    chooser: the target net itself (DQN), or the net that learns (double DQN: van Hasselt et al. 2016, equation 4).
    """
    next_q = target(steps["next_obs"])
    chosen = next_q if chooser is target else chooser(steps["next_obs"])
    best = next_q.gather(1, chosen.argmax(1, keepdim=True)).squeeze(1).float()
    return steps["rewards"] + gamma * best * ~steps["terminated"]
