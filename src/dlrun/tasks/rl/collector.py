"""The environments of a training under way, and what they have been through."""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import Data
from dlrun.seeds import generator, mix
from dlrun.spec import Env
from dlrun.system.device import Device

RECENT = 100  # episodes whose mean return is logged


class Actor(Protocol):
    """What chooses actions: a policy, or values with a share of chance."""

    def noise(self, *shape: int, generator: torch.Generator) -> Tensor: ...

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor: ...


class EpsilonGreedy:
    """An actor of values, (B, features) -> (B, actions): a random action with probability epsilon, else the best.

    starts: the first action after this was made is random everywhere (exploring starts: Sutton and Barto 2018, 5.3).
    """

    def __init__(self, values: Callable[[Tensor], Tensor], actions: int, epsilon: float, starts: bool = False) -> None:
        self.values, self.actions, self.epsilon, self.starts = values, actions, epsilon, starts

    def noise(self, *shape: int, generator: torch.Generator) -> Tensor:
        """(*shape, 2) in [0, 1): whether to explore, and where to."""
        return torch.rand((*shape, 2), generator=generator, device=generator.device)

    def act(self, obs: Tensor, noise: Tensor | None) -> Tensor:
        """Actions (B,); the best ones without noise."""
        best = self.values(obs).argmax(1)
        if noise is None:
            return best
        explores = noise[:, 0] < (1.0 if self.starts else self.epsilon)
        self.starts = False
        return torch.where(explores, (noise[:, 1] * self.actions).long(), best)


class Rollout(NamedTuple):
    """T steps of N environments. obs (T * N, features) and actions on the device, the others (T, N) on the host.

    bootstrap_obs: observations behind the last steps (N) and behind each time limit, in the order of `truncated` (K).
    """

    obs: Tensor
    actions: Tensor
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    bootstrap_obs: Tensor
    mean_return: float
    mean_length: float

    def next_values(self, values: np.ndarray, ahead: np.ndarray) -> np.ndarray:
        """Of the observation after each step, before any reset. values (T, N), ahead (N + K): of this rollout's."""
        behind = np.concatenate((values[1:], ahead[None, : values.shape[1]]))
        behind[self.truncated] = ahead[values.shape[1] :]
        return behind


class Episodes(NamedTuple):
    """One episode of each of N environments, of T steps at most. lived (T, N): what belongs to it.

    obs (B, features), actions: on the device, of the steps lived, in the order of `lived`. The others: (T, N).
    """

    obs: Tensor
    actions: Tensor
    rewards: np.ndarray
    terminated: np.ndarray
    done: np.ndarray
    lived: np.ndarray
    mean_return: float
    mean_length: float


