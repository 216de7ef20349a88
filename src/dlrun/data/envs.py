"""Environments of Gymnasium by id, many at a time. An epoch is an amount of frames; episodes follow each other at once.

The end of an episode (terminated) and a time limit (truncated) stay apart, and the last observation of an episode is
kept: the value of what would have come is bootstrapped through a limit and not through an end (Pardo et al. 2018).
"""

from dataclasses import replace

import numpy as np
import torch

from dlrun.data.cartpole import CartPoles
from dlrun.errors import DataError, UserError, nearest
from dlrun.spec import Env
from dlrun.types import Count

FAST = {"CartPole-v1": CartPoles}


class Envs:
    """An environment as data. num_envs: how many play at once in training. epoch_frames: of all of them together."""

    def __init__(self, *, spec: Env, id: str, num_envs: Count, epoch_frames: Count) -> None:
        self.id, self.num_envs, self.epoch_frames = id, num_envs, epoch_frames
        self.spec = spec if spec.obs else replace(read_spec(id), goal=spec.goal)

    def load(self, device: torch.device, channels_last: bool = False) -> None: ...

    def fitted(self) -> dict:
        """What it learned from the train part: nothing, a net that scales its observations does so itself."""
        return {}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None: ...

    def size(self, split: str) -> int:
        """Frames of an epoch; val and test have none of their own: they are played."""
        return self.epoch_frames if split == "train" else 0

    def describe(self) -> str:
        return f"{self.id}, {self.num_envs} at once"

    def make(self, num: int) -> "CartPoles | Worlds":
        """`num` environments with reset(seed), step(actions), state_dict and load_state_dict."""
        return FAST[self.id](num) if self.id in FAST else Worlds(self.id, num)


def read_spec(id: str) -> Env:
    """The spec of an environment, from its spaces. Raises UserError where a policy here cannot play it."""
    env = open_env(id)
    obs, actions = env.observation_space, env.action_space
    env.close()
    if type(obs).__name__ != "Box" or len(obs.shape) != 1:
        raise UserError(f"data.id={id} observes {obs}: expected a vector of real numbers, Box(n,)")
    if type(actions).__name__ == "Discrete":
        return Env(obs.shape, int(actions.n))
    if type(actions).__name__ != "Box" or len(actions.shape) != 1 or not actions.is_bounded():
        raise UserError(f"data.id={id} takes {actions}: expected Discrete(n), or Box(n,) with bounds")
    return Env(obs.shape, None, tuple(actions.low.tolist()), tuple(actions.high.tolist()))


def open_env(id: str) -> object:
    """One environment. Raises UserError where there is none of that id, or a package for it is missing."""
    import gymnasium
    from gymnasium import error

    try:
        return gymnasium.make(id)
    except error.DependencyNotInstalled as missing:
        raise UserError(f"data.id={id} needs a package that is not installed\n  {missing}") from None
    except (error.UnregisteredEnv, error.DeprecatedEnv, error.Error) as wrong:
        if id in gymnasium.registry:
            raise UserError(f"data.id={id}: {str(wrong).splitlines()[0]}") from None
        known = nearest(id, gymnasium.registry)
        raise UserError(f"data.id={id}: there is no such environment{known}\n  expected an id of gymnasium") from None


class Worlds:
    """Any environment, N of them. Their state is the seed and the actions since the epoch's start, to be replayed."""

    def __init__(self, id: str, num: int) -> None:
        from gymnasium.vector import AutoresetMode, SyncVectorEnv

        open_env(id).close()  # errors in words
        self.id, self.num = id, num
        self.envs = SyncVectorEnv([lambda: open_env(id)] * num, autoreset_mode=AutoresetMode.SAME_STEP)
        self.seed, self.actions = 0, []

    def reset(self, seed: int) -> np.ndarray:
        self.seed, self.actions = seed, []
        return np.asarray(self.envs.reset(seed=seed % 2**31)[0], np.float32)

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Gives observations, rewards, terminated, truncated, and the observations before a reset."""
        self.actions.append(actions)
        obs, rewards, terminated, truncated, info = self.envs.step(actions)
        obs = final = np.array(obs, np.float32)
        if "final_obs" in info:
            final = obs.copy()
            for i in np.flatnonzero(info["_final_obs"]):
                final[i] = info["final_obs"][i]
        if not (np.isfinite(final).all() and np.isfinite(rewards).all()):
            raise DataError(f"{self.id} gave a number that is not finite in step {len(self.actions)} of the epoch")
        return obs, rewards.astype(np.float32), terminated, truncated & ~terminated, final

    def state_dict(self) -> dict:
        played = torch.from_numpy(np.stack(self.actions)) if self.actions else torch.empty(0)
        return {"seed": self.seed, "actions": played}

    def load_state_dict(self, state: dict) -> None:
        self.reset(state["seed"])
        for actions in state["actions"].numpy():
            self.step(actions)

    def close(self) -> None:
        self.envs.close()
