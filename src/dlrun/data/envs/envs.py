"""Environments as a data set, by their Gymnasium id. An epoch is a number of frames."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cached_property, partial

import numpy as np
import torch

from dlrun.config.extras import install
from dlrun.data.base import VectorEnv, Video
from dlrun.data.envs.breakout import Breakouts
from dlrun.data.envs.cartpole import CartPoles
from dlrun.data.envs.frames import Frames, Sight
from dlrun.data.envs.gymnasium_env import VectorEnvs, as_arrays, open_env, read_spec
from dlrun.errors import UserError
from dlrun.spec import Env
from dlrun.types import Count, FrameStack, Index, Name, Pixels, Size

FAST: dict[str, type[CartPoles] | type[Breakouts]] = {"CartPole-v1": CartPoles, "SmallBreakout-v0": Breakouts}
SILENT = {"SDL_VIDEODRIVER": "dummy", "SDL_AUDIODRIVER": "dummy", "PYGAME_HIDE_SUPPORT_PROMPT": "1"}  # for pygame
VIDEO_RATE = 25  # frames per second of a video, at most


class Envs:
    """An environment as a data set.

    spec: of one observation. num_envs: environments that are stepped together in training, in each process.
    epoch_frames: frames of an epoch, of all environments together. time_limit: maximum steps of an episode; None for
    the environment's own limit, or LONGEST if it has none. video_steps: maximum steps of the video of the best policy;
    0 for no video. frame_stack, pixels: see Sight.
    """

    def __init__(
        self,
        *,
        spec: Env,
        id: Name,
        num_envs: Size,
        epoch_frames: Count,
        time_limit: Count | None,
        video_steps: Index,
        frame_stack: FrameStack,
        pixels: Pixels | None,
    ) -> None:
        self.id, self.num_envs, self.epoch_frames = id, num_envs, epoch_frames
        self.time_limit, self.video_steps = time_limit, video_steps
        self.config_spec, self.sight = spec, Sight(pixels, frame_stack)

    @cached_property
    def spec(self) -> Env:
        """The spec of what a network sees, read on first use. Raises UserError if the config's spec is another."""
        spec = FAST[self.id].spec if self.id in FAST else read_spec(self.id)
        spec = replace(spec, goal=self.config_spec.goal)
        stated = {key: value for key, value in vars(self.config_spec).items() if value not in (None, ())}
        if spec != (wanted := replace(spec, **stated)):
            raise UserError(
                f"data.id={self.id} is {spec}, data.spec is {wanted}\n"
                "  expected the same, or data=gym, which reads it from the environment"
            )
        return self.sight.spec_of(spec, self.id)

    def load(self, device: torch.device, channels_last: bool = False) -> None: ...

    def fitted(self) -> dict:
        """Return the spec, so that a policy can be exported without its environment.

        A network that scales its observations learns the scales itself.
        """
        return {"env": asdict(self.spec)}

    def restore(self, fitted: dict, device: torch.device, channels_last: bool = False) -> None:
        """Take the spec from the checkpoint; older checkpoints lack it, and the spec is read from the environment."""
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

    def make(self, num: int) -> VectorEnv:
        """Make `num` environments with reset(seed), step(actions), state_dict and load_state_dict."""
        envs: VectorEnv = (FAST.get(self.id) or partial(VectorEnvs, self.id))(num, self.time_limit)
        return Frames(envs, self.sight) if self.sight.changes else envs

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

        act: turns what is seen (1, ...) into actions (1, ...). Returns the reason if the environment cannot be
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
        seen = self.sight.first(as_arrays(env.observation_space, [env.reset(seed=seed % 2**31)[0]]))
        frames: list[np.ndarray] = []
        try:
            for t in range(self.video_steps):
                if t % every == 0:
                    frames.append(np.asarray(env.render()))
                obs, _, ended, limited, _ = env.step(act(seen)[0])
                seen = self.sight.next(seen, as_arrays(env.observation_space, [obs]))
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
