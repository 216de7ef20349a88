"""Collecting experience: a Collector plays environments and returns rollouts or whole episodes.

Letters in shapes: T steps, N environments, K steps that a time limit ended.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import EnvData, VectorEnv
from dlrun.seeds import generator, mix
from dlrun.spec import Env
from dlrun.system.device import Device

RECENT = 100  # number of episodes whose mean return is logged


class Actor(Protocol):
    """Chooses actions: a policy, or action values with random exploration."""

    def noise(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Draw the random numbers for actions of this shape."""

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Return actions for observations (B, features): drawn with the noise, or the best ones."""


class EpsilonGreedy:
    """An actor over action values (B, features) -> (B, actions): random with probability epsilon, else the best.

    starts: make the very first action random in all environments (exploring starts: Sutton and Barto 2018, 5.3).
    """

    def __init__(self, values: Callable[[Tensor], Tensor], actions: int, epsilon: float, starts: bool = False) -> None:
        self.values, self.actions, self.epsilon, self.starts = values, actions, epsilon, starts

    def noise(self, *shape: int, generator: torch.Generator) -> Tensor:
        """Draw (*shape, 2) in [0, 1): one number for whether to explore, one for the action."""
        return torch.rand((*shape, 2), generator=generator, device=generator.device)

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Return actions (B,); the best ones without noise."""
        best = self.values(obs).argmax(1)
        if noise is None:
            return best
        explores = noise[:, 0] < (1.0 if self.starts else self.epsilon)
        self.starts = False
        return torch.where(explores, (noise[:, 1] * self.actions).long(), best)


class Rollout(NamedTuple):
    """T steps of N environments.

    obs (T * N, features) and actions are on the device, the (T, N) arrays on the host. bootstrap_obs (N + K, features):
    the observations after the last steps (N), then those after each time limit (K), in the order of `truncated`.
    """

    obs: Tensor
    actions: Tensor
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    bootstrap_obs: Tensor
    mean_return: float
    mean_length: float

    def next_values(self, values: np.ndarray, bootstrap_values: np.ndarray) -> np.ndarray:
        """Values (T, N) of the observation after each step, before any reset.

        values (T, N) and bootstrap_values (N + K): the values of this rollout's obs and bootstrap_obs.
        """
        next_values = np.concatenate((values[1:], bootstrap_values[None, : values.shape[1]]))
        next_values[self.truncated] = bootstrap_values[values.shape[1] :]
        return next_values


class Episodes(NamedTuple):
    """One episode of each of N environments, of at most T steps.

    valid (T, N): which steps belong to an episode; shorter episodes are padded. obs (B, features) and actions are on
    the device, for the valid steps only, in the order of `valid`. The other arrays are (T, N), on the host.
    """

    obs: Tensor
    actions: Tensor
    rewards: np.ndarray
    terminated: np.ndarray
    done: np.ndarray
    valid: np.ndarray
    mean_return: float
    mean_length: float


class RewardScale:
    """Divides rewards by the standard deviation of the running discounted return (Engstrom et al. 2020, section 2).

    A component of the task.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.returns: np.ndarray | None = None
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def __call__(self, rewards: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Update the statistics with rewards (T, N) and return the scaled rewards."""
        running = np.zeros(rewards.shape[1]) if self.returns is None else self.returns
        for t in range(len(rewards)):
            running = running * self.gamma + rewards[t]
            delta = running.mean() - self.mean
            total = self.count + len(running)
            self.squares += running.var() * len(running) + delta**2 * self.count * len(running) / total
            self.mean, self.count = self.mean + delta * len(running) / total, total
            running = running * ~done[t]
        self.returns = running
        return (rewards / np.sqrt(self.squares / self.count + 1e-8)).clip(-10, 10).astype(np.float32)

    def state_dict(self) -> dict:
        returns = None if self.returns is None else torch.from_numpy(self.returns)
        return {"count": self.count, "mean": float(self.mean), "squares": float(self.squares), "returns": returns}

    def load_state_dict(self, state: dict) -> None:
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
        self.returns = None if state["returns"] is None else state["returns"].numpy().copy()


