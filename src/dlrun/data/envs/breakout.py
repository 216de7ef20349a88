"""Breakout on a grid of 10 x 10 cells, for any number of games at once, in NumPy.

Source: MinAtar (Young and Tian 2019), whose Breakout has this grid, three rows of bricks and moves by one cell.
Deviations: a picture is in grey and shows one moment, without MinAtar's channel for the ball's last place, so that
where the ball flies is seen over two frames only. The paddle has two cells: its left one sends the ball to the left,
its right one to the right. The ball starts in any column.
"""

import numpy as np
import torch

from dlrun.spec import Env

SIDE, PADDLE, TIME_LIMIT = 10, 2, 500  # cells, cells, steps
FIRST, ROWS = 1, 3  # of the bricks
BALL, BAR, BRICK = 255, 170, 85  # grey levels


class Breakouts:
    """N games. limit: steps of an episode, None for 500. A brick gives 1; a ball that is missed ends the episode.

    ball: row and column (2, N); move: its last step, -1 or 1 each (2, N). paddle: its left cell (N,). bricks:
    (N, 3, 10). ages: steps since the start of each episode (N,).
    """

    spec = Env((1, SIDE, SIDE), 3, states=False)
    saved = "ball", "move", "paddle", "bricks", "ages"

    def __init__(self, num: int, limit: int | None = None) -> None:
        self.num, self.limit = num, limit or TIME_LIMIT
        self.ball, self.move = np.zeros((2, num), np.int64), np.ones((2, num), np.int64)
        self.paddle, self.ages = np.zeros(num, np.int64), np.zeros(num, np.int64)
        self.bricks = np.ones((num, ROWS, SIDE), bool)

    def reset(self, seed: int) -> np.ndarray:
        """Start new episodes; return observations (N, 1, 10, 10)."""
        self.random = np.random.default_rng(seed)
        self._start(np.ones(self.num, bool))
        return self.draw()

    def _start(self, which: np.ndarray) -> None:
        """Start the games (N,) anew: the ball falls from any column below the bricks, to the left or to the right."""
        count = which.sum()
        self.ball[0, which], self.ball[1, which] = FIRST + ROWS, self.random.integers(SIDE, size=count)
        self.move[0, which], self.move[1, which] = 1, 2 * self.random.integers(2, size=count) - 1
        self.paddle[which], self.ages[which] = (SIDE - PADDLE) // 2, 0
        self.bricks[which] = True

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Apply actions (N,): 0 stay, 1 left, 2 right.

        Returns observations, rewards, terminated, truncated, and the observations before any reset.
        """
        games = np.arange(self.num)
        self.paddle = (self.paddle + (actions == 2) - (actions == 1)).clip(0, SIDE - PADDLE)
        self.ages += 1
        row, column = self.ball + self.move
        self.move[1, (column < 0) | (column >= SIDE)] *= -1
        self.move[0, row < 0] = 1
        row, column = row.clip(0), column.clip(0, SIDE - 1)
        brick = (row - FIRST).clip(0, ROWS - 1)
        hits = (row == brick + FIRST) & self.bricks[games, brick, column]
        self.bricks[games[hits], brick[hits], column[hits]] = False
        is_low = row == SIDE - 1
        self.bricks[is_low & ~self.bricks.any((1, 2))] = True  # a new wall while the ball is far from it
        place = column - self.paddle
        caught = is_low & (place >= 0) & (place < PADDLE)
        self.move[0, hits | caught] *= -1
        self.move[1, caught] = np.where(place < PADDLE // 2, -1, 1)[caught]
        self.ball = np.stack((np.where(hits | caught, self.ball[0], row), column))
        terminated = is_low & ~caught
        truncated = (self.ages >= self.limit) & ~terminated
        final = obs = self.draw()
        done = terminated | truncated
        if done.any():
            self._start(done)
            obs = self.draw()
        return obs, hits.astype(np.float32), terminated, truncated, final

    def draw(self) -> np.ndarray:
        """The games as pictures, uint8 (N, 1, 10, 10)."""
        games, image = np.arange(self.num), np.zeros((self.num, 1, SIDE, SIDE), np.uint8)
        image[:, 0, FIRST : FIRST + ROWS] = self.bricks * np.uint8(BRICK)
        for cell in range(PADDLE):
            image[games, 0, SIDE - 1, self.paddle + cell] = BAR
        image[games, 0, self.ball[0], self.ball[1]] = BALL
        return image

    def state_dict(self) -> dict:
        """Return the games and the state of the random generator."""
        return {name: torch.from_numpy(getattr(self, name)) for name in self.saved} | {
            "random": self.random.bit_generator.state
        }

    def load_state_dict(self, state: dict) -> None:
        for name in self.saved:
            setattr(self, name, state[name].numpy().copy())
        self.random = np.random.default_rng()
        self.random.bit_generator.state = state["random"]

    def close(self) -> None: ...
