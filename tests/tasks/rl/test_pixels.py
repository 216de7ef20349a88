"""Policies that see images: networks, runs that resume to the bit, sweeps as one network, what a run leaves."""

import json
import signal

import numpy as np
import pytest
import torch
from finished_runs import trained
from runs import assert_same, compose, state, train
from test_rl import KEYS, make_task
from toys import composed

from dlrun.api.modules import full, guarded
from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.runs.export import drawn, samples_of
from dlrun.spec import Env
from dlrun.tasks.rl.figures import episodes_figure, observations_figure
from dlrun.tasks.rl.replay import Replay
from dlrun.train.finished import FinishedRun

SPEC = Env((4, 10, 10), 3, states=False)
SMALL = ["data=breakout", "data.epoch_frames=256", "data.num_envs=4", "trainer.epochs=2", "trainer.checkpoint_gap=0",
         "model.hidden=[8]", "model.convolutions=[[4,3,2]]", "task.eval_episodes=3", "trainer.device=cpu",
         "data.video_steps=0"]  # fmt: skip


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("model", ["dqn", "dueling_dqn", "ppo"])
def test_images_are_scaled_or_normalised_before_the_convolutions(model, normalise):
    keys = ["model.convolutions=[[16,3,1],[8,4,2]]", f"model.normalise={normalise}".lower()]
    net = build(composed(f"model={model}", *keys)["model"])(SPEC)
    pixels = torch.randint(256, (5, 4, 10, 10), dtype=torch.uint8)
    net.observe(pixels)
    outputs = net(pixels)[0] if model == "ppo" else net(pixels)
    assert outputs.shape == (5, 3)
    trunk = net.trunk if model == "ppo" else net[1]
    convolutions = [layer for layer in trunk if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [16, 8] and trunk[5].in_features == 8 * 3 * 3
    first = (net.norm if model == "ppo" else net[0])(pixels)
    if normalise:
        assert first.mean(0).abs().max() < 1e-5
    else:
        assert torch.equal(first, pixels / 255)


def test_images_without_convolutions_become_vectors():
    net = build(composed("model=dqn", "model.hidden=[7]")["model"])(SPEC)
    assert net(torch.zeros(2, 4, 10, 10, dtype=torch.uint8)).shape == (2, 3) and net[1][1].in_features == 400


def test_the_replay_buffer_keeps_bytes():
    replay = Replay(SPEC, 3, torch.device("cpu"))
    obs = np.random.default_rng(0).integers(256, size=(2, 4, 10, 10), dtype=np.uint8)
    no = np.zeros(2, bool)
    replay.add(obs=obs, actions=no.astype(int), rewards=no.astype(np.float32), next_obs=obs, terminated=no)
    assert replay.columns["obs"].dtype == torch.uint8 and (replay.columns["next_obs"][:2].numpy() == obs).all()


@pytest.mark.parametrize("model", ["dqn", "ppo", pytest.param("reinforce_baseline", marks=pytest.mark.thorough),
                                   pytest.param("trpo", marks=pytest.mark.thorough)])  # fmt: skip
def test_runs_resume_to_the_bit(model, tmp_path):
    config = compose(f"model={model}", *SMALL, *KEYS.get(model, []))
    train(tmp_path / "a", config)
    assert train(tmp_path / "b", config, signals={3: signal.SIGTERM}).reason == "signal"
    assert state(tmp_path / "b")["clock"]["batch"] > 0
    train(tmp_path / "b", config, resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_a_run_draws_what_it_saw_and_each_episode(tmp_path):
    train(tmp_path, compose("model=dqn", *SMALL, *KEYS["dqn"], "data.video_steps=20"), finish=True)
    plots = {path.name for path in (tmp_path / "plots").iterdir()}
    assert plots >= {"episodes.png", "observations.png", "video.gif"}
    history = state(tmp_path)["components"]["collector"]["episodes"]
    assert history[:, 1].sum() <= 512 and len(history) > 20
    last = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert "train/return" in last[-1]


def test_a_finished_run_takes_bytes(tmp_path):
    overrides = ["model=dqn", *SMALL, *KEYS["dqn"]]
    run = FinishedRun(trained(tmp_path / "run", overrides))
    pixels = torch.randint(256, (3, 4, 10, 10), dtype=torch.uint8)
    assert guarded(run)(pixels).shape == (3, 3) and full(run)(pixels).shape == (3,)
    assert samples_of(run, "episodes")[0].dtype == drawn(run).dtype == torch.uint8
    with pytest.raises(UserError, match="uint8"):
        guarded(run)(pixels.float())


def test_a_vector_is_not_drawn_as_an_image():
    task = make_task("ppo", build(composed("data=cartpole"))["data"])
    assert not task.report(build(composed("data=cartpole"))["data"]).figures


def test_the_figure_of_episodes_has_their_means():
    returns = np.arange(250.0)
    lines = episodes_figure(returns).axes[0].lines
    assert lines[0].get_ydata().tolist() == returns.tolist()
    means = lines[1].get_ydata()
    assert means[0] == 0 and means[9] == 4.5 and means[-1] == pytest.approx(returns[-100:].mean())
    assert len(episodes_figure(np.zeros(50_000)).axes[0].lines[0].get_ydata()) <= 4000
    assert observations_figure(np.zeros((2, 4, 10, 10), np.uint8)).axes[0].images[0].get_array().shape == (21, 43)
