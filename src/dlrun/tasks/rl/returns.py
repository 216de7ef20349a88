"""Returns and advantages over rollouts of T steps of N environments.

They are computed in NumPy, because T short steps on the host cost less than T kernel launches on a device.
"""

import numpy as np


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    gamma: float,
    lam: float,
) -> np.ndarray:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16); with lam=1, returns minus values: (T, N).

    next_values: the value of the observation after each step, before any reset. It counts after a time limit
    (truncated) but not after the end of an episode (terminated).
    """
    deltas = rewards + gamma * next_values * ~terminated - values
    carry = gamma * lam * ~(terminated | truncated)
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
