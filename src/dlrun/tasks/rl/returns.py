"""Returns and advantages over rollouts (T, N), in NumPy: T short steps on the host cost less than T launches on a
device.
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
    """Generalised advantage estimates (Schulman et al. 2016, equation 16); lam=1: returns less values.

    next_values: of the observation after each step, before any reset. An end has no value behind it; a time limit has.
    """
    deltas = rewards + gamma * next_values * ~terminated - values
    carry = gamma * lam * ~(terminated | truncated)
    advantages, last = np.empty_like(deltas), 0.0
    for t in range(len(deltas) - 1, -1, -1):
        advantages[t] = last = deltas[t] + carry[t] * last
    return advantages


def rewards_to_go(rewards: np.ndarray, done: np.ndarray, gamma: float) -> np.ndarray:
    """Discounted rewards from each step on to the episode's end (book section 14.3, causality)."""
    returns, last = np.empty_like(rewards), 0.0
    for t in range(len(rewards) - 1, -1, -1):
        returns[t] = last = rewards[t] + gamma * ~done[t] * last
    return returns


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """1: the values are the returns; 0: no better than their mean."""
    spread = returns.var()
    return float(1 - (returns - values).var() / spread) if spread > 0 else 0.0
