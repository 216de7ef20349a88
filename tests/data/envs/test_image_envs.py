"""Environments with images: the small Breakout, frames in grey, small and stacked, Gymnasium's images."""

import gymnasium
import numpy as np
import pytest
from runs import compose
from toys import composed

from dlrun.config.build import build
from dlrun.data.envs.breakout import BALL, BAR, BRICK, Breakouts
from dlrun.data.envs.cartpole import CartPoles
from dlrun.data.envs.frames import Frames, Sight
from dlrun.data.envs.gymnasium_env import VectorEnvs, open_env, read_spec
from dlrun.errors import UserError
from dlrun.spec import Env
from dlrun.train.session import Session

STAY, LEFT, RIGHT = np.array([0]), np.array([1]), np.array([2])


def placed(ball, move, paddle=4):
    """A game with its ball at (row, column), which has just moved by `move`."""
    game = Breakouts(1)
    game.reset(0)
    game.ball[:, 0], game.move[:, 0], game.paddle[:] = ball, move, paddle
    return game


# Breakout


@pytest.mark.parametrize(
    ("ball", "move", "after", "then"),
    [
        ((5, 5), (1, 1), (6, 6), (1, 1)),
        ((5, 0), (1, -1), (6, 0), (1, 1)),
        ((5, 9), (-1, 1), (4, 9), (-1, -1)),
        ((8, 3), (1, 1), (8, 4), (-1, -1)),  # the paddle's left cell
        ((8, 6), (1, -1), (8, 5), (-1, 1)),  # its right cell
        ((4, 2), (-1, 1), (4, 3), (1, 1)),  # a brick
    ],
)
def test_the_ball_is_thrown_back_by_walls_paddle_and_bricks(ball, move, after, then):
    game = placed(ball, move)
    _, reward, ended, limited, _ = game.step(STAY)
    assert (tuple(game.ball[:, 0]), tuple(game.move[:, 0])) == (after, then)
    is_brick = ball == (4, 2)
    assert reward[0] == is_brick and game.bricks.sum() == 30 - is_brick and not ended[0] and not limited[0]


def test_a_missed_ball_ends_the_game_and_the_ceiling_throws_back():
    game = placed((8, 0), (1, 1), paddle=5)
    _, _, ended, _, final = game.step(LEFT)
    assert ended[0] and final[0, 0, 9].tolist() == [0, BALL, 0, 0, BAR, BAR, 0, 0, 0, 0]
    assert game.ball[0, 0] == 4 and game.ages[0] == 0 and game.bricks.all(), "a new game"
    game = placed((0, 5), (-1, 1))
    game.bricks[:] = False
    game.step(STAY)
    assert tuple(game.ball[:, 0]) == (0, 6) and game.move[0, 0] == 1
    game = placed((8, 3), (1, 1))
    game.bricks[:] = False
    game.step(STAY)
    assert game.bricks.all(), "a new wall, when the ball is at the paddle"


def test_the_picture_shows_bricks_ball_and_paddle():
    image = placed((6, 2), (1, 1)).draw()
    assert image.shape == (1, 1, 10, 10) and image.dtype == np.uint8
    assert (image[0, 0, 1:4] == BRICK).all() and image[0, 0, 6, 2] == BALL and (image[0, 0, 9, 4:6] == BAR).all()
    assert (image > 0).sum() == 30 + 1 + 2


def test_games_do_not_touch_each_other_and_end_at_the_limit():
    many, random = Breakouts(7), np.random.default_rng(0)
    many.reset(3)
    ones = [Breakouts(1) for _ in range(7)]
    for k, one in enumerate(ones):
        one.reset(0)
        for name in ("ball", "move"):
            getattr(one, name)[:] = getattr(many, name)[:, [k]]
    alive = np.ones(7, bool)
    for _ in range(60):
        actions = random.integers(3, size=7)
        _, rewards, terminated, _, final = many.step(actions)
        for k in np.flatnonzero(alive):
            _, reward, ended, _, mine = ones[k].step(actions[[k]])
            assert reward[0] == rewards[k] and ended[0] == terminated[k] and (mine[0] == final[k]).all()
        alive &= ~terminated
    game = placed((5, 5), (1, 1))
    game.ages[:] = 499
    assert game.step(STAY)[3][0] and Breakouts(1, 7).limit == 7


def test_gymnasiums_form_plays_the_same_game():
    assert read_spec("SmallBreakout-v0") == Breakouts.spec == build(composed("data=breakout")["data"]).config_spec
    env = open_env("SmallBreakout-v0", render="rgb_array")
    obs, _ = env.reset(seed=1)
    game, total, limited = env.unwrapped.game, 0.0, False
    while not limited:  # the paddle follows the ball
        column = (game.ball[1, 0] + game.move[1, 0]).clip(0, 9)
        place = column - game.paddle[0]
        obs, reward, ended, limited, _ = env.step(1 if place < 0 else 2 if place > 1 else 0)
        total += reward
        assert not ended and (obs == game.draw()[0, 0]).all()
    assert total > 30 and env.render().shape == (200, 200, 3)


# Frames


class Counting:
    """Observations are the number of the step; an episode has 3 steps."""

    def reset(self, seed):
        self.t = 0
        return np.full((2, 1, 1, 1), 0, np.uint8)

    def step(self, actions):
        self.t += 1
        done = np.array([self.t % 3 == 0, False])
        final = np.full((2, 1, 1, 1), self.t, np.uint8)
        obs = final.copy()
        obs[done] = 100
        return obs, np.zeros(2, np.float32), done, np.zeros(2, bool), final


