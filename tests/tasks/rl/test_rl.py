"""Reinforcement learning: the arithmetic by hand, and each algorithm on an environment that it must master."""

import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from runs import assert_same, compose, state, train
from toys import DEVICE, NAMES, composed, make_update, seeded

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.config.check import check
from dlrun.errors import PairingError, UserError
from dlrun.models.policy import Normaliser
from dlrun.optim.buffers import BufferSnapshot
from dlrun.seeds import Reseeder
from dlrun.spec import Env, Table
from dlrun.tasks.rl.collector import Collector
from dlrun.tasks.rl.dqn import targets
from dlrun.tasks.rl.ppo import kl, surrogate
from dlrun.tasks.rl.replay import Replay
from dlrun.tasks.rl.returns import RewardScale, explained_variance, gae, rewards_to_go
from dlrun.tasks.rl.trpo import conjugate_gradients
from dlrun.train.session import Session

EXACT = ["reinforce", "reinforce_baseline", "a2c", "ppo", "trpo", "dqn", "double_dqn", "dueling_dqn"]
MODELS = [*EXACT, "a3c"]  # its workers are not deterministic
CPU = torch.device("cpu")
SMALL = ["data.epoch_frames=256", "data.num_envs=4", "trainer.epochs=2", "trainer.checkpoint_gap=0", "model.hidden=[8]",
         "task.eval_episodes=3", "trainer.device=cpu", "trainer.log_every=2"]  # fmt: skip
KEYS = {
    "ppo": ["task.num_steps=16", "task.minibatch=32", "task.update_epochs=2"],
    "a2c": ["task.num_steps=8"],
    "trpo": ["task.num_steps=16", "task.minibatch=32", "task.value_epochs=2"],
    **{
        name: ["task.num_steps=8", "task.gradient_steps=4", "task.learning_starts=64"]
        for name in ("dqn", "double_dqn", "dueling_dqn")
    },
}


class Echo:
    """Shows a one-hot number and rewards the action with its index; an episode has `limit` steps."""

    spec = Env((4,), 4, states=True)

    def __init__(self, num, limit=8, truncates=False):
        self.num, self.limit, self.truncates = num, limit, truncates

    def reset(self, seed):
        self.random, self.age = np.random.default_rng(seed), 0
        return self._say()

    def _say(self):
        self.word = self.random.integers(4, size=self.num)
        return np.eye(4, dtype=np.float32)[self.word]

    def step(self, actions):
        rewards, self.age = (actions == self.word).astype(np.float32), self.age + 1
        done, no = np.full(self.num, self.age % self.limit == 0), np.zeros(self.num, bool)
        obs = self._say()
        return obs, rewards, *((no, done) if self.truncates else (done, no)), obs

    def close(self): ...


class Toy:
    """`Echo`, or envs like it, as data."""

    def __init__(self, num_envs=8, epoch_frames=2048, env=Echo, **keys):
        self.spec, self.num_envs, self.epoch_frames = env.spec, num_envs, epoch_frames
        self.make = partial(env, **keys)


def make_task(model, data, *overrides):
    config = composed(f"model={model}", *overrides)
    keys = {key: value for key, value in config["optimizer"].items() if key != "_target_"}
    net = build(config["model"])(data.spec)
    return build(config["task"])(net, data.spec, DEVICE, partial(make_update, **keys))


def run(task, data, epochs):
    """The metrics of every step that learnt."""
    clock, reseed, found = Clock(0, epochs, task.steps(data), None, data.epoch_frames), Reseeder(CPU), []
    with torch.random.fork_rng(devices=[]):
        for _ in range(epochs):
            for batch in task.batches(data, clock):
                reseed(0, clock.step)
                found.append(task.step(batch, clock))
                clock.tick(task.samples(batch))
            clock.next_epoch()
    return [metrics for metrics in found if metrics]


# The arithmetic


def test_rewards_to_go():
    done = np.array([[False], [True], [False], [True]])
    assert rewards_to_go(np.array([[1.0], [2.0], [4.0], [8.0]]), done, 0.5).ravel().tolist() == [2, 2, 8, 8]


