"""Environments: CartPole against Gymnasium's, states and limits, specs from spaces, what cannot be used, videos."""

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from runs import compose
from toys import composed

from dlrun.config.build import build
from dlrun.data.envs.cartpole import CartPoles
from dlrun.data.envs.gymnasium_env import VectorEnvs, read_spec
from dlrun.errors import DataError, UserError
from dlrun.spec import Env
from dlrun.tasks.rl.collector import scale_actions


def test_cartpoles_move_as_gymnasiums():
    envs, env, random = CartPoles(3), gymnasium.make("CartPole-v1").unwrapped, np.random.default_rng(0)
    envs.reset(0)
    env.reset(seed=0)
    for _ in range(200):
        env.state, actions, ages = tuple(envs.state[:, 1]), random.integers(2, size=3), envs.ages[1]
        obs, reward, ended, *_ = env.step(int(actions[1]))
        env.steps_beyond_terminated = None
        _, rewards, terminated, truncated, final = envs.step(actions)
        assert (final[1] == obs).all() and rewards[1] == reward and terminated[1] == ended
        assert envs.ages[1] == (0 if ended else ages + 1) and not truncated.any()


def test_a_time_limit_is_not_a_terminal_state():
    envs = CartPoles(2)
    envs.reset(0)
    envs.ages[:], envs.state[:] = 499, 0
    envs.state[0, 1] = 3.0
    obs, _, terminated, truncated, final = envs.step(np.array([0, 1]))
    assert terminated.tolist() == [False, True] and truncated.tolist() == [True, False]
    assert envs.ages.tolist() == [0, 0] and (np.abs(obs) <= 0.05).all() and final[1, 0] > 2.4


@pytest.mark.parametrize("envs", [CartPoles(2), VectorEnvs("CartPole-v1", 2)], ids=["numpy", "gymnasium"])
def test_environments_continue_from_their_state(envs):
    random = np.random.default_rng(0)
    envs.reset(5)
    for _ in range(60):
        envs.step(random.integers(2, size=2))
    saved = envs.state_dict()
    other = CartPoles(2) if isinstance(envs, CartPoles) else VectorEnvs("CartPole-v1", 2)
    other.load_state_dict(saved)
    for _ in range(60):
        actions = random.integers(2, size=2)
        for mine, theirs in zip(envs.step(actions), other.step(actions), strict=True):
            assert (mine == theirs).all()


def test_gymnasiums_final_observation_is_the_one_before_the_reset():
    envs = VectorEnvs("CartPole-v1", 1)
    envs.reset(0)
    while True:
        obs, _, terminated, _, final = envs.step(np.array([1]))
        if terminated.any():
            break
        assert obs is final
    assert abs(final[0, 2]) > 0.2 and (np.abs(obs) <= 0.05).all()


def test_specs_are_read_from_the_spaces():
    assert read_spec("Acrobot-v1") == Env((6,), 3, states=False)
    assert read_spec("Pendulum-v1") == Env((3,), None, (-2.0,), (2.0,), states=False)
    assert read_spec("FrozenLake-v1") == Env((16,), 4, states=True)
    assert read_spec("CartPole-v1") == replace(build(composed("data=cartpole")["data"]).spec, goal=None, states=False)
    assert scale_actions(read_spec("Pendulum-v1"), np.array([[0.0], [0.5], [7.0]])).ravel().tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("id", "words"),
    [
        ("CartPol-v1", "did you mean 'CartPole-v1'"),
        ("Blackjack-v1", "expected a vector"),
        ("os:CartPole-v1", "would import 'os', which a config must not"),
        ("LunarLander-v3", r"(?s)not installed.*gymnasium\[box2d\]"),
    ],
)
def test_environments_that_cannot_be_used_are_refused(id, words):
    if id == "LunarLander-v3":
        pytest.importorskip("gymnasium")
        if __import__("importlib").util.find_spec("Box2D"):
            pytest.skip("Box2D is there")
    with pytest.raises(UserError, match=words):
        read_spec(id)


