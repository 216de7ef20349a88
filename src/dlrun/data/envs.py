"""Gymnasium environments by id, stepped many at a time. An epoch is a number of frames.

A new episode starts in the step in which the last one ends. The end of an episode (terminated) and a time limit
(truncated) are kept apart, and so is the last observation of an episode: returns are bootstrapped at a time limit, but
not at an end (Pardo et al. 2018).
"""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dlrun.config.extras import install
from dlrun.config.signatures import is_allowed
from dlrun.data.base import Video
from dlrun.data.cartpole import CartPoles
from dlrun.errors import EnvError, UserError, nearest
from dlrun.spec import Env
from dlrun.types import Count, Index, Name, Size

if TYPE_CHECKING:
    import gymnasium
    from numpy.typing import ArrayLike

FAST = {"CartPole-v1": CartPoles}
PROJECT_ENVS = {"Maze-v0": "dlrun.data.maze"}  # modules that register an environment of this project
SILENT = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}  # for pygame
LONGEST = 10_000  # steps of an episode if the environment has no time limit
WRAPPED = "register the wrapped environment in a package:\n  DL_RUN_ALLOW=package dl-run data=gym data.id=package:id"
VIDEO_RATE = 25  # frames per second of a video, at most


class Envs:
    """An environment as a data set.

    num_envs: environments that are stepped together in training, in each process. epoch_frames: frames of an epoch, of
    all environments together. time_limit: maximum steps of an episode; None for the environment's own limit, or LONGEST
    if it has none. video_steps: maximum steps of the video of the best policy; 0 for no video.
    """

    def __init__(
        self, *, spec: Env, id: Name, num_envs: Size, epoch_frames: Count, time_limit: Count | None, video_steps: Index
    ) -> None:
        self.id, self.num_envs, self.epoch_frames = id, num_envs, epoch_frames
        self.time_limit, self.video_steps = time_limit, video_steps
        self.config_spec = spec

    @cached_property
    def spec(self) -> Env:
        """The environment's spec, read on first use. Raises UserError if the config's spec states something else."""
        spec = FAST[self.id].spec if self.id in FAST else read_spec(self.id)
        spec = replace(spec, goal=self.config_spec.goal)
        stated = {key: value for key, value in vars(self.config_spec).items() if value not in (None, ())}
        if spec != (wanted := replace(spec, **stated)):
            raise UserError(
                f"data.id={self.id} is {spec}, data.spec is {wanted}\n"
                "  expected the same, or data=gym, which reads it from the environment"
            )
        return spec

    def load(self, device: torch.device, channels_last: bool = False) -> None: ...

    def fitted(self) -> dict:
        """Return the spec, so that a policy can be exported without its environment.

        A network that scales its observations learns the scales itself.
        """
        return {"env": asdict(self.spec)}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Take the spec over; a checkpoint of an older version lacks it, and the environment is asked."""
        if "env" in fitted:
            self.spec = Env(**fitted["env"])

    def size(self, split: str) -> int:
        """Return the number of frames of an epoch; 0 for val and test, which are played."""
        return self.epoch_frames if split == "train" else 0

    def digest(self) -> str:
        """Return the environment's id."""
        return self.id

    def describe(self) -> str:
        return f"{self.id}, {self.num_envs} at once"

    def make(self, num: int) -> "CartPoles | VectorEnvs":
        """Make `num` environments with reset(seed), step(actions), state_dict and load_state_dict."""
        return FAST[self.id](num, self.time_limit) if self.id in FAST else VectorEnvs(self.id, num, self.time_limit)

    def transitions(self) -> tuple[list, tuple[int, int] | None]:
        """Return the transition table of the environment, and the (rows, columns) of its grid of states, if any.

        The table is [state][action] -> [(probability, next state, reward, ends)]. Raises UserError if the environment
        has none.
        """
        env = open_env(self.id).unwrapped
        if not hasattr(env, "P"):
            raise UserError(
                f"data.id={self.id} has no transition table P\n  expected data=maze, or one of Gymnasium's toy-text "
                "environments (FrozenLake-v1, CliffWalking-v1)"
            )
        shape = getattr(env, "shape", None) or (getattr(env, "nrow", 0), getattr(env, "ncol", 0))
        table = [[env.P[s][a] for a in sorted(env.P[s])] for s in sorted(env.P)]
        return table, shape if all(shape) else None

    def record_video(self, act: Callable[[np.ndarray], np.ndarray], seed: int) -> Video | str | None:
        """Play an episode; return its frames (H, W, 3), uint8, and their number per second. Needs no display.

        act: turns observations (1, features) into actions (1, ...). Returns the reason if the environment cannot be
        drawn, None if no video is wanted.
        """
        if not self.video_steps:
            return None
        from gymnasium.error import DependencyNotInstalled

        for name, value in SILENT.items():
            os.environ.setdefault(name, value)
        env = open_env(self.id, self.time_limit, "rgb_array")
        if env.render_mode is None:
            return f"{self.id} cannot be rendered"
        rate = env.metadata.get("render_fps", 30)
        every = max(1, round(rate / VIDEO_RATE))
        obs = env.reset(seed=seed % 2**31)[0]
        frames: list[np.ndarray] = []
        try:
            for t in range(self.video_steps):
                if t % every == 0:
                    frames.append(np.asarray(env.render()))
                obs, _, ended, limited, _ = env.step(act(vectors(env.observation_space, [obs]))[0])
                if ended or limited:
                    break
            frames.append(np.asarray(env.render()))
        except DependencyNotInstalled as missing:
            return f"{missing}; to install all that videos need: {install('video')}"
        except Exception as error:  # foreign code may raise anything, and must not cost the trained policy
            return f"{self.id} cannot be drawn: {type(error).__name__}: {error}"
        finally:
            env.close()
        return frames, rate / every