def test_gae_against_its_definition():
    random = np.random.default_rng(0)
    rewards, values, next_values = random.normal(size=(3, 12, 2))
    terminated, truncated = random.random((2, 12, 2)) < 0.15
    truncated &= ~terminated
    found = gae(rewards, values, next_values, terminated, truncated, 0.9, 0.7)
    for n in range(2):
        for t in range(12):
            total, weight = 0.0, 1.0
            for k in range(t, 12):
                total += weight * (rewards[k, n] + 0.9 * next_values[k, n] * (not terminated[k, n]) - values[k, n])
                if terminated[k, n] or truncated[k, n]:
                    break
                weight *= 0.9 * 0.7
            assert found[t, n] == pytest.approx(total)


def test_gae_of_the_extremes():
    rewards, values = np.ones((5, 1)), np.full((5, 1), 2.0)
    ends, next_values = np.zeros((5, 1), bool), np.full((5, 1), 2.0)
    assert gae(rewards, values, next_values, ends, ends, 0.9, 0.0).ravel() == pytest.approx(1 + 0.9 * 2 - 2)
    returns = sum(0.9**k for k in range(5)) + 0.9**5 * 2
    assert gae(rewards, values, next_values, ends, ends, 0.9, 1.0)[0, 0] == pytest.approx(returns - 2)
    last = np.array([[False]] * 4 + [[True]])
    assert gae(rewards, values, next_values, last, ends, 0.9, 1.0)[0, 0] == pytest.approx(
        sum(0.9**k for k in range(5)) - 2
    )


def test_explained_variance():
    returns = np.arange(6.0)
    assert explained_variance(returns, returns) == 1
    assert explained_variance(np.zeros(6), returns) == 0
    assert explained_variance(returns, np.ones(6)) == 0


@pytest.mark.parametrize("clip", [None, 0.2])
def test_the_gradient_at_ratio_one_is_the_policy_gradient(clip):
    with seeded():
        logits, advantages, actions = (
            torch.randn(6, 3, requires_grad=True),
            torch.randn(6),
            torch.tensor([0, 1, 2, 0, 1, 2]),
        )
    log_prob = logits.log_softmax(1)[range(6), actions]
    mine = torch.autograd.grad(surrogate(log_prob - log_prob.detach(), advantages, clip), logits, retain_graph=True)[0]
    policy_gradient = torch.autograd.grad(-(log_prob * advantages).mean(), logits)[0]
    assert torch.allclose(mine, policy_gradient)


def test_the_clip_stops_the_gradient_on_the_far_side_only():
    log_ratio = torch.tensor([1.3, 0.7, 1.3, 0.7]).log().requires_grad_()
    surrogate(log_ratio, torch.tensor([1.0, -1.0, -1.0, 1.0]), 0.2).backward()
    assert (log_ratio.grad != 0).tolist() == [False, False, True, True]


def test_kl_against_torch():
    with seeded():
        old, new, s, t = torch.randn(5, 3), torch.randn(5, 3), torch.randn(3), torch.randn(3)
    from torch.distributions import Categorical, Normal, kl_divergence

    assert torch.allclose(
        kl(old, new, None, None), kl_divergence(Categorical(logits=old), Categorical(logits=new)), atol=1e-6
    )
    theirs = kl_divergence(Normal(old, s.exp()), Normal(new, t.exp())).sum(1)
    assert torch.allclose(kl(old, new, s, t), theirs, rtol=1e-4)


