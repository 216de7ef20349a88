"""Returns, advantages and scaled rewards over rollouts of T steps of N environments.

They are computed in NumPy, because T short steps on the host cost less than T kernel launches on a device.
"""

import numpy as np
import torch


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16): (T, N). gae_lambda=1: returns minus values.

    next_values: the value of the observation after each step, before any reset. It counts after a time limit
    (truncated) but not after the end of an episode (terminated).
    """
    deltas = rewards + gamma * next_values * ~terminated - values
    carry = gamma * gae_lambda * ~(terminated | truncated)
    advantages, last = np.empty_like(deltas), 0.0
    for t in range(len(deltas) - 1, -1, -1):
        advantages[t] = last = deltas[t] + carry[t] * last
    return advantages


def rewards_to_go(rewards: np.ndarray, done: np.ndarray, gamma: float) -> np.ndarray:
    """Discounted rewards from each step to the end of its episode: (T, N) (the book, section 14.3: causality)."""
    returns, last = np.empty_like(rewards), 0.0
    for t in range(len(rewards) - 1, -1, -1):
        returns[t] = last = rewards[t] + gamma * ~done[t] * last
    return returns


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """Share of the returns' variance that the values explain: 1 for perfect values, 0 for their mean."""
    spread = returns.var()
    return float(1 - (returns - values).var() / spread) if spread > 0 else 0.0


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
