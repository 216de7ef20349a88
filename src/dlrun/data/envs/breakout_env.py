"""One game of the small Breakout (breakout.py) as a Gymnasium environment, which can be drawn."""

import gymnasium
import numpy as np
from gymnasium import spaces

from dlrun.data.envs.breakout import SIDE, TIME_LIMIT, Breakouts

CELL = 20  # pixels


class SmallBreakout(gymnasium.Env):
    """Observations are pictures in grey, (10, 10)."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space, self.action_space = spaces.Box(0, 255, (SIDE, SIDE), np.uint8), spaces.Discrete(3)
        self.game = Breakouts(1, TIME_LIMIT + 1)  # Gymnasium's wrapper keeps the limit

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.image = self.game.reset(int(self.np_random.integers(2**31)))[0, 0]
        return self.image, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        _, rewards, terminated, _, final = self.game.step(np.array([action]))
        self.image = final[0, 0]
        return self.image, float(rewards[0]), bool(terminated[0]), False, {}

    def render(self) -> np.ndarray:
        """Draw the game, uint8 (200, 200, 3)."""
        return self.image.repeat(CELL, 0).repeat(CELL, 1)[..., None].repeat(3, 2)


gymnasium.register("SmallBreakout-v0", f"{__name__}:{SmallBreakout.__name__}", max_episode_steps=TIME_LIMIT)