@pytest.mark.parametrize("spec", [Env((3,), 4), Env((3,), None, (-1.0, -2.0), (1.0, 2.0))], ids=str)
def test_policy_against_torch(spec):
    from torch.distributions import Categorical, Normal

    with seeded():
        net = build(composed("model=ppo")["model"])(spec)
        obs, generator = torch.randn(4000, 3), torch.Generator().manual_seed(0)
        out, values = net(obs)
        theirs = Categorical(logits=out) if spec.actions else Normal(out, net.log_std.exp())
        actions = net.act(obs, net.noise(4000, generator=generator))
        log_prob, entropy = theirs.log_prob(actions), theirs.entropy()
        if not spec.actions:
            log_prob, entropy = log_prob.sum(1), entropy.sum(1)
        assert torch.allclose(net.log_prob(out, actions), log_prob, atol=1e-5)
        assert torch.allclose(net.entropy(out), entropy, atol=1e-5)
        assert torch.equal(net.values(obs), values)
        if spec.actions:  # all but uniform
            assert torch.bincount(actions, minlength=4).float().div(4000).sub(0.25).abs().max() < 0.03
        else:
            assert (actions - out).std(0).sub(1).abs().max() < 0.05
        assert torch.equal(net.act(obs, None), out.argmax(1) if spec.actions else out)


def test_double_dqn_targets_by_hand():
    class Q(torch.nn.Module):
        def __init__(self, *values):
            super().__init__()
            self.values = torch.tensor(values)

        def forward(self, obs):
            return self.values.expand(len(obs), -1)

    net, target = Q(1.0, 9.0, 2.0), Q(5.0, 3.0, 4.0)
    steps = {
        "rewards": torch.tensor([1.0, 1.0]),
        "terminated": torch.tensor([False, True]),
        "next_obs": torch.zeros(2, 1),
    }
    assert targets(target, target, steps, 0.5).tolist() == [1 + 0.5 * 5, 1]
    assert targets(net, target, steps, 0.5).tolist() == [1 + 0.5 * 3, 1]


def test_dueling_advantages_have_mean_zero():
    net = build(composed("model=dueling_dqn")["model"])(Env((4,), 3))
    features = net[0](torch.randn(5, 4))
    assert torch.allclose(net[1](features).mean(1), net[1].value(features).squeeze(1), atol=1e-6)
    plain = build(composed("model=dueling_dqn", "model.dueling=plain")["model"])(Env((4,), 3))[1]
    assert torch.equal(plain(features), plain.value(features) + plain.advantage(features))


def test_normaliser_and_reward_scale_against_numpy():
    x, norm = np.random.default_rng(0).normal(3, 2, (100, 2)).astype(np.float32), Normaliser(2)
    for part in np.split(x, [10, 40]):
        norm.update(torch.from_numpy(part))
    assert norm.mean.numpy() == pytest.approx(x.mean(0), rel=1e-4) and norm.var.numpy() == pytest.approx(
        x.var(0), rel=1e-4
    )
    scale, no = RewardScale(0.5), np.zeros((4, 1), bool)
    rewards = np.array([[1.0], [1.0], [2.0], [0.0]])
    scaled = scale(rewards, no)
    assert scaled.ravel() == pytest.approx((rewards / np.std([1, 1.5, 2.75, 1.375])).ravel(), rel=1e-6)
    again = RewardScale(0.5)
    again.load_state_dict(scale.state_dict())
    assert (again(rewards, no) == scale(rewards, no)).all()


# Settings


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model=ppo", "task.minibatch=100"], "16 x task.num_steps=64 = 1024 frames .* task.minibatch=100"),
        (["model=ppo", "task.kl_target=0.0001"], "task.kl_coef=0"),
        (["model=dqn", "task.buffer_size=100"], "task.buffer_size=100"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides, words):
    data = build(composed("data=cartpole"))["data"]
    with pytest.raises(UserError, match=words):
        make_task(overrides[0].removeprefix("model="), data, *overrides[1:]).steps(data)


def test_values_of_normalised_observations():
    """The same network learns, whatever the unit of the observations."""
    net = build(composed("model=dqn", "model.normalise=true"))["model"](Env(obs=(4,), actions=2))
    obs = torch.randn(1000, 4) * torch.tensor([1e-3, 1.0, 10.0, 1e3]) + 5
    net.observe(obs[:300])
    net.observe(obs[300:])
    seen = net[0](obs)
    assert seen.mean(0).abs().max() < 1e-3 and (seen.std(0) - 1).abs().max() < 0.01
    assert net(obs).shape == (1000, 2)
    task = make_task("dqn", build(composed("data=cartpole"))["data"], "model.normalise=true")
    task.observe(obs)
    assert torch.equal(task.target(obs), task.net(obs)) and task.target[0].count == 1000, "before the first copy, too"
    task.update.snapshot = BufferSnapshot(task.net)
    task.observe(obs)
    task.update.snapshot.restore()
    assert task.net[0].count == 2000, "a step that is left out takes back its own statistics, and no observations"