def test_frames_are_stacked_and_start_anew_with_an_episode():
    envs = Frames(Counting(), Sight(None, 3))
    assert envs.reset(0).reshape(2, 3).tolist() == [[0, 0, 0], [0, 0, 0]]
    seen = [envs.step(None) for _ in range(4)]
    assert [step[0].reshape(2, 3).tolist() for step in seen] == [
        [[0, 0, 1], [0, 0, 1]],
        [[0, 1, 2], [0, 1, 2]],
        [[100, 100, 100], [1, 2, 3]],
        [[100, 100, 4], [2, 3, 4]],
    ]
    assert seen[2][4].reshape(2, 3).tolist() == [[1, 2, 3], [1, 2, 3]], "before the reset"


def test_images_become_grey_and_small():
    colours = np.zeros((1, 3, 4, 4), np.uint8)
    colours[0, 0, :2, :2], colours[0, 1, 2:], colours[0, :, :2, 2:] = 100, 200, 255
    assert Sight(2, 1).one(colours)[0, 0].tolist() == [[30, 255], [117, 117]]
    assert Sight(8, 2).first(colours).shape == (1, 2, 8, 8)
    many = Sight(2, 1).one(np.full((1, 5, 4, 4), 50, np.uint8))
    assert many.shape == (1, 1, 2, 2) and (many == 50).all()


def test_stacked_environments_continue_from_their_state():
    data = build(composed("data=breakout", "data.frame_stack=3"))["data"]
    envs, other, random = data.make(4), data.make(4), np.random.default_rng(0)
    envs.reset(5)
    for _ in range(30):
        envs.step(random.integers(3, size=4))
    other.load_state_dict(envs.state_dict())
    for _ in range(30):
        actions = random.integers(3, size=4)
        for mine, theirs in zip(envs.step(actions), other.step(actions), strict=True):
            assert (mine == theirs).all()


def test_vectors_are_stacked_too():
    data = build(composed("data=cartpole", "data.frame_stack=2"))["data"]
    assert data.spec.obs == (8,) and isinstance(build(composed("data=cartpole"))["data"].make(1), CartPoles)
    assert data.make(3).reset(0).shape == (3, 8)


# Gymnasium's images


@pytest.fixture
def camera():
    """Registers an environment whose observations have this shape and type."""

    def register(shape, dtype=np.uint8, high=255):
        class Camera(gymnasium.Env):
            observation_space = gymnasium.spaces.Box(0, high, shape, dtype)
            action_space = gymnasium.spaces.Discrete(2)

            def reset(self, *, seed=None, options=None):
                return np.full(shape, high, dtype), {}

            def step(self, action):
                return np.full(shape, high, dtype), 1.0, False, False, {}

        gymnasium.register("Camera-v0", Camera, max_episode_steps=5)

    yield register
    gymnasium.registry.pop("Camera-v0", None)


@pytest.mark.parametrize(
    ("shape", "dtype", "obs"),
    [
        ((12, 16), np.uint8, (1, 12, 16)),
        ((12, 16, 3), np.uint8, (3, 12, 16)),
        ((10, 10, 10), np.bool_, (10, 10, 10)),
        ((4, 84, 84), np.uint8, (4, 84, 84)),
    ],
)
def test_images_of_any_layout_are_read(camera, shape, dtype, obs):
    camera(shape, dtype, 1 if dtype is np.bool_ else 255)
    assert read_spec("Camera-v0") == Env(obs, 2, states=False)
    envs = VectorEnvs("Camera-v0", 2)
    first, second = envs.reset(0), envs.step(np.zeros(2, int))[0]
    assert first.dtype == np.uint8 and first.shape == (2, *obs) and first.flags.c_contiguous
    assert (first == 255).all() and (second == 255).all()
    data = build(composed("data=gym", "data.id=Camera-v0", "data.pixels=8", "data.frame_stack=4"))["data"]
    assert data.spec.obs == (4, 8, 8) and (data.make(2).reset(0) == 255).all()


def test_real_pixels_are_refused(camera):
    camera((12, 16, 3), np.float32)
    with pytest.raises(UserError, match=r"(?s)observes images, Box.*expected .* images of whole numbers.*FlattenOb"):
        read_spec("Camera-v0")


# Settings


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (
            ["data=cartpole", "data.pixels=84"],
            r"data.pixels=84 is the size of images, and data.id=CartPole-v1 observes",
        ),
        (
            ["data=maze", "data.frame_stack=2"],
            r"(?s)data.frame_stack=2 with data.id=Maze-v0.*expected data.frame_stack=1",
        ),
        (["data=cartpole", "model.convolutions=[[8,3,1]]"], r"(?s)take images.*expected model.convolutions=\[\]"),
        (["data=breakout", "model.convolutions=[[8,8,1],[8,4,1]]"], r"(?s)a kernel of 4 on 3x3 .*images of 10x10"),
        (["data=breakout", "data.spec.obs=[4,10,10]"], r"(?s)data.spec is .*expected the same"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides, words):
    with pytest.raises(UserError, match=words):
        Session(*compose("model=dqn", *overrides, "trainer.device=cpu"))


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("data.frame_stack=0", r"an integer in \[1, 32\]"),
        ("data.frame_stack=1000000", r"an integer in \[1, 32\]"),
        ("data.pixels=4", r"an integer in \[8, 512\] or null"),
        ("model.convolutions=[16]", "a list of lists of 3"),
        ("model.convolutions=[[16,3]]", "a list of lists of 3"),
        ("model.convolutions=[[16,3,0]]", r"integer in \[1, 1000\]"),
        ("data.spec.obs=[10,10]", "a list of 1"),
    ],
)
def test_values_out_of_range_are_refused(key, words):
    with pytest.raises(UserError, match=words):
        compose("model=dqn", "data=breakout", key)
