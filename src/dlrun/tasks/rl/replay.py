"""A replay buffer of past steps; new steps overwrite the oldest (Lin 1992; the book, section 14.4.7)."""

import numpy as np
import torch
from torch import Tensor

from dlrun.spec import Env


class Replay:
    """Columns of `capacity` steps on the device. A component of the task. next_obs: observations before any reset."""

    def __init__(self, spec: Env, capacity: int, device: torch.device) -> None:
        self.capacity, self.device = capacity, device
        self.size, self.next = 0, 0
        seen = {"dtype": getattr(torch, spec.dtype), "device": device}  # images take a quarter of float32's memory
        self.columns = {
            "obs": torch.zeros(capacity, *spec.shape, **seen),
            "actions": torch.zeros(capacity, dtype=torch.int64, device=device),
            "rewards": torch.zeros(capacity, device=device),
            "next_obs": torch.zeros(capacity, *spec.shape, **seen),
            "terminated": torch.zeros(capacity, dtype=torch.bool, device=device),
        }

    def add(self, **steps: np.ndarray) -> None:
        """Store steps, given as columns of equal length: at most `capacity`."""
        count = len(steps["actions"])
        rows = (self.next + torch.arange(count, device=self.device)) % self.capacity
        for name, column in self.columns.items():
            column[rows] = torch.from_numpy(steps[name]).to(self.device)
        self.next, self.size = (self.next + count) % self.capacity, min(self.size + count, self.capacity)

    def sample(self, count: int) -> dict[str, Tensor]:
        """Draw steps with replacement, by the default generator."""
        rows = torch.randint(self.size, (count,), device=self.device)
        return {name: column[rows] for name, column in self.columns.items()}

    def state_dict(self) -> dict:
        return {"size": self.size, "next": self.next} | {k: v[: self.size] for k, v in self.columns.items()}

    def load_state_dict(self, state: dict) -> None:
        self.size, self.next = state["size"], state["next"]
        for name, column in self.columns.items():
            column[: self.size] = state[name]