class Collector:
    """Plays N environments, which are reset at the start of each epoch.

    A component of the task, so that a run resumes in mid-episode. Each process has its own environments.
    """

    def __init__(self, spec: Env, device: Device) -> None:
        self.spec, self.device = spec, device
        self.envs: VectorEnv | None = None
        self.saved: dict | None = None  # the state after a resume, until the next start
        self.recent: list[tuple[float, int]] = []  # return and length of the last episodes

    def start(self, data: EnvData, clock: Clock) -> None:
        """Reset the environments at the start of an epoch; after a resume, restore their saved state."""
        envs = self.envs = self.envs or data.make(data.num_envs)
        if clock.batch == 0:
            self.obs = envs.reset(mix(self.device.dist.seed(clock.seed), clock.epoch, 0, 2))
            self.returns, self.lengths = np.zeros(data.num_envs), np.zeros(data.num_envs, np.int64)
        elif self.saved:
            envs.load_state_dict(self.saved["envs"])
            self.obs, self.returns, self.lengths = (self.saved[k].numpy().copy() for k in ("obs", "returns", "lengths"))
        self.saved = None

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Step all environments. Returns rewards, terminated, truncated and the observations before any reset."""
        if self.envs is None:
            raise RuntimeError("the environments are made by start()")
        self.obs, rewards, terminated, truncated, final = self.envs.step(scale_actions(self.spec, actions))
        self.returns += rewards
        self.lengths += 1
        done = terminated | truncated
        if done.any():
            ended = zip(self.returns[done].tolist(), self.lengths[done].tolist(), strict=True)
            self.recent = [*self.recent, *ended][-RECENT:]
            self.returns[done], self.lengths[done] = 0, 0
        return rewards, terminated, truncated, final

    def means(self) -> tuple[float, float]:
        """Mean return and length of the last episodes; of the unfinished ones until the first has ended."""
        if self.recent:
            return tuple(np.mean(self.recent, 0).tolist())
        return float(self.returns.mean()), float(self.lengths.mean())

    @torch.no_grad()
    def collect(self, net: Actor, length: int, clock: Clock) -> Rollout:
        """Play `length` steps of every environment, with actions drawn from the policy by (seed, step)."""
        num, seed = len(self.obs), self.device.dist.seed(clock.seed)
        random = generator(self.device.torch_device, seed, clock.step, 0, 1)
        noise = net.noise(length, num, generator=random)
        obs = np.empty((length, num, self.spec.features), np.float32)
        rewards, taken = np.empty((length, num), np.float32), []
        ends: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
        limit_obs = []  # observations after time limits
        for t in range(length):
            obs[t] = self.obs
            actions = net.act(torch.from_numpy(obs[t]).to(self.device.torch_device), noise[t])
            taken.append(actions)
            rewards[t], terminated, truncated, final = self.step(actions.cpu().numpy())
            ends[0].append(terminated)
            ends[1].append(truncated)
            if truncated.any():
                limit_obs.append(final[truncated])
        flat = torch.from_numpy(obs.reshape(length * num, -1)).to(self.device.torch_device)
        after = torch.from_numpy(np.concatenate((self.obs, *limit_obs))).to(self.device.torch_device)
        return Rollout(flat, torch.cat(taken), rewards, np.stack(ends[0]), np.stack(ends[1]), after, *self.means())

    @torch.no_grad()
    def episodes(self, net: Actor, data: EnvData, clock: Clock) -> Episodes:
        """Play one episode of every environment, from starts drawn by (seed, step).

        Environments whose episode has ended are stepped until all have, and these steps are marked as not valid.
        """
        envs = self.envs = self.envs or data.make(data.num_envs)
        seed = self.device.dist.seed(clock.seed)
        self.obs = envs.reset(mix(seed, clock.step, 0, 2))
        num, random = len(self.obs), generator(self.device.torch_device, seed, clock.step, 0, 1)
        self.returns, self.lengths, alive = np.zeros(num), np.zeros(num, np.int64), np.ones(num, bool)
        inputs, steps = [], []
        while alive.any():
            obs = torch.from_numpy(self.obs).to(self.device.torch_device)
            actions = net.act(obs, net.noise(num, generator=random))
            self.obs, rewards, terminated, truncated, _ = envs.step(scale_actions(self.spec, actions.cpu().numpy()))
            inputs.append((obs, actions))
            done = (terminated | truncated) & alive
            steps.append((rewards * alive, terminated & alive, done, alive))
            self.returns += rewards * alive
            self.lengths += alive
            alive = alive & ~done
        self.recent = [*self.recent, *zip(self.returns.tolist(), self.lengths.tolist(), strict=True)][-RECENT:]
        rewards, terminated, done, valid = map(np.stack, zip(*steps, strict=True))
        obs, actions = (torch.cat(each) for each in zip(*inputs, strict=True))
        is_valid = torch.from_numpy(valid.reshape(-1)).to(self.device.torch_device)
        return Episodes(obs[is_valid], actions[is_valid], rewards, terminated, done, valid, *self.means())

    def state_dict(self) -> dict:
        state = {"recent": [list(each) for each in self.recent]}
        if self.envs is None:
            return state | (self.saved or {})
        arrays = {k: torch.from_numpy(getattr(self, k)) for k in ("obs", "returns", "lengths")}
        return state | {"envs": self.envs.state_dict()} | arrays

    def load_state_dict(self, state: dict) -> None:
        self.recent = [tuple(each) for each in state["recent"]]
        self.saved = state if "envs" in state else None
        self.envs = None


def scale_actions(spec: Env, actions: np.ndarray) -> np.ndarray:
    """Map real actions from [-1, 1] to the environment's range; discrete ones are returned unchanged."""
    if spec.actions:
        return actions
    low, high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
    return (low + (high - low) * (actions.clip(-1, 1) + 1) / 2).astype(np.float32)