def test_observations_have_the_memory_layout_of_a_resumed_run():
    """Sums over another layout are rounded differently."""
    envs = build(composed("data=cartpole"))["data"].make(3)
    obs = [envs.reset(0)]
    for _ in range(60):
        now, _, _, _, final = envs.step(np.zeros(3, np.int64))
        obs += [now, final]
    assert all(found.flags.c_contiguous for found in obs)


def test_a_run_that_ends_before_it_learns_is_refused():
    data = build(composed("data=cartpole", "data.epoch_frames=1000"))["data"]
    task = make_task("dqn", data, "task.learning_starts=2001")
    with pytest.raises(
        UserError, match="task.learning_starts=2001 frames before the first update, and the run has only 2000"
    ):
        next(iter(task.batches(data, Clock(0, 2, 10))))


def test_a_target_net_that_is_never_renewed_is_refused():
    data = build(composed("data=cartpole", "data.epoch_frames=4096"))["data"]
    task = make_task("dqn", data, "task.target_update_interval=33", "task.num_steps=16")
    words = "task.target_update_interval=33 rounds, and the run has only 32: the target net would never be renewed"
    with pytest.raises(UserError, match=words):
        next(iter(task.batches(data, Clock(0, 2, 10))))


@pytest.mark.parametrize("model", ["dqn", "q_learning"])
def test_exploration_does_not_grow(model):
    config = compose(f"model={model}", "task.epsilon_start=0.1", "task.epsilon_end=0.5", "trainer.device=cpu")
    with pytest.raises(
        UserError, match=r"task.epsilon_end=0.5 is more than task.epsilon_start=0.1(?s:.*)expected it to"
    ):
        Session(*config)


def test_a_reward_scale_that_leaves_nothing_is_refused():
    with pytest.raises(UserError, match=r"task.reward_scale=1e-300: expected a number >= 1e-06"):
        compose("model=dqn", "task.reward_scale=1e-300")


@pytest.mark.parametrize("pair", ["ppo digits", "dqn moons", "mlp cartpole", "resnet18 gym"])
def test_combinations_that_do_not_fit_are_refused_by_name(pair):
    model, data = pair.split()
    names = NAMES | {"model": model, "data": data}
    with pytest.raises(PairingError, match=f"model={model} cannot learn from data={data}") as error:
        check(composed(f"model={model}", f"data={data}"), names)
    assert ("cartpole, gym, maze" if model == "ppo" else "") in str(error.value)


def test_dqn_needs_discrete_actions():
    from dlrun.tasks.rl.dqn import DQN

    keys = {k: v for k, v in composed("model=dqn")["task"].items() if k != "_target_"}
    with pytest.raises(UserError, match="expected data=cartpole, gym or maze"):
        DQN(torch.nn.Linear(1, 1), Table(1, 2), DEVICE, make_update, **keys)
    with pytest.raises(UserError, match="discrete actions"):
        DQN(torch.nn.Linear(1, 1), Env((3,), None, (-1.0,), (1.0,)), DEVICE, make_update, **keys)


# Learning


LEARN = {
    "ppo": ["task.num_steps=16", "task.minibatch=32", "optimizer.lr=0.003"],
    "a2c": ["task.num_steps=8", "optimizer.lr=0.01", "task.gamma=0.5"],
    "trpo": ["task.num_steps=16", "task.minibatch=32", "optimizer.lr=0.003", "task.gamma=0.5", "task.max_kl=0.1"],
    "a3c": ["task.num_steps=8", "optimizer.lr=0.01", "task.gamma=0.5"],
    "reinforce": ["optimizer.lr=0.01", "task.gamma=0.5"],
    "reinforce_baseline": ["optimizer.lr=0.01", "task.gamma=0.5"],
    **{
        n: ["task.gradient_steps=8", "task.gamma=0.5", "task.learning_starts=100"]
        for n in ("dqn", "double_dqn", "dueling_dqn")
    },
}


