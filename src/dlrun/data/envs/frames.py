"""What a network sees of environments: images in grey and small (data.pixels), the last ones as one (data.frame_stack).

Source: Mnih et al. 2015, "Human-level control through deep reinforcement learning", methods: pictures of 84 x 84 pixels
in grey, and the last four of them as channels, since one picture does not show what moves where.
Deviations: a picture is shrunk by the means over areas, and no maximum of two pictures is taken.
"""

from dataclasses import replace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from dlrun.data.base import VectorEnv
from dlrun.errors import UserError
from dlrun.spec import Env, ObsShape

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue (ITU-R BT.601)


class Sight:
    """How observations are prepared.

    pixels: of a side, for images in grey and small; None: as they are. frame_stack: number of observations in one.
    """

    def __init__(self, pixels: int | None, frame_stack: int) -> None:
        self.pixels, self.frame_stack = pixels, frame_stack
        self.changes = bool(pixels) or frame_stack > 1

    def spec_of(self, spec: Env, id: str) -> Env:
        """The spec of what the network sees, from that of an observation. Raises UserError if they do not fit."""
        if self.pixels and not spec.has_pixels:
            raise UserError(
                f"data.pixels={self.pixels} is the size of images, and data.id={id} observes {spec}\n"
                "  expected data.pixels=null, or an environment with images, such as data=breakout"
            )
        if self.frame_stack > 1 and spec.states:
            raise UserError(
                f"data.frame_stack={self.frame_stack} with data.id={id}, whose states are one-hot and complete\n"
                "  expected data.frame_stack=1"
            )
        first, *rest = (1, self.pixels, self.pixels) if self.pixels else spec.shape
        return replace(spec, obs=cast(ObsShape, (first * self.frame_stack, *rest)))

    def one(self, obs: np.ndarray) -> np.ndarray:
        """Observations of one moment (N, ...), in grey and small if they are to be."""
        if not self.pixels:
            return obs
        weights = LUMA if obs.shape[1] == 3 else (1 / obs.shape[1],) * obs.shape[1]
        grey = torch.einsum("nchw,c->nhw", torch.from_numpy(obs).float(), torch.tensor(weights))[:, None]
        small = F.interpolate(grey, (self.pixels, self.pixels), mode="area")
        return small.round_().clamp_(0, 255).to(torch.uint8).numpy()

    def first(self, obs: np.ndarray) -> np.ndarray:
        """What is seen at the start of episodes: the first observation (N, C, ...) in all places, (N, k C, ...)."""
        return np.concatenate([self.one(obs)] * self.frame_stack, 1)

    def next(self, seen: np.ndarray, obs: np.ndarray) -> np.ndarray:
        """What is seen after a step: the oldest observation leaves, the new one is the last."""
        new = self.one(obs)
        return np.concatenate((seen[:, new.shape[1] :], new), 1)


class Frames:
    """N environments, seen through a Sight. seen: what the last step returned."""

    def __init__(self, envs: VectorEnv, sight: Sight) -> None:
        self.envs, self.sight = envs, sight

    def reset(self, seed: int) -> np.ndarray:
        """Start new episodes; return what is seen (N, ...)."""
        self.seen = self.sight.first(self.envs.reset(seed))
        return self.seen

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return what is seen, rewards, terminated, truncated, and what was seen before any reset."""
        obs, rewards, terminated, truncated, final = self.envs.step(actions)
        last = self.seen = self.sight.next(self.seen, final)
        done = terminated | truncated
        if done.any():
            self.seen = last.copy()
            self.seen[done] = self.sight.first(obs[done])
        return self.seen, rewards, terminated, truncated, last

    def state_dict(self) -> dict:
        return {"envs": self.envs.state_dict(), "seen": torch.from_numpy(self.seen)}

    def load_state_dict(self, state: dict) -> None:
        self.envs.load_state_dict(state["envs"])
        self.seen = state["seen"].numpy().copy()

    def close(self) -> None:
        self.envs.close()
