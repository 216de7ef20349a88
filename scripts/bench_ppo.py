"""CartPole by Stable-Baselines3's PPO with its zoo's settings (100,000 frames). Print seconds, frames, whether solved.

bench_ppo.py SEED

Evaluated as in dl-run: after every 10,240 frames, by 100 greedy episodes played at once; stops at a mean return of 475.
The time includes evaluation.
"""

import json
import sys
import time

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from dlrun.data.envs.cartpole import CartPoles

FRAMES, EVERY, EPISODES, GOAL = 100_000, 10_240, 100, 475


def falling(start: float) -> object:
    return lambda left: left * start


class Judge(BaseCallback):
    """Stop the training when the environment is solved."""

    solved = False

    def _on_step(self) -> bool:
        if self.num_timesteps % EVERY == 0:
            self.solved = greedy_return(self.model) >= GOAL
        return not self.solved


def greedy_return(model: PPO) -> float:
    envs = CartPoles(EPISODES)
    obs, alive, total = envs.reset(0), np.ones(EPISODES, bool), np.zeros(EPISODES)
    while alive.any():
        obs, rewards, terminated, truncated, _ = envs.step(model.predict(obs, deterministic=True)[0])
        total += rewards * alive
        alive &= ~(terminated | truncated)
    return total.mean()


def main() -> None:
    settings = {"n_steps": 32, "batch_size": 256, "n_epochs": 20, "gamma": 0.98, "gae_lambda": 0.8, "ent_coef": 0.0}
    env, seed = make_vec_env("CartPole-v1", n_envs=8, seed=int(sys.argv[1])), int(sys.argv[1])
    model = PPO(
        "MlpPolicy", env, **settings, learning_rate=falling(0.001), clip_range=falling(0.2), seed=seed, device="cpu"
    )
    judge, started = Judge(), time.perf_counter()
    model.learn(FRAMES, callback=judge)
    seconds = time.perf_counter() - started
    print(json.dumps({"seconds": seconds, "frames": model.num_timesteps, "solved": bool(judge.solved)}))


if __name__ == "__main__":
    main()