@pytest.mark.thorough(but=["a2c"])
@pytest.mark.parametrize("model", MODELS)
def test_every_algorithm_learns_to_echo(model):
    with seeded():
        data = Toy()
        task = make_task(model, data, "task.eval_episodes=20", *LEARN[model])
        run(task, data, 5)
        assert task.evaluate(data, "val") == {"return": 8.0, "length": 8.0, "return_std": 0.0}
        assert task.predict(torch.eye(4)).tolist() == [0, 1, 2, 3]


class Paid(Echo):
    """Rewards every action with 1."""

    def step(self, actions):
        return super().step(self.word)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "overrides",
    [["task.causal=false", "task.baseline=mean", "optimizer.lr=0.003"], ["task.each_step=true", "optimizer.lr=0.001"]],
)
def test_the_books_forms_of_reinforce_learn(overrides):
    with seeded():
        data = Toy(limit=2, epoch_frames=512)
        task = make_task("reinforce", data, *LEARN["reinforce"], "task.gamma=1", *overrides)
        run(task, data, 8)
        assert task.evaluate(data, "val")["return"] == 2.0


def test_the_whole_return_weights_each_step_of_an_episode():
    """With rewards 1 and 2 the log-probabilities are weighted by 3, or by 3 and 2 if the task is causal."""
    found = {}
    for causal in (True, False):
        with seeded():
            data = Toy()
            task = make_task("reinforce", data, "task.gamma=1", "task.scale_returns=false", f"task.causal={causal}")
            batch = task.collect(data, Clock(0, 1, 1))
            pay = np.zeros_like(batch.rewards)
            pay[0], pay[1] = 1, 2
            obs = batch.obs.split(batch.valid.sum(1).tolist())
            losses = [
                task.net.log_prob(task.net.outputs(o), a)
                for o, a in zip(obs, batch.actions.split(len(obs[0])), strict=True)
            ]
            weights = (3, 2) if causal else [3] * len(losses)
            expected = -sum(w * loss.sum() for w, loss in zip(weights, losses, strict=False)) / len(batch.obs)
            found = task.step(batch._replace(rewards=pay), Clock(0, 1, 1))
        assert found["policy_loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_conjugate_gradients_solve_a_positive_definite_system():
    random = torch.Generator().manual_seed(0)
    root, b = torch.randn(8, 8, generator=random, dtype=torch.float64), torch.randn(8, generator=random).double()
    matrix = root @ root.T + torch.eye(8)
    found = conjugate_gradients(lambda vector: matrix @ vector, b, 20)
    assert torch.allclose(found, torch.linalg.solve(matrix, b), atol=1e-6)


def test_a_step_of_trpo_gains_within_its_bound():
    """It changes the policy by at most the bound, and the value not at all."""
    with seeded():
        data = Toy()
        task = make_task("trpo", data, *LEARN["trpo"])
        clock = Clock(0, 1, 1)
        batch = task.collect(data, clock)
        with torch.no_grad():
            before = task.net.outputs(batch.obs)
        values = [param.clone() for param in task.net.critic_trunk.parameters()]
        found = task._step_policy(batch.obs, batch.actions, torch.randn(len(batch.obs)))
        with torch.no_grad():
            moved = kl(before, task.net.outputs(batch.obs), None, None).mean().item()
    assert 0 < moved <= 0.1 and found["kl"].item() == pytest.approx(moved, rel=1e-4)
    assert found["gain"] > 0 and 0 < found["step_fraction"] <= 1
    assert all(torch.equal(a, b) for a, b in zip(values, task.net.critic_trunk.parameters(), strict=True))


def test_trpo_needs_a_trunk_for_the_value():
    with pytest.raises(UserError, match="model.shared=false"):
        make_task("trpo", Toy(), "model.shared=true")


def test_the_value_function_has_its_own_learning_rate():
    """As with two optimizers: the first step of Adam moves each weight by its rate."""
    with seeded():
        data = Toy()
        task = make_task("ppo", data, "task.value_lr_multiplier=3", "task.num_steps=16", "task.minibatch=128",
                         "optimizer.lr=0.001", "task.update_epochs=1", "trainer.clip_global_norm=null")  # fmt: skip
        before = [param.clone() for param in (task.net.actor.bias, task.net.critic.bias)]
        task.step(task.collect(data, Clock(0, 1, 1)), Clock(0, 1, 1))
        moves = [
            (new - old).abs().max().item()
            for old, new in zip(before, (task.net.actor.bias, task.net.critic.bias), strict=True)
        ]
    assert moves == [pytest.approx(0.001, rel=1e-2), pytest.approx(0.003, rel=1e-2)]
    with pytest.raises(UserError, match="model.shared=false"):
        make_task("ppo", Toy(), "task.value_lr_multiplier=3", "model.shared=true")


def test_rewards_are_scaled_and_failures_penalised_as_in_the_book():
    with seeded():
        data = Toy()
        task = make_task("dqn", data, "task.reward_scale=0.01", "task.learning_starts=0")
        task.collect(data, Clock(0, 9, 9))
        assert set(task.replay.columns["rewards"][: task.replay.size].unique().tolist()) <= {
            0.0,
            np.float32(0.01).item(),
        }
    with seeded():
        data = Toy(limit=4)
        loss = make_task("a3c", data, "task.end_reward=-1").loss
        collector, net = Collector(data.spec, DEVICE), build(composed("model=a3c")["model"])(data.spec)
        collector.start(data, Clock(0, 1, 1))
        batch = collector.collect(net, 4, Clock(0, 1, 1))
    paid = batch.rewards.copy()
    paid[-1] = -1
    assert batch.terminated[-1].all()
    assert loss(net, batch)[0] == replace(loss, end_reward=None)(net, batch._replace(rewards=paid))[0]


@pytest.mark.thorough(but=["a2c-True", "a2c-False"])
@pytest.mark.parametrize("truncates", [True, False])
@pytest.mark.parametrize("model", ["ppo", "a2c", "dqn"])
def test_a_time_limit_is_bootstrapped_and_an_end_is_not(model, truncates):
    """Pay of 1 forever is worth 1 / (1 - gamma) = 5, though a time limit cuts it after each step; before an end it is
    worth 1.
    """
    more = {
        "ppo": ["task.num_steps=16", "task.minibatch=32"],
        "a2c": [],
        "dqn": ["task.learning_starts=100", "task.gradient_steps=8"],
    }[model]
    with seeded():
        data = Toy(env=Paid, limit=1, truncates=truncates)
        task = make_task(model, data, "task.gamma=0.8", "optimizer.lr=0.01", "schedule=constant", *more)
        run(task, data, 3 if model == "ppo" else 6)
        obs = torch.eye(4)
        value = (task.net(obs).max(1).values if model == "dqn" else task.net.values(obs)).mean().item()
    assert value == pytest.approx(5.0 if truncates else 1.0, rel=0.1)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(["task.clip_coef=null", "task.kl_coef=0.5", "task.kl_target=0.0001"], marks=pytest.mark.slow),
        pytest.param(["task.clip_vloss=0.2", "task.ent_coef=0.01", "task.target_kl=0.02"], marks=pytest.mark.slow),
        ["model.shared=true", "model.normalise=true", "task.normalise_rewards=true", "model.activation=relu"],
    ],
)
def test_other_forms_of_ppo_learn(overrides):
    with seeded():
        data = Toy()
        task = make_task("ppo", data, *LEARN["ppo"], *overrides)
        found = run(task, data, 4)
        assert task.evaluate(data, "val")["return"] > 7.9
    assert {"return", "length", "policy_loss", "value_loss", "entropy", "approx_kl", "clip_fraction"} < found[0].keys()
    if "task.kl_target=0.0001" in overrides:
        assert task.penalty.weight != 0.5
    if "task.target_kl=0.02" in overrides:
        assert min(m["update_epochs"].item() for m in found) < task.update_epochs