class RewardScale:
    """Rewards over the deviation of the running discounted return (Engstrom et al. 2020, section 2); a part."""

    def __init__(self, gamma: float) -> None:
        self.gamma, self.returns = gamma, None
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def __call__(self, rewards: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Scaled (T, N), these rewards taken into account."""
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
    """N environments under way; a part, so that a run resumes in mid-episode. They start anew with each epoch.

    Of several processes each has environments of its own.
    """

    def __init__(self, spec: Env, device: Device) -> None:
        self.spec, self.device = spec, device
        self.envs, self.saved = None, None
        self.recent: list[tuple[float, int]] = []  # return and length of the last episodes

    def start(self, data: Data, clock: Clock) -> None:
        """Be where the clock is in its epoch."""
        self.envs = self.envs or data.make(data.num_envs)
        if clock.batch == 0:
            self.obs = self.envs.reset(mix(self.device.world.seed(clock.seed), clock.epoch, 0, 2))
            self.returns, self.lengths = np.zeros(data.num_envs), np.zeros(data.num_envs, np.int64)
        elif self.saved:
            self.envs.load_state_dict(self.saved["envs"])
            self.obs, self.returns, self.lengths = (self.saved[k].numpy().copy() for k in ("obs", "returns", "lengths"))
        self.saved = None

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Rewards, terminated, truncated and the observations that came, before any reset."""
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
        """Return and length of the last episodes; of those under way as long as none has ended."""
        if self.recent:
            return tuple(np.mean(self.recent, 0).tolist())
        return float(self.returns.mean()), float(self.lengths.mean())

    @torch.no_grad()
    def collect(self, net: Actor, length: int, clock: Clock) -> Rollout:
        """`length` steps of every environment, actions drawn from the policy by (seed, step)."""
        num, random = len(self.obs), generator(self.device.device, self.device.world.seed(clock.seed), clock.step, 0, 1)
        noise = net.noise(length, num, generator=random)
        obs = np.empty((length, num, self.spec.features), np.float32)
        rewards, acted, ends = np.empty((length, num), np.float32), [], ([], [])
        ahead = []
        for t in range(length):
            obs[t] = self.obs
            actions = net.act(torch.from_numpy(obs[t]).to(self.device.device), noise[t])
            acted.append(actions)
            rewards[t], terminated, truncated, final = self.step(actions.cpu().numpy())
            ends[0].append(terminated)
            ends[1].append(truncated)
            if truncated.any():
                ahead.append(final[truncated])
        flat = torch.from_numpy(obs.reshape(length * num, -1)).to(self.device.device)
        beyond = torch.from_numpy(np.concatenate((self.obs, *ahead))).to(self.device.device)
        return Rollout(flat, torch.cat(acted), rewards, np.stack(ends[0]), np.stack(ends[1]), beyond, *self.means())

    @torch.no_grad()
    def episodes(self, net: Actor, data: Data, clock: Clock) -> Episodes:
        """One episode of every environment, from starts by (seed, step). Environments whose episode is over wait,
        unseen.
        """
        self.envs = self.envs or data.make(data.num_envs)
        seed = self.device.world.seed(clock.seed)
        self.obs = self.envs.reset(mix(seed, clock.step, 0, 2))
        num, random = len(self.obs), generator(self.device.device, seed, clock.step, 0, 1)
        self.returns, self.lengths, alive = np.zeros(num), np.zeros(num, np.int64), np.ones(num, bool)
        seen, steps = [], []
        while alive.any():
            obs = torch.from_numpy(self.obs).to(self.device.device)
            actions = net.act(obs, net.noise(num, generator=random))
            self.obs, rewards, terminated, truncated, _ = self.envs.step(
                scale_actions(self.spec, actions.cpu().numpy())
            )
            seen.append((obs, actions))
            done = (terminated | truncated) & alive
            steps.append((rewards * alive, terminated & alive, done, alive))
            self.returns += rewards * alive
            self.lengths += alive
            alive = alive & ~done
        self.recent = [*self.recent, *zip(self.returns.tolist(), self.lengths.tolist(), strict=True)][-RECENT:]
        rewards, terminated, done, lived = map(np.stack, zip(*steps, strict=True))
        obs, actions = (torch.cat(each) for each in zip(*seen, strict=True))
        kept = torch.from_numpy(lived.reshape(-1)).to(self.device.device)
        return Episodes(obs[kept], actions[kept], rewards, terminated, done, lived, *self.means())

    def state_dict(self) -> dict:
        state = {"recent": [list(each) for each in self.recent]}
        if self.envs is None:
            return state | (self.saved or {})
        arrays = {k: torch.from_numpy(getattr(self, k)) for k in ("obs", "returns", "lengths")}
        return state | {"envs": self.envs.state_dict()} | arrays

    def load_state_dict(self, state: dict) -> None:
        self.recent = [tuple(each) for each in state["recent"]]
        self.saved, self.envs = state if "envs" in state else None, None


def scale_actions(spec: Env, actions: np.ndarray) -> np.ndarray:
    """A real action of 0 is the middle of its range, 1 its upper bound."""
    if spec.actions:
        return actions
    low, high = np.float32(spec.low), np.float32(spec.high)
    return (low + (high - low) * (actions.clip(-1, 1) + 1) / 2).astype(np.float32)