def read_spec(id: str) -> Env:
    """Read the spec of an environment from its spaces. Raises UserError if no policy of this package can play it."""
    from gymnasium.spaces import Box, Discrete

    env = open_env(id)
    obs, actions = env.observation_space, env.action_space
    env.close()
    if isinstance(obs, Discrete):
        size = int(obs.n)
    elif isinstance(obs, Box) and len(obs.shape) == 1:
        size = obs.shape[0]
    else:
        images = "images, " if len(getattr(obs, "shape", None) or ()) in (2, 3) else ""
        raise UserError(
            f"data.id={id} observes {images}{obs}: expected a vector of real numbers, Box(n,), or states, "
            "Discrete(n)\n"
            f"  gymnasium.wrappers.FlattenObservation makes a vector of it: {WRAPPED}"
        )
    is_states = isinstance(obs, Discrete)
    if isinstance(actions, Discrete) and not actions.start:
        return Env((size,), int(actions.n), states=is_states)
    if not isinstance(actions, Box) or len(actions.shape) != 1 or not actions.is_bounded():
        raise UserError(
            f"data.id={id} takes {actions}: expected Discrete(n), or Box(n,) with bounds\n"
            f"  gymnasium.wrappers.TransformAction converts actions: {WRAPPED}"
        )
    return Env((size,), None, tuple(actions.low.tolist()), tuple(actions.high.tolist()), states=is_states)


def open_env(id: str, limit: int | None = None, render: str | None = None) -> "gymnasium.Env":
    """Make one environment. limit: steps of an episode, None for its own limit. render: a render mode.

    Raises UserError if there is none with that id, or if a package for it is missing.
    """
    import gymnasium
    from gymnasium import error

    module, colon, name = id.rpartition(":")
    if colon and not is_allowed(module.split(".")[0]):
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
            raise UserError(f"data.id={id}: {str(wrong).splitlines()[0]}") from None
        known = nearest(name, gymnasium.registry)
        if "/" in name and not any(each.startswith(name.split("/")[0] + "/") for each in gymnasium.registry):
            known = f": the package of {name.split('/')[0]} is missing, or must be named: data.id=package:{name}"
        raise UserError(f"data.id={id}: there is no such environment{known}\n  expected an id of gymnasium") from None
    except Exception as failure:  # foreign code may raise anything
        raise UserError(
            f"data.id={id} cannot be made: {type(failure).__name__}: {failure}\n  expected an environment that starts"
        ) from None


def vectors(space: "gymnasium.Space", obs: "ArrayLike") -> np.ndarray:
    """Return observations as float32 (N, features): vectors as they are, states one-hot."""
    from gymnasium.spaces import Discrete

    if isinstance(space, Discrete):
        return np.eye(int(space.n), dtype=np.float32)[np.asarray(obs) - int(space.start)]
    return np.array(obs, np.float32)


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
        """Start new episodes; return observations (N, features)."""
        self.seed, self.actions = seed, []
        try:
            obs = vectors(self.space, self.envs.reset(seed=seed % 2**31)[0])
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
        obs = final = vectors(self.space, obs)
        if "final_obs" in info:
            final = obs.copy()
            for i in np.flatnonzero(info["_final_obs"]):
                final[i] = vectors(self.space, [info["final_obs"][i]])[0]
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