def test_an_environment_that_gives_nan_is_reported(monkeypatch):
    envs = VectorEnvs("Pendulum-v1", 2)
    envs.reset(0)
    step = envs.envs.step
    monkeypatch.setattr(envs.envs, "step", lambda a: (step(a)[0] * np.nan, *step(a)[1:]))
    with pytest.raises(DataError, match="Pendulum-v1 gave a number that is not finite, in step 1 after its start"):
        envs.step(np.zeros((2, 1), np.float32))


@pytest.mark.parametrize("id", ["CartPole-v1", "CliffWalking-v1"])
def test_episodes_end_at_a_time_limit(id):
    data = build(composed("data=gym", f"data.id={id}", "data.time_limit=5"))["data"]
    envs = data.make(2)
    envs.reset(0)
    for _ in range(5):
        _, _, terminated, truncated, _ = envs.step(np.array([0, 1]))
    assert truncated.all() and not terminated.any()


def test_an_environment_without_a_limit_gets_one():
    envs = build(composed("data=gym", "data.id=CliffWalking-v1"))["data"].make(1)
    assert envs.envs.envs[0].get_wrapper_attr("_max_episode_steps") == 10_000


def test_images_are_refused_by_name():
    class Camera(gymnasium.Env):
        observation_space, action_space = gymnasium.spaces.Box(0, 255, (96, 96, 3)), gymnasium.spaces.Discrete(2)

    gymnasium.register("Camera-v0", Camera)
    with pytest.raises(UserError, match=r"data.id=Camera-v0 observes images, Box.*expected a vector"):
        read_spec("Camera-v0")
    del gymnasium.registry["Camera-v0"]


def test_other_spaces_are_refused_with_the_wrapper_that_flattens_them():
    spaces = gymnasium.spaces
    vector, two = spaces.Box(-1, 1, (3,)), spaces.Discrete(2)
    for obs, actions, wrapper in (
        (spaces.Dict(a=vector), two, "FlattenObservation"),
        (spaces.MultiDiscrete([2, 3]), two, "FlattenObservation"),
        (spaces.Sequence(vector), two, "TransformObservation"),  # of any length, so that no vector can hold it
        (vector, spaces.MultiDiscrete([2, 3]), "TransformAction"),
    ):

        class Odd(gymnasium.Env):
            observation_space, action_space = obs, actions

        gymnasium.register("Odd-v0", Odd)
        with pytest.raises(
            UserError, match=rf"data.id=Odd-v0 (?s:.*)gymnasium.wrappers.{wrapper} .*\n.* DL_RUN_ALLOW="
        ):
            read_spec("Odd-v0")
        assert hasattr(gymnasium.wrappers, wrapper)
        del gymnasium.registry["Odd-v0"]


@pytest.mark.parametrize(
    ("data", "key"),
    [("cartpole", "obs=[1]"), ("cartpole", "actions=3"), ("cartpole", "states=true"), ("gym", "low=[0]")],
)
def test_a_spec_that_contradicts_the_environment_is_refused(data, key):
    with pytest.raises(UserError, match=r"data.id=.* is .*, data.spec is .*\n  expected the same, or data=gym"):
        _ = build(compose("model=ppo", f"data={data}", f"data.spec.{key}")[0]["data"]).spec


def test_the_video_shows_one_episode():
    data = build(composed("data=maze")["data"])
    frames, rate = data.record_video(lambda obs: np.array([1]), seed=1)  # to the right, where nothing or an end is
    assert rate == 4 and 2 <= len(frames) <= 41 and frames[0].shape == (180, 240, 3)
    assert (frames[0][90, 90] == 0).all() and (frames[0] != frames[-1]).any()
    data.video_steps = 0
    assert data.record_video(None, 0) is None
