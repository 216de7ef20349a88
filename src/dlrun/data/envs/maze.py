"""The maze of the book, section 14.4, as a Gymnasium environment: four columns, three rows, one wall.

Cells are named (column, row) from (1, 1) at the lower left. The state is the number of the cell, counted by rows from
the upper left. Every move costs 1; a move against the wall or the border changes nothing else. In (4, 3) and (4, 2) any
action collects 10 or -10 and ends the episode. With gamma 0.9 the optimal values are the book's: 10 in (4, 3), 8 in
(3, 3), 3.122 in (2, 1).
"""

import gymnasium
import numpy as np
from gymnasium import spaces

ROWS, COLUMNS = 3, 4
WALL, GOAL, PIT = 5, 3, 7  # (2, 2), (4, 3), (4, 2)
ACTIONS = ((-1, 0), (0, 1), (1, 0), (0, -1))  # up, right, down, left: rows down, columns to the right
CELL = 60  # pixels


class Maze(gymnasium.Env):
    """Episodes start in any of the other nine cells. P: the transition table of Gymnasium's toy texts."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 4}
    shape = (ROWS, COLUMNS)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.observation_space, self.action_space = spaces.Discrete(ROWS * COLUMNS), spaces.Discrete(len(ACTIONS))
        self.starts = [s for s in range(ROWS * COLUMNS) if s not in (WALL, GOAL, PIT)]
        self.P = {s: {a: [self._move(s, a)] for a in range(len(ACTIONS))} for s in range(ROWS * COLUMNS)}

    def _move(self, state: int, action: int) -> tuple[float, int, float, bool]:
        """Return the probability, the next state, the reward, and whether the episode ends."""
        if state in (GOAL, PIT):
            return 1.0, state, 10.0 if state == GOAL else -10.0, True
        row, column = np.add(divmod(state, COLUMNS), ACTIONS[action])
        after = int(row * COLUMNS + column)
        is_free = 0 <= row < ROWS and 0 <= column < COLUMNS and after != WALL and state != WALL
        return 1.0, after if is_free else state, -1.0, False

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[int, dict]:
        super().reset(seed=seed)
        self.state = self.starts[self.np_random.integers(len(self.starts))]
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
        _, self.state, reward, ends = self.P[self.state][int(action)][0]
        return self.state, reward, ends, False, {}

    def render(self) -> np.ndarray:
        """Draw the maze, uint8 (180, 240, 3): the wall black, the goal green, the pit red, the agent blue."""
        image = np.full((ROWS * CELL, COLUMNS * CELL, 3), 255, np.uint8)
        for state, colour in ((WALL, (0, 0, 0)), (GOAL, (120, 200, 120)), (PIT, (220, 120, 120))):
            image[self._inside(state, 0)] = colour
        image[::CELL], image[:, ::CELL] = 160, 160
        image[self._inside(self.state, CELL // 4)] = (60, 90, 200)
        return image

    def _inside(self, state: int, margin: int) -> tuple[slice, slice]:
        row, column = divmod(state, COLUMNS)
        down, across = (slice(i * CELL + margin, (i + 1) * CELL - margin) for i in (row, column))
        return down, across


gymnasium.register("Maze-v0", f"{__name__}:{Maze.__name__}", max_episode_steps=100)
