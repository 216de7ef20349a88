"""Gymnasium's environments, opened by id and stepped many at a time.

A new episode starts in the step in which the last one ends. The end of an episode (terminated) and a time limit
(truncated) are kept apart, and so is the last observation of an episode: returns are bootstrapped at a time limit, but
not at an end (Pardo et al. 2018).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from dlrun.config.signatures import is_allowed
from dlrun.errors import EnvError, UserError, first_line, nearest, raised
from dlrun.spec import Env, ObsShape

if TYPE_CHECKING:
    import gymnasium
    from numpy.typing import ArrayLike

PROJECT_ENVS = {
    "Maze-v0": "dlrun.data.envs.maze",
    "SmallBreakout-v0": "dlrun.data.envs.breakout_env",
}  # modules that register an environment of this project
LONGEST = 10_000  # steps of an episode if the environment has no time limit
WRAPPED = "register the wrapped environment in a package:\n  DL_RUN_ALLOW=package dl-run data=gym data.id=package:id"


def read_spec(id: str) -> Env:
    """Read the spec of an environment from its spaces. Raises UserError if no policy of this package can play it."""
    from gymnasium.spaces import Box, Discrete

    env = open_env(id)
    obs, actions = env.observation_space, env.action_space
    env.close()
    if isinstance(obs, Discrete):
        shape: ObsShape = (int(obs.n),)
    elif isinstance(obs, Box) and (len(obs.shape) == 1 or is_image(obs)):
        shape = cast(ObsShape, as_arrays(obs, np.zeros((1, *obs.shape), obs.dtype)).shape[1:])
    else:
        images = "images, " if len(getattr(obs, "shape", None) or ()) in (2, 3) else ""
        way = f"gymnasium.wrappers.TransformObservation can make a vector of it: {WRAPPED}"
        if obs.is_np_flattenable:  # not a Sequence or Graph, whose length changes
            way = f"gymnasium.wrappers.FlattenObservation makes a vector of it: {WRAPPED}"
        raise UserError(
            f"data.id={id} observes {images}{obs}: expected a vector of real numbers, Box(n,), states, Discrete(n), "
            f"or images of whole numbers, Box(height, width[, channels]) of uint8 or bool\n  {way}"
        )
    is_states = isinstance(obs, Discrete)
    if isinstance(actions, Discrete) and not actions.start:
        return Env(shape, int(actions.n), states=is_states)
    if not isinstance(actions, Box) or len(actions.shape) != 1 or not actions.is_bounded():
        raise UserError(
            f"data.id={id} takes {actions}: expected Discrete(n), or Box(n,) with bounds\n"
            f"  gymnasium.wrappers.TransformAction converts actions: {WRAPPED}"
        )
    return Env(shape, None, tuple(actions.low.tolist()), tuple(actions.high.tolist()), states=is_states)


def open_env(id: str, limit: int | None = None, render: str | None = None) -> "gymnasium.Env":
    """Make one environment. limit: steps of an episode, None for its own limit. render: a render mode.

    Raises UserError if there is none with that id, or if a package for it is missing.
    """
    import gymnasium
    from gymnasium import error

    module, colon, name = id.rpartition(":")
    if colon and not is_allowed(module):
        raise UserError(
            f"data.id={id} would import {module!r}, which a config must not\n"
            "  expected an id without a module, or a package that the environment variable DL_RUN_ALLOW names"
        )
    if id in PROJECT_ENVS:
        import_module(PROJECT_ENVS[id])
    try:
        if colon:
            import_module(module)
        spec = gymnasium.spec(name)
        options: dict[str, Any] = {}
        if limit or spec.max_episode_steps is None:
            options["max_episode_steps"] = limit or LONGEST
        creator: object = spec.entry_point
        creator = gymnasium.envs.registration.load_env_creator(creator) if isinstance(creator, str) else creator
        if render in getattr(creator, "metadata", {}).get("render_modes", ()):
            options["render_mode"] = render
        return gymnasium.make(name, **options)
    except (error.DependencyNotInstalled, ImportError) as missing:
        raise UserError(f"data.id={id} needs a package that is not installed\n  {missing}") from None
    except error.Error as wrong:
        if name in gymnasium.registry:
            raise UserError(f"data.id={id}: {first_line(wrong)}") from None
        known = nearest(name, gymnasium.registry)
        if "/" in name and not any(each.startswith(name.split("/")[0] + "/") for each in gymnasium.registry):
            known = f": the package of {name.split('/')[0]} is missing, or must be named: data.id=package:{name}"
        raise UserError(f"data.id={id}: there is no such environment{known}\n  expected an id of gymnasium") from None
    except Exception as failure:  # foreign code may raise anything
        raise UserError(
            f"data.id={id} cannot be made: {raised(failure)}\n  expected an environment that starts"
        ) from None


def is_image(space: "gymnasium.Space") -> bool:
    """Whether observations are images whose pixels are in 0 .. 255, or black and white."""
    return len(space.shape or ()) in (2, 3) and space.dtype in (np.uint8, np.bool_)


def as_arrays(space: "gymnasium.Space", obs: "ArrayLike") -> np.ndarray:
    """Return observations as float32 (N, features), vectors as they are and states one-hot, or as uint8 (N, C, H, W).

    Images without channels get one. The channels are the last axis of an image unless the first one is shorter.
    """
    from gymnasium.spaces import Discrete

    if isinstance(space, Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(obs) - int(space.start)]
    if not is_image(space):
        return np.array(obs, np.float32)
    images = np.asarray(obs)
    images = images.astype(np.uint8) * np.uint8(255 if images.dtype == np.bool_ else 1)
    if images.ndim == 3:
        return images[:, None]
    return images if images.shape[1] < images.shape[3] else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


class VectorEnvs:
    """N environments of any kind. Their state is the seed and the actions since the epoch's start, to be replayed."""

    def __init__(self, id: str, num: int, limit: int | None = None) -> None:
        from gymnasium.vector import AutoresetMode, SyncVectorEnv

        self.space = open_env(id).observation_space  # first, because its errors are explained
        self.id, self.num = id, num
        self.envs = SyncVectorEnv([lambda: open_env(id, limit)] * num, autoreset_mode=AutoresetMode.SAME_STEP)
        self.seed = 0
        self.actions: list[np.ndarray] = []

    def reset(self, seed: int) -> np.ndarray:
        """Start new episodes; return observations (N, ...)."""
        self.seed, self.actions = seed, []
        try:
            obs = as_arrays(self.space, self.envs.reset(seed=seed % 2**31)[0])
        except Exception as error:  # foreign code may raise anything
            raise self._failed(f"raised {type(error).__name__}: {error}") from error
        if not np.isfinite(obs).all():
            raise self._failed("gave a number that is not finite")
        return obs

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return observations, rewards, terminated, truncated, and the observations before any reset."""
        self.actions.append(actions)
        try:
            obs, rewards, terminated, truncated, info = self.envs.step(actions)
        except Exception as error:  # foreign code may raise anything
            raise self._failed(f"raised {type(error).__name__}: {error}") from error
        obs = final = as_arrays(self.space, obs)
        if "final_obs" in info:
            final = obs.copy()
            for i in np.flatnonzero(info["_final_obs"]):
                final[i] = as_arrays(self.space, [info["final_obs"][i]])[0]
        if not all(np.isfinite(values).all() for values in (obs, final, rewards)):
            raise self._failed("gave a number that is not finite")
        return obs, rewards.astype(np.float32), terminated, truncated & ~terminated, final

    def _failed(self, how: str) -> EnvError:
        return EnvError(
            f"the environment {self.id} {how}, in step {len(self.actions)} after its start with seed "
            f"{self.seed % 2**31}\n  expected finite observations and rewards"
        )

    def state_dict(self) -> dict:
        actions = torch.from_numpy(np.stack(self.actions)) if self.actions else torch.empty(0)
        return {"seed": self.seed, "actions": actions}

    def load_state_dict(self, state: dict) -> None:
        self.reset(state["seed"])
        for actions in state["actions"].numpy():
            self.step(actions)

    def close(self) -> None:
        self.envs.close()