def test_the_replay_buffer_drops_the_oldest_and_is_restored():
    replay = Replay(Env((1,), 2), 5, CPU)

    def add(*numbers):
        column = np.array(numbers, np.float32)
        replay.add(obs=column[:, None], actions=column.astype(np.int64), rewards=column, next_obs=column[:, None] + 1,
                   terminated=column < 0)  # fmt: skip

    add(0, 1, 2)
    assert set(replay.sample(100)["actions"].tolist()) == {0, 1, 2}
    add(3, 4, 5)
    assert (replay.size, replay.next, sorted(replay.columns["actions"].tolist())) == (5, 1, [1, 2, 3, 4, 5])
    again = Replay(Env((1,), 2), 5, CPU)
    again.load_state_dict(replay.state_dict())
    assert torch.equal(again.columns["obs"], replay.columns["obs"]) and again.next == 1


def test_next_values_of_a_rollout_are_those_before_the_reset():
    with seeded():
        data = Toy(num_envs=2, limit=3, truncates=True)
        net, collector, clock = (
            build(composed("model=ppo")["model"])(data.spec),
            Collector(data.spec, DEVICE),
            Clock(0, 1, 1),
        )
        collector.start(data, clock)
        rollout = collector.collect(net, 4, clock)
    assert len(rollout.bootstrap_obs) == 2 + 2 and rollout.truncated[2].all() and not rollout.truncated[[0, 1, 3]].any()
    values = np.arange(8.0).reshape(4, 2)
    assert rollout.next_values(values, np.array([10.0, 11, 20, 21])).tolist() == [[2, 3], [4, 5], [20, 21], [10, 11]]


