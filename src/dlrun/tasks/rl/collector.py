"""Collecting experience: a Collector plays environments and returns rollouts or whole episodes.

Letters in shapes: T steps, N environments, K steps that a time limit ended.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import EnvData, VectorEnv
from dlrun.seeds import generator, mix
from dlrun.spec import Env
from dlrun.system.device import Device
from dlrun.tasks.jobs import ONE, OneJob
from dlrun.tasks.rl.actors import Actor

RECENT = 100  # number of episodes whose mean return is logged


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


class Collector:
    """Plays N environments, which are reset at the start of each epoch.

    A component of the task, so that a run resumes in mid-episode. Each process has its own environments. jobs: whose
    they are; in a stack those of all jobs are stepped together (stack/play.py).
    """

    def __init__(self, spec: Env, device: Device, jobs: OneJob = ONE) -> None:
        self.spec, self.device, self.jobs = spec, device, jobs
        self.envs: VectorEnv | None = None
        self.saved: dict | None = None  # the state after a resume, until the next start
        self.history: list[tuple[float, int]] = []  # return and length of each episode

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

    def seeds(self, clock: Clock) -> list[int]:
        """The seed of the actions, of each job."""
        return [self.device.dist.seed(clock.seed)]

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Step all environments. Returns rewards, terminated, truncated and the observations before any reset."""
        if self.envs is None:
            raise RuntimeError("the environments are made by start()")
        self.obs, rewards, terminated, truncated, final = self.envs.step(scale_actions(self.spec, actions))
        self.returns += rewards
        self.lengths += 1
        done = terminated | truncated
        if done.any():
            self.note(done)
            self.returns[done], self.lengths[done] = 0, 0
        return rewards, terminated, truncated, final

    def note(self, done: np.ndarray) -> None:
        """Remember the episodes of the environments (N,) that are done."""
        self.history += zip(self.returns[done].tolist(), self.lengths[done].tolist(), strict=True)

    def means(self) -> tuple[float, float]:
        """Mean return and length of the last episodes; of the unfinished ones until the first has ended."""
        if self.history:
            return tuple(np.mean(self.history[-RECENT:], 0).tolist())
        return float(self.returns.mean()), float(self.lengths.mean())

    @torch.no_grad()
    def collect(self, net: Actor, length: int, clock: Clock) -> Rollout:
        """Play `length` steps of every environment, with actions drawn from the policy by (seed, step)."""
        num, seeds = len(self.obs), self.seeds(clock)
        randoms = [generator(self.device.torch_device, seed, clock.step, 0, 1) for seed in seeds]
        noise = torch.cat([net.noise(length, num // len(seeds), generator=random) for random in randoms], 1)
        obs = np.empty((length, *self.obs.shape), self.obs.dtype)
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
        flat = torch.from_numpy(self.jobs.flat(obs)).to(self.device.torch_device)
        actions, terminated, truncated = self.jobs.flat(torch.stack(taken)), np.stack(ends[0]), np.stack(ends[1])
        return self.rollout(flat, actions, rewards, terminated, truncated, limit_obs)

    def rollout(
        self,
        obs: Tensor,
        actions: Tensor,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        limit_obs: list[np.ndarray],
    ) -> Rollout:
        """The rollout of these steps. limit_obs: observations after time limits, in the order of `truncated`."""
        after = torch.from_numpy(np.concatenate((self.obs, *limit_obs))).to(self.device.torch_device)
        return Rollout(obs, actions, rewards, terminated, truncated, after, *self.means())

    @torch.no_grad()
    def episodes(self, net: Actor, data: EnvData, clock: Clock) -> Episodes:
        """Play one episode of every environment, from starts drawn by (seed, step)."""
        envs = self.envs = self.envs or data.make(data.num_envs)
        seed = self.device.dist.seed(clock.seed)
        self.obs = envs.reset(mix(seed, clock.step, 0, 2))
        random = generator(self.device.torch_device, seed, clock.step, 0, 1)
        self.returns, self.lengths = np.zeros(len(self.obs)), np.zeros(len(self.obs), np.int64)
        inputs, steps = [], []
        for turn in play_once(envs, self.obs, net, random, self.spec, self.device):
            self.obs = turn.next_obs
            inputs.append((turn.obs, turn.actions))
            steps.append((turn.rewards, turn.terminated, turn.done, turn.valid))
            self.returns += turn.rewards
            self.lengths += turn.valid
        self.note(np.ones(len(self.obs), bool))
        rewards, terminated, done, valid = map(np.stack, zip(*steps, strict=True))
        obs, actions = (torch.cat(each) for each in zip(*inputs, strict=True))
        is_valid = torch.from_numpy(valid.reshape(-1)).to(self.device.torch_device)
        return Episodes(obs[is_valid], actions[is_valid], rewards, terminated, done, valid, *self.means())

    def state_dict(self) -> dict:
        state: dict = {"episodes": torch.tensor(self.history, dtype=torch.float64).view(-1, 2)}
        if self.envs is None:
            return state | (self.saved or {})
        arrays = {k: torch.from_numpy(getattr(self, k)) for k in ("obs", "returns", "lengths")}
        return state | {"envs": self.envs.state_dict()} | arrays

    def load_state_dict(self, state: dict) -> None:
        episodes = state["episodes"].tolist() if "episodes" in state else state["recent"]  # older runs: the last ones
        self.history = [(float(total), int(length)) for total, length in episodes]
        self.saved = state if "envs" in state else None
        self.envs = None


class Turn(NamedTuple):
    """A step of N environments, each of which plays one episode.

    obs (N, features) and actions are on the device. valid (N,): whose episode has not ended before; the rewards of the
    others are 0, and they are neither terminated nor done.
    """

    obs: Tensor
    actions: Tensor
    rewards: np.ndarray
    terminated: np.ndarray
    done: np.ndarray
    valid: np.ndarray
    next_obs: np.ndarray


def play_once(
    envs: VectorEnv, obs: np.ndarray, actor: Actor, random: torch.Generator | None, spec: Env, device: Device
) -> Iterator[Turn]:
    """Step environments from their first observations until each has ended an episode.

    random: draws the actions; None for the best ones.
    """
    valid = np.ones(len(obs), bool)
    while valid.any():
        inputs = torch.from_numpy(obs).to(device.torch_device)
        noise = None if random is None else actor.noise(len(obs), generator=random)
        actions = actor.act(inputs, noise)
        obs, rewards, terminated, truncated, _ = envs.step(scale_actions(spec, actions.cpu().numpy()))
        done = (terminated | truncated) & valid
        yield Turn(inputs, actions, rewards * valid, terminated & valid, done, valid, obs)
        valid = valid & ~done


def scale_actions(spec: Env, actions: np.ndarray) -> np.ndarray:
    """Map real actions from [-1, 1] to the environment's range; discrete ones are returned unchanged."""
    if spec.actions:
        return actions
    low, high = np.asarray(spec.low, np.float32), np.asarray(spec.high, np.float32)
    return (low + (high - low) * (actions.clip(-1, 1) + 1) / 2).astype(np.float32)
