"""Reinforcement learning in runs: tables on the maze, environments that fail, curves in frames, workers."""

import gc
import multiprocessing
import signal
import time
from dataclasses import replace
from functools import partial
from importlib.util import find_spec

import gymnasium
import numpy as np
import pytest
import torch
from runs import assert_same, compose, rows, state, train
from test_rl import KEYS, SMALL, Echo, Toy, make_task, run
from toys import DEVICE, composed, make_update, seeded

from dlrun.clock import Clock
from dlrun.config import signatures
from dlrun.config.build import build
from dlrun.data.envs.gymnasium_env import VectorEnvs, read_spec
from dlrun.errors import UserError
from dlrun.output.folders import read_summary
from dlrun.tasks.rl.a3c import A3C
from dlrun.tasks.rl.tabular import Tabular

SGD = {"optimizer": "sgd", "lr": 1.0, "momentum": 0.0}


# Tables


@pytest.mark.thorough(but=["value_iteration"])
@pytest.mark.parametrize("model", ["value_iteration", "monte_carlo", "td0", "sarsa", "q_learning"])
def test_the_maze_has_the_books_values(model, tmp_path):
    """The book, section 14.4: 10 in (4, 3), 8 in (3, 3), 3.122 and 0.629 for going right and left in (2, 1)."""
    train(tmp_path, compose(f"model={model}", "trainer.device=cpu"))
    table = state(tmp_path)["state_dict"]["weight"].T
    values = table.max(1).values.tolist()
    right, left = (-1 + 0.9 * values[10], -1 + 0.9 * values[8]) if model == "td0" else table[9, [1, 3]].tolist()
    assert (values[3], values[2], values[9]) == pytest.approx((10, 8, 3.122), abs=1e-3)
    assert (right, left) == pytest.approx((3.122, 0.629), abs=1e-3)


@pytest.mark.thorough
def test_a_table_is_drawn_and_reported(tmp_path):
    train(tmp_path, compose("model=td0", "trainer.epochs=6", "trainer.device=cpu"), finish=True)
    test = read_summary(tmp_path)["test"]
    assert test["values"][9] == pytest.approx([1.8098, 3.122, 1.8098, 0.6288], abs=1e-3)
    assert 10 - 5 <= test["test/return"] <= 10 - 1 and test["test/length"] == pytest.approx(11 - test["test/return"])
    assert {p.name for p in (tmp_path / "plots").iterdir()} >= {"value.png", "policy.png", "video.gif"}


@pytest.mark.thorough
@pytest.mark.parametrize("model", ["td0", "sarsa"])
def test_tables_resume_to_the_bit(model, tmp_path):
    config = compose(f"model={model}", "trainer.epochs=3", "data.epoch_frames=1500", "trainer.device=cpu")
    train(tmp_path / "a", config)
    assert train(tmp_path / "b", config, signals={3: signal.SIGTERM}).reason == "signal"
    assert state(tmp_path / "b")["clock"]["step"] == 4
    train(tmp_path / "b", config, resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_value_iteration_on_slippery_ice():
    data = build(composed("data=gym", "data.id=FrozenLake-v1")["data"])
    keys = {k: v for k, v in composed("model=value_iteration")["task"].items() if k != "_target_"}
    net, update = build(composed("model=value_iteration")["model"])(data.spec), partial(make_update, **SGD)
    task = Tabular(net, data.spec, DEVICE, update, **keys)
    with seeded():
        run(task, data, 1)
    table, values = data.transitions()[0], np.zeros(16)
    for _ in range(200):
        q = [[sum(p * (r + 0.9 * values[n] * (not end)) for p, n, r, end in o) for o in state] for state in table]
        values = np.max(q, 1)
    assert values[0] > 0
    assert task.net.weight.T.max(1).values.tolist() == pytest.approx(values.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=td0", "model.values=actions"], "model.values=states"),
        (["model=sarsa", "data=gym", "data.id=Pendulum-v1"], "needs discrete actions"),
        (["model=value_iteration", "data=cartpole"], r"needs states, and the data is Env\(obs=4, actions=2\)"),
        (["model=q_learning", "data=gym"], r"needs states, and the data is Env\(obs=6, actions=3\)"),
    ],
)
def test_tables_that_do_not_fit_are_refused(overrides, words):
    from dlrun.train.session import Session

    with pytest.raises(UserError, match=words):
        Session(*compose(*overrides, "trainer.device=cpu"))


