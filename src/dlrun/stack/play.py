"""The environments and the replay buffers of several jobs, stepped and sampled together."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from dlrun.clock import Clock
from dlrun.data.base import EnvData, VectorEnv
from dlrun.stack.jobs import Jobs
from dlrun.tasks.rl.base import RLTask
from dlrun.tasks.rl.collector import Collector, Rollout, play_once
from dlrun.tasks.rl.replay import Replay


class Collectors(Collector):
    """The environments of K jobs as one. parts: the jobs' own collectors, which `hand_back` brings up to date."""

    def __init__(self, parts: Sequence[Collector], jobs: Jobs) -> None:
        super().__init__(parts[0].spec, parts[0].device, jobs)
        self.parts = parts
        self.clocks: Sequence[Clock] = []  # of the jobs

    def start(self, data: EnvData, clock: Clock) -> None:
        if self.envs is not None and clock.batch:
            return
        for part, of_job in zip(self.parts, self.clocks, strict=True):
            part.start(data, of_job)
        self.envs = joined([part.envs for part in self.parts if part.envs is not None])
        self.obs = np.concatenate([part.obs for part in self.parts])
        self.returns = np.concatenate([part.returns for part in self.parts])
        self.lengths = np.concatenate([part.lengths for part in self.parts])

    def seeds(self, clock: Clock) -> list[int]:
        return [own.seed for own in self.clocks]

    def note(self, done: np.ndarray) -> None:
        size = len(done) // len(self.parts)
        for i in np.flatnonzero(done):
            part = self.parts[i // size]
            part.history.append((float(self.returns[i]), int(self.lengths[i])))

    def means(self) -> tuple[list[float], list[float]]:  # type: ignore[override]  # of each job
        columns = zip(np.split(self.returns, len(self.parts)), np.split(self.lengths, len(self.parts)), strict=True)
        pairs = []
        for part, (returns, lengths) in zip(self.parts, columns, strict=True):
            part.returns, part.lengths = returns, lengths
            pairs.append(part.means())
        mean_returns, mean_lengths = zip(*pairs, strict=True)
        return list(mean_returns), list(mean_lengths)

    def rollout(
        self,
        obs: Tensor,
        actions: Tensor,
        rewards: np.ndarray,
        terminated: np.ndarray,
        truncated: np.ndarray,
        limit_obs: list[np.ndarray],
    ) -> Rollout:
        """Jobs with fewer time limits get rows of zeros, so that all have as many rows."""
        k, shape = len(self.parts), self.obs.shape[1:]
        owners = np.nonzero(truncated)[1] // (truncated.shape[1] // k)  # of the rows of limit_obs
        counts = np.bincount(owners, minlength=k)
        rows = np.zeros((k, counts.max(), *shape), self.obs.dtype)
        for job in np.flatnonzero(counts):
            rows[job, : counts[job]] = np.concatenate(limit_obs)[owners == job]
        after = np.concatenate((self.obs.reshape(k, -1, *shape), rows), 1).reshape(-1, *shape)
        device_after = torch.from_numpy(after).to(self.device.torch_device)
        return Rollouts(obs, actions, rewards, terminated, truncated, device_after, *self.means())  # type: ignore[arg-type]  # of each job

    def hand_back(self) -> None:
        """Copy to each job's collector the state that it would have alone."""
        if self.envs is None:
            return
        self.envs.hand_back()  # type: ignore[attr-defined]  # of what `joined` returns
        columns = (np.split(x, len(self.parts)) for x in (self.obs, self.returns, self.lengths))
        for part, obs, returns, lengths in zip(self.parts, *columns, strict=True):
            part.obs, part.returns, part.lengths = obs.copy(), returns.copy(), lengths.copy()


class Rollouts(Rollout):
    """T steps of the N environments of each of K jobs. bootstrap_obs: (K * (N + most), features)."""

    def next_values(self, values: np.ndarray, bootstrap_values: np.ndarray) -> np.ndarray:
        """See Rollout; values (T, K * N), bootstrap_values (K * (N + most))."""
        steps, envs = values.shape
        k = len(self.mean_return)  # type: ignore[arg-type]  # one for each job
        after = bootstrap_values.reshape(k, -1)
        next_values = np.concatenate((values[1:], after[:, : envs // k].reshape(1, envs)))
        for job, mine in enumerate(np.split(next_values, k, 1)):  # views
            limits = self.truncated[:, job * envs // k : (job + 1) * envs // k]
            mine[limits] = after[job, envs // k : envs // k + limits.sum()]
        return next_values


class Replays:
    """The replay buffers of K jobs, whose columns become views of common ones."""

    def __init__(self, parts: Sequence[Replay], jobs: Jobs) -> None:
        self.parts, self.jobs = parts, jobs
        self.columns = {name: torch.stack([part.columns[name] for part in parts]) for name in parts[0].columns}
        for k, part in enumerate(parts):
            part.columns = {name: column[k] for name, column in self.columns.items()}

    @property
    def capacity(self) -> int:
        """Steps of each job."""
        return self.parts[0].capacity

    def add(self, **steps: np.ndarray) -> None:
        """Store steps, those of one job after those of another."""
        columns = {name: np.split(column, len(self.parts)) for name, column in steps.items()}
        for k, part in enumerate(self.parts):
            part.add(**{name: column[k] for name, column in columns.items()})

    def sample(self, count: int) -> dict[str, Tensor]:
        """Draw steps of each job with replacement, by its own generator: (K * count, ...)."""
        first = self.parts[0]
        draws = [
            torch.randint(first.size, (count,), generator=generator, device=first.device)
            for generator in self.jobs.generators
        ]
        rows = torch.cat([k * first.capacity + draw for k, draw in enumerate(draws)])
        return {name: column.flatten(0, 1)[rows] for name, column in self.columns.items()}


class SideBySide:
    """Environments of any kind, one set after another, where sets cannot be joined."""

    def __init__(self, parts: Sequence[VectorEnv]) -> None:
        self.parts = parts

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, ...]:
        shares = np.split(actions, len(self.parts))
        results = [part.step(share) for part, share in zip(self.parts, shares, strict=True)]
        return tuple(map(np.concatenate, zip(*results, strict=True)))

    def close(self) -> None:
        for part in self.parts:
            part.close()

    def hand_back(self) -> None: ...


def joined(parts: Sequence[VectorEnv]) -> VectorEnv:
    """Sets of environments, which have been reset, as one."""
    join = getattr(type(parts[0]), "joined", SideBySide)
    return cast(VectorEnv, join(parts))


@torch.inference_mode()
def evaluate(task: RLTask, data: EnvData, split: str) -> list[dict[str, float]]:
    """RLTask.evaluate with the best actions for all jobs of a stack, whose environments are played together.

    task: the stack's (learning.py).
    """
    k, episodes = task.jobs.num, task.eval_episodes
    parts = [data.make(episodes) for _ in range(k)]
    obs = np.concatenate([part.reset(task.starts(split)) for part in parts])
    returns, lengths = np.zeros(k * episodes), np.zeros(k * episodes, np.int64)
    envs = joined(parts)
    for turn in play_once(envs, obs, task.actor(), None, task.spec, task.device):
        returns += turn.rewards
        lengths += turn.valid
    envs.close()
    return [task.scored(*pair) for pair in zip(np.split(returns, k), np.split(lengths, k), strict=True)]
