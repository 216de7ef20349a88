"""CartPole-v1 for any number of carts at once, in NumPy.

Source: Barto, Sutton and Anderson 1983, with the equations and limits of Gymnasium's CartPole-v1. Unlike Gymnasium's
vectorised version, which loses a step after each end (NEXT_STEP), the next episode starts in the same step, and the
state can be saved.
"""

from math import pi

import numpy as np
import torch

from dlrun.spec import Env

GRAVITY, FORCE, TAU = 9.8, 10.0, 0.02  # m/s^2, N, s
MASS_POLE, MASS, HALF_LENGTH = 0.1, 1.1, 0.5  # kg, kg of cart and pole, m
MAX_X, MAX_ANGLE, TIME_LIMIT = 2.4, 12 * 2 * pi / 360, 500  # m, rad, steps


class CartPoles:
    """N carts. limit: steps of an episode, None for the original 500.

    state: position, velocity, angle, angular velocity: (4, N) float64. ages: steps since the start of each episode.
    """

    spec = Env((4,), 2, states=False)

    def __init__(self, num: int, limit: int | None = None) -> None:
        self.num, self.limit = num, limit or TIME_LIMIT
        self.parts: list[CartPoles] = []

    @classmethod
    def joined(cls, parts: list["CartPoles"]) -> "CartPoles":
        """All carts of several sets, side by side; each set keeps its own random numbers."""
        both = cls(sum(part.num for part in parts), parts[0].limit)
        both.parts, both.randoms = parts, [part.randoms[0] for part in parts]
        both.state = np.concatenate([part.state for part in parts], 1)
        both.ages = np.concatenate([part.ages for part in parts])
        return both

    def hand_back(self) -> None:
        """Copy the carts' states back to the sets that were joined."""
        states, ages = np.split(self.state, len(self.parts), 1), np.split(self.ages, len(self.parts))
        for part, state, age in zip(self.parts, states, ages, strict=True):
            part.state, part.ages = state.copy(), age.copy()

    def reset(self, seed: int) -> np.ndarray:
        """Start new episodes; return observations (N, 4)."""
        self.randoms = [np.random.default_rng(seed)]  # of each set of carts
        self.state, self.ages = self._start(self.randoms[0], self.num), np.zeros(self.num, np.int64)
        return self.state.T.astype(np.float32, order="C")  # same layout as after a resume, since rounding depends on it

    def _start(self, random: np.random.Generator, count: int) -> np.ndarray:
        return random.uniform(-0.05, 0.05, (4, count))

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Apply actions (N,): 0 left, 1 right.

        Returns observations, rewards, terminated, truncated, and the observations before any reset.
        """
        x, v, angle, spin = self.state
        force = (2 * FORCE) * actions - FORCE
        cos, sin = np.cos(angle), np.sin(angle)
        push = (force + MASS_POLE * HALF_LENGTH * spin * spin * sin) / MASS
        turn = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4 / 3 - MASS_POLE * cos * cos / MASS))
        pull = push - MASS_POLE * HALF_LENGTH * turn * cos / MASS
        self.state = self.state + TAU * np.stack((v, pull, spin, turn))
        self.ages += 1
        terminated = (np.abs(self.state[0]) > MAX_X) | (np.abs(self.state[2]) > MAX_ANGLE)
        truncated = (self.ages >= self.limit) & ~terminated
        final = obs = self.state.T.astype(np.float32, order="C")
        done = terminated | truncated
        if done.any():
            counts = done.reshape(len(self.randoms), -1).sum(1)
            starts = [self._start(random, count) for random, count in zip(self.randoms, counts, strict=True) if count]
            self.state[:, done], self.ages[done] = np.concatenate(starts, 1), 0
            obs = self.state.T.astype(np.float32, order="C")
        return obs, np.ones(self.num, np.float32), terminated, truncated, final

    def state_dict(self) -> dict:
        """Return the carts' state, the ages of the episodes and the state of the random generator."""
        random = self.randoms[0].bit_generator.state
        return {"state": torch.from_numpy(self.state), "ages": torch.from_numpy(self.ages), "random": random}

    def load_state_dict(self, state: dict) -> None:
        self.state, self.ages = state["state"].numpy().copy(), state["ages"].numpy().copy()
        self.randoms = [np.random.default_rng()]
        self.randoms[0].bit_generator.state = state["random"]

    def close(self) -> None: ...