# Environments, some of which fail


@pytest.fixture
def broken():
    """An environment whose 150th step fails: it raises, or returns NaN."""

    class Broken(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Discrete(2)
        fail, steps = "", 0

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            Broken.steps += 1
            if Broken.steps == 150 and Broken.fail == "raised":
                raise ZeroDivisionError("the wheel came off")
            nan = Broken.steps == 150
            return np.full(2, np.nan if nan else 0, np.float32), 1.0, Broken.steps % 5 == 0, False, {}

    gymnasium.register("Broken-v0", Broken, disable_env_checker=True)
    yield Broken
    del gymnasium.registry["Broken-v0"]


@pytest.mark.parametrize(
    ("fail", "words"), [("raised", "ZeroDivisionError: the wheel came off, in"), ("gave", "a number .* not finite, in")]
)
def test_an_environment_that_fails_leaves_the_checkpoint(broken, fail, words, tmp_path):
    broken.fail = fail
    config = compose(
        "model=ppo", "data=gym", "data.id=Broken-v0", "data.epoch_frames=128", "data.num_envs=4", "task.num_steps=8",
        "task.minibatch=32", "task.eval_episodes=2", "trainer.device=cpu", "trainer.checkpoint_every_steps=1",
    )  # fmt: skip
    with pytest.raises(UserError, match=f"Broken-v0 {fail} {words} step [0-9]+ after its start") as error:
        train(tmp_path, config)
    assert (
        "the checkpoints saved earlier are whole: resume with dl-run resume=" in str(error.value)
        and error.value.exit_code == 1
    )
    assert state(tmp_path)["clock"]["step"] >= 3 and read_summary(tmp_path)["status"] == "failed"


def test_the_users_own_environment_trains(tmp_path, monkeypatch):
    """It is in a package that DL_RUN_ALLOW names; its mistakes are reported."""
    (tmp_path / "myenvs.py").write_text(
        "import gymnasium, numpy as np\n"
        "class Own(gymnasium.Env):\n"
        "    observation_space, action_space = gymnasium.spaces.Box(-1, 1, (3,)), gymnasium.spaces.Discrete(2)\n"
        "    def __init__(self, fail=False, nan=False):\n"
        "        self.nan = nan\n"
        "        if fail: raise ValueError('no such road')\n"
        "    def reset(self, seed=None, options=None): return np.full(3, np.nan if self.nan else 0, np.float32), {}\n"
        "    def step(self, action): return np.zeros(3, np.float32), 1.0, True, False, {}\n"
        "gymnasium.register('Own-v0', Own, max_episode_steps=9)\n"
        "gymnasium.register('Fails-v0', Own, kwargs={'fail': True})\n"
        "gymnasium.register('Nan-v0', Own, kwargs={'nan': True}, disable_env_checker=True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(signatures, "ALLOWED", {"myenvs"})
    assert read_spec("myenvs:Own-v0").obs == (3,)
    assert VectorEnvs("myenvs:Own-v0", 2).reset(0).shape == (2, 3)
    with pytest.raises(UserError, match="Fails-v0 cannot be made: ValueError: no such road"):
        read_spec("myenvs:Fails-v0")
    with pytest.raises(UserError, match="Nan-v0 gave a number that is not finite, in step 0"):
        VectorEnvs("myenvs:Nan-v0", 2).reset(0)
    with pytest.raises(UserError, match="the package of ALE is missing, or must be named"):
        read_spec("ALE/Pong-v5")
    with pytest.raises(UserError, match=r"Acrobot-v1 is .*, data.spec is .*\n  expected the same, or"):
        _ = build(compose("model=ppo", "data=cartpole", "data.id=Acrobot-v1")[0]["data"]).spec


@pytest.mark.parametrize("gamma", ["1.1", "-0.1"])
def test_gamma_out_of_range_is_refused(gamma):
    with pytest.raises(UserError, match=rf"task.gamma={gamma}: expected a number in \[0, 1\]"):
        compose("model=ppo", f"task.gamma={gamma}")


# What a run leaves


def test_curves_are_drawn_over_frames(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = compose("model=reinforce", *SMALL)
    train(tmp_path, config, signals={3: signal.SIGINT})
    train(tmp_path, config, resumed=True)
    epochs = [row["samples"] for row in rows(tmp_path) if "val/return" in row]
    steps = [row["samples"] for row in rows(tmp_path) if "step/return" in row]
    board = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {point.step for point in board.Scalars("val/return")} == set(epochs)
    assert {point.step for point in board.Scalars("step/return")} == set(steps) and len(steps) > 1
    assert epochs[1] >= 512 > epochs[0] >= 256


def test_sampled_actions_can_be_evaluated():
    with seeded():
        data = Toy()
        for model in ("ppo", "dqn"):
            task = make_task(model, data, "task.greedy=false", "task.eval_episodes=20")
            if model == "dqn":
                task.epsilons = 0.0, 0.5, 0.0
            found = task.evaluate(data, "val")
            task.greedy = True
            assert found != task.evaluate(data, "val")
            task.greedy = False
            assert found == task.evaluate(data, "val") and len(task.play(data, 7, seed=3)) == 7


def test_a_run_has_all_its_files(tmp_path):
    config = compose("model=ppo", *SMALL, *KEYS["ppo"], "trainer.epochs=4", "trainer.stop_at=10", "data.video_steps=20")
    assert train(tmp_path, config, finish=True).reason == "stop_at"
    plots = {p.name for p in (tmp_path / "plots").iterdir()}
    assert plots >= {"return.png", "length.png"} and "return_std.png" not in plots
    log = (tmp_path / "run.log").read_text()
    can_render = find_spec("pygame") is not None  # of the extra `video`
    assert ("video.gif" in plots, "gymnasium[classic-control]" in log) == (can_render, not can_render)
    assert f"data    cartpole: {config[0]['data']['epoch_frames']:,} frames an epoch; CartPole-v1, " in log
    assert (
        read_summary(tmp_path)["stopped_by"] == "stop_at" and len([r for r in rows(tmp_path) if "val/return" in r]) == 1
    )


# Workers


def wait_for_the_end_of(processes):
    gc.collect()  # the workers' pipes are in a cycle of references
    started = time.monotonic()
    while any(process.is_alive() for process in processes) and time.monotonic() - started < 20:
        time.sleep(0.05)
    return not any(process.is_alive() for process in processes)


def test_workers_learn_pause_and_end(tmp_path):
    """A signal stops a run of A3C and everything learned is saved; it resumes; no process is left."""
    deep = "model.hidden=[8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8,8]"  # 304 shared tensors: a start takes 256 at most
    config = compose("model=a3c", *SMALL, deep)
    assert train(tmp_path, config, signals={4: signal.SIGTERM}).reason == "signal"
    saved = state(tmp_path)
    assert saved["clock"]["step"] == 5
    assert saved["components"]["update"]["optimizer"]["state"][0]["step"] >= 5  # and updates that were under way
    assert train(tmp_path, compose("model=a3c", *SMALL, deep, "task.workers=1"), resumed=True).reason == "finished"
    assert state(tmp_path)["clock"]["samples"] >= 512
    assert wait_for_the_end_of(multiprocessing.active_children())


@pytest.mark.thorough
def test_a_worker_that_dies_is_reported():
    with seeded():
        data = Toy()
        task = make_task("a3c", data, "task.workers=1")
        batches = task.batches(data, Clock(0, 1, task.steps(data), None, data.epoch_frames))
        next(batches)
        workers = multiprocessing.active_children()
        workers[0].kill()
        with pytest.raises(UserError, match="a worker process of A3C was killed"):
            for _ in range(100):
                next(batches)
        batches.close()
        del batches, task
        assert wait_for_the_end_of(workers)


def test_workers_need_the_cpu_and_plain_weights():
    net = build(composed("model=a3c")["model"])(Echo.spec)
    keys = {k: v for k, v in composed("model=a3c")["task"].items() if k != "_target_"}
    with pytest.raises(UserError, match="expected trainer.device=cpu"):
        A3C(net, Echo.spec, replace(DEVICE, torch_device=torch.device("meta")), make_update, **keys)
    with pytest.raises(UserError, match="trainer.ema=0.5 with A3C"):
        A3C(net, Echo.spec, DEVICE, partial(make_update, ema=0.5), **keys)