def test_the_collector_of_an_older_run_knows_its_last_episodes():
    collector = Collector(Toy().spec, DEVICE)
    collector.load_state_dict({"recent": [[3.0, 8], [5.0, 8]]})
    assert collector.means() == (4.0, 8.0)
    again = Collector(Toy().spec, DEVICE)
    again.load_state_dict(collector.state_dict())
    assert again.history == [(3.0, 8), (5.0, 8)]


# Runs


@pytest.mark.thorough(but=["ppo-cartpole", "dqn-cartpole", "reinforce_baseline-cartpole"])
@pytest.mark.parametrize(
    ("model", "data"), [*((model, "cartpole") for model in EXACT), ("reinforce", "gym"), ("ppo", "gym"), ("dqn", "gym")]
)
def test_every_algorithm_resumes_to_the_bit(model, data, tmp_path):
    norm = ["model.normalise=true"] * ("dqn" not in model) + ["task.normalise_rewards=true"] * (model == "ppo")
    short = [f"data.epoch_frames={600 if data == 'cartpole' else 6000}"] * model.startswith("reinforce")
    config = compose(f"model={model}", f"data={data}", *SMALL, *KEYS.get(model, []), *norm, *short)
    train(tmp_path / "a", config)
    signals = {1: signal.SIGINT, 4: signal.SIGTERM} if data == "cartpole" else {1: signal.SIGTERM}
    resumed = False
    while signals:
        assert train(tmp_path / "b", config, resumed=resumed, signals=signals).reason == "signal"
        assert state(tmp_path / "b")["clock"]["batch"] > 0
        resumed = True
    assert train(tmp_path / "b", config, resumed=True).reason == "finished"
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["ppo", "trpo", "a2c", "a3c", "reinforce_baseline", "dqn", "double_dqn", "dueling_dqn"]
)
def test_cartpole_is_solved(model, tmp_path):
    train(tmp_path, compose(f"model={model}", "trainer.device=cpu"))
    assert state(tmp_path, "best")["best"]["score"] >= 475
