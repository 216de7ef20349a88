"""Jobs that train as one network: each ends as it would alone, also after kills and when other jobs leave."""

import contextlib
import errno
import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import subprocess
import sys
import time
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import runs
import torch
from runs import SMALL, assert_same, compose, rows, same, state
from stacks import together
from torch import nn
from toys import section

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.optim import schedules
from dlrun.optim.update import Update
from dlrun.output.checkpoints import Checkpoints
from dlrun.output.folders import read_summary
from dlrun.seeds import mix
from dlrun.stack.functions import NotStackable
from dlrun.stack.net import StackedNet
from dlrun.stack.run import make_job
from dlrun.stack.stacked import Stack
from dlrun.stack.stacked_job import StackedJob
from dlrun.stack.trial import gain
from dlrun.stack.update import StackedUpdate
from dlrun.sweep.running import spoken
from dlrun.sweep.stacks import divide, halves, parse, plan, which
from dlrun.sweep.state import Job
from dlrun.train.session import Session

K, B = 5, 6


class Reader(nn.Module):
    """Words -> recurrent layer -> outputs."""

    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.words, self.read = nn.Embedding(20, 6, padding_idx=0), kind(6, 5, batch_first=True, bidirectional=True)
        self.out = nn.Linear(10, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.read(self.words(x))[0].mean(1))


class Own(nn.Module):
    """Arithmetic with parameters and a buffer, in no layer of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.randn(4)), nn.Linear(4, 3)
        self.register_buffer("mean", torch.randn(4, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out((x * self.scale.exp()) @ (self.scale[:, None] - self.mean).square())


def dense() -> nn.Module:
    norms = nn.BatchNorm1d(8), nn.PReLU(), nn.Dropout(0.3), nn.Linear(8, 8), nn.LayerNorm(8), nn.Dropout(0.2)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), *norms, nn.RMSNorm(8), nn.Linear(8, 3, bias=False))


def convolutions() -> nn.Module:
    first = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3, 2, groups=2, bias=False)
    norms = nn.GroupNorm(2, 6), nn.InstanceNorm2d(6, affine=True), nn.ConvTranspose2d(6, 2, 3, 2, output_padding=1)
    return nn.Sequential(*first, *norms, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8, 3))


NETS = {
    "dense": (dense, (B, 4)), "own": (Own, (B, 4)), "convolutions": (convolutions, (B, 2, 9, 9)),
    "large_convolution": (lambda: nn.Sequential(nn.Conv2d(8, 3, 3), nn.AvgPool2d(28), nn.Flatten()), (B, 8, 30, 30)),
    "lstm": (partial(Reader, nn.LSTM), None), "gru": (partial(Reader, nn.GRU), None),
    "rnn": (partial(Reader, nn.RNN), None),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_a_stacked_network_computes_what_its_jobs_compute(name):
    torch.manual_seed(0)
    make, shape = NETS[name]
    nets = [make() for _ in range(K)]
    alone = deepcopy(nets)
    inputs = [torch.randn(shape) if shape else torch.randint(0, 20, (B, 7)) for _ in nets]
    net = StackedNet(nets).train()
    net.jobs.seed(list(range(K)), step=3)
    net(torch.cat(inputs)).square().sum().backward()
    for k, (one, x) in enumerate(zip(alone, inputs, strict=True)):
        torch.manual_seed(mix(k, 3, 0))  # as a job alone is seeded before its step
        one(x).square().sum().backward()
        for param, wanted in zip(nets[0].parameters(), one.parameters(), strict=True):
            torch.testing.assert_close(net.leaves[param].grad[k], wanted.grad, rtol=1e-3, atol=1e-4)
        for buffer, wanted in zip(nets[k].buffers(), one.buffers(), strict=True):
            torch.testing.assert_close(buffer, wanted)


class InPlace(Own):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x.mul_(self.scale))


class Constant(Own):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(x + self.scale * torch.arange(4.0))


def test_a_layer_without_a_stacked_form_is_named():
    ids = torch.ones(4, dtype=torch.long)
    for net, x, why in (
        (InPlace(), torch.ones(4, 4), "^scale of InPlace: mul_ has no stacked form$"),
        (Constant(), torch.ones(4, 4), "^scale of Constant: mul has no stacked form$"),
        (nn.Sequential(nn.Embedding(4, 3, max_norm=1.0)), ids, "0.weight of Embedding: an embedding with max_norm"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout1d(0.5)), torch.ones(4, 4), "1: Dropout1d has no stacked form"),
    ):
        with pytest.raises(NotStackable, match=why):
            StackedNet([net, deepcopy(net)]).train()(x)
    with pytest.raises(NotStackable, match="1 is not the same layer in all jobs"):
        StackedNet([nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.Tanh())])


OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop", "nadam", "lion", "lamb", "adafactor", "muon", "lookahead")
LIMITS = [(None, None, None), (0.05, None, None), (None, 0.5, None), (None, None, 1.0), (None, None, None)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_stacked_update_steps_as_the_jobs_do(name):
    """The jobs have their own rates, schedules, limits and averages, and get their states back."""
    torch.manual_seed(0)
    config = section("optimizer", name) | {"lr": 0.01}
    kinds = {} if name == "muon" else None
    nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(K)]
    alone = deepcopy(nets)
    paces = [schedules.constant, partial(schedules.linear, warmup_fraction=0.3, final=0.1)]

    def update(k: int, net: nn.Module) -> Update:
        optimizer = build(config | {"lr": 0.01 * (1 + k // 2)})
        keys = {"on_nan": "stop", "precision": "fp32", "kinds": kinds, "ema": 0.5 + 0.05 * k}
        return Update(net, optimizer=optimizer, schedule=paces[k % 2], clip=LIMITS[k], **keys)

    own, mine = [update(k, net) for k, net in enumerate(alone)], [update(k, net) for k, net in enumerate(nets)]
    inputs, clocks = torch.randn(8, K, B, 4), [Clock(k, 1, 10) for k in range(K)]

    def stack() -> tuple[StackedNet, StackedUpdate]:
        net = StackedNet(nets).train()
        return net, StackedUpdate(
            mine, net, net.leaves, build(config), [""] * K, [f"{k // 2} {k % 2}" for k in range(K)]
        )

    net, stacked = stack()
    for step, x in enumerate(inputs):
        for clock in clocks:
            clock.step = step
        if step == 4:  # the jobs' own states hold all that a stack needs
            stacked.write_back()
            net, stacked = stack()
        stacked.step(net(x.flatten(0, 1)).square().unflatten(0, (K, B)).mean((1, 2)), clocks[0])
        for one, inputs_of, clock in zip(own, x, clocks, strict=True):
            one.step(one.net(inputs_of).square().mean(), clock)
    stacked.write_back()
    for one, update in zip(own, mine, strict=True):
        assert update.lr == one.lr and update.last_loss == pytest.approx(one.last_loss, rel=1e-4)
        for a, b in ((one.net, update.net), (one.ema, update.ema)):
            torch.testing.assert_close(list(a.parameters()), list(b.parameters()), rtol=1e-3, atol=1e-5)
        wanted, found = one.optimizer.state_dict()["state"], update.optimizer.state_dict()["state"]
        assert wanted.keys() == found.keys()
        for param, values in wanted.items():
            for key, value in values.items():
                torch.testing.assert_close(found[param][key], value, rtol=1e-3, atol=1e-4)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """Composes a small run with these overrides."""
    data_dir = runs.write_mnist(tmp_path_factory.mktemp("data"))
    return lambda *overrides: compose(f"data_dir={data_dir}", *SMALL, "trainer.epochs=4", *overrides)


JOBS = [
    ["seed=0", "optimizer.lr=0.01"], ["seed=1", "optimizer.lr=0.03", "task.l2=0.001"],
    ["seed=2", "optimizer.lr=0.01", "task.label_smoothing=0.1"],
    ["seed=3", "trainer.clip_global_norm=0.5", "optimizer.weight_decay=0.1", "schedule=cosine"],
]  # fmt: skip
COMMON = ["model.norm=batch", "model.dropout=0.2", "trainer.ema=0.9", "optimizer=adamw"]


def test_jobs_together_log_what_they_log_alone(config, tmp_path, monkeypatch):
    """Each on a fold of its own, two with weights of classes. Without batch normalisation: the bias before it learns
    from rounding errors only, with Adam's full steps.
    """
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    own = [[f"data.fold={k}", f"task.class_weights={'balanced' if k % 2 else 'null'}"] for k in range(4)]
    configs = [config(*COMMON, *job, *own[k], "model.norm=layer", "data.folds=4") for k, job in enumerate(JOBS)]
    assert together(tmp_path / "stack", configs)
    for number, one in enumerate(configs):
        runs.train(tmp_path / "alone" / str(number), one, finish=True)
        a, b = tmp_path / "alone" / str(number), tmp_path / "stack" / str(number)
        for wanted, found in zip(rows(a), rows(b), strict=True):
            assert {k: found[k] for k in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-4)
        summaries = read_summary(a), read_summary(b)
        assert summaries[0].keys() == summaries[1].keys() and summaries[1]["status"] == "finished"
        assert {path.name for path in (b / "checkpoints").iterdir()} >= {"best.ckpt", "last.ckpt"}
        assert state(a).keys() == state(b).keys()


def test_jobs_that_choose_their_batch_size_share_their_data(tmp_path):
    """As data=table does; the learning rates of some optimizers follow it."""
    config, names = compose("data=moons", "model=mlp", "model.hidden=[8]", "trainer.epochs=2", "trainer.device=cpu")
    config["data"]["batch_size"], members = 64, list[StackedJob]()  # what `auto` is before the data is read
    for k in range(2):
        like, one = members[-1].session if members else None, deepcopy(config) | {"seed": k}
        members.append(make_job(k, one, names, tmp_path / str(k), like, ["data.batch_size"]))
    first, second = (member.session for member in members)
    assert first.data is second.data and first.data.batch_size == second.config["data"]["batch_size"] == 32
    take_over = Session(deepcopy(second.config), names, ["data.batch_size"], like=second)  # of a member of a population
    assert take_over.data is first.data


@pytest.mark.parametrize("words", [["data=digits", "model.norm=batch", "model.dropout=0.3"], ["data=swiss_roll"]])
def test_a_stack_evaluates_its_jobs_at_once(words, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.stack.learning.MOST", 3 * 40 * 64)  # several parts, the last one smaller
    small = ["model=mlp", "model.hidden=[8]", "trainer.device=cpu", *words]
    members = [make_job(k, *compose(*small, f"seed={k}"), tmp_path / str(k)) for k in range(3)]
    data = members[0].session.data
    wanted = [member.session.task.evaluate(data, "val") for member in members]
    found = Stack(members, Checkpoints(tmp_path), "id").learner.evaluate([data] * 3)
    assert len({each["loss"] for each in found}) == 3 and found[0].keys() == wanted[0].keys()
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


IMAGES = ["data=digits", "data.batch_size=512", "trainer.max_steps=6"]
POINTS = ["data=gaussians", "data.source.samples=200", "data.batch_size=50", "trainer.epochs=3", "model.hidden=[16]"]
UNET = ["model=unet", "model.width=2", "model.depth=2", "data.batch_size=16", "trainer.epochs=2"]
CARTS = ["data=cartpole", "data.num_envs=4", "data.epoch_frames=256", "data.time_limit=20", "data.video_steps=0"]
CARTS += ["trainer.epochs=3", "task.num_steps=16", "task.eval_episodes=3", "model.hidden=[16]"]
PENDULA = ["data=gym", "data.id=Pendulum-v1", *CARTS[1:], "task.update_epochs=2", "task.kl_coef=0.1"]
OTHERS = {
    "autoencoder": [*IMAGES, "model=autoencoder", "model.hidden=[16]", "model.dropout=0.2", "task.noise=0.3"],
    "vae": [*IMAGES, "model=vae", "model.hidden=[16]", "task.num_samples=4"],
    "adversarial_autoencoder": [*IMAGES, "model=adversarial_autoencoder", "model.hidden=[16]"],
    "gan": [*IMAGES, "model=gan", "model.width=2", "task.loss=hinge", "trainer.ema=0.9"],
    "infogan": [*IMAGES, "model=infogan", "model.width=2", "model.units=8", "task.n_critic=2"],
    "wgan": [*POINTS, "model=wgan", "task.n_critic=2"],
    "wgan_gp": [*POINTS, "model=wgan_gp", "task.n_critic=3"],
    "ppo": [*CARTS, "model=ppo", "task.minibatch=32", "task.update_epochs=2"],
    "a2c": [*CARTS, "model=a2c", "task.normalise_advantage=true"],
    "dqn": [*CARTS, "model=dqn", "task.gradient_steps=4", "task.learning_starts=100", "task.double=true"],
    "continuous": [*PENDULA, "model=ppo", "task=ppo", "task.minibatch=32", "model.normalise=true"],
    "normalised": [*CARTS, "model=dqn", "task=dqn", "task.learning_starts=100", "model.normalise=true"],
    "segment": ["data=shapes", "data.source.samples=40", "data.spec.shape=[3,32,32]", *UNET],
}


QUICK = ("autoencoder", "gan", "wgan_gp", "ppo", "dqn")  # the others are slow tests
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OTHERS]


@pytest.mark.thorough(but=["dqn", "autoencoder"])
@pytest.mark.parametrize("name", NAMES)
def test_other_tasks_log_what_they_log_alone(name, tmp_path, monkeypatch):
    """Their steps are those of one job: each draws its own noise, and each of their updates is one of its own."""
    monkeypatch.setattr("dlrun.train.session.Session.finish", lambda *args: None)
    chosen = [] if any(each.startswith("task=") for each in OTHERS[name]) else [f"task={name}"]
    common = [*OTHERS[name], *chosen, "trainer.log_every=3", f"trainer.device={runs.DEVICE}"]
    configs = [compose(*common, *job) for job in (["seed=1"], ["seed=2", "optimizer.lr=3e-3"])]
    assert together(tmp_path / "stack", configs)
    for number, one in enumerate(configs):
        runs.train(tmp_path / "alone" / str(number), one, finish=True)
        for wanted, found in zip(*(rows(tmp_path / kind / str(number)) for kind in ("alone", "stack")), strict=True):
            counts = ("acc", "miou")  # of pixels: one that is decided by a last bit is 1/4096 of them
            wanted = {key: value for key, value in wanted.items() if not key.endswith(counts)}
            assert {k: found[k] for k in wanted} == pytest.approx(wanted, rel=1e-3, abs=1e-3)


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["wgan_gp", "dqn", pytest.param("ppo", marks=pytest.mark.slow)])
def test_other_tasks_that_were_killed_end_with_the_same_bits(name, tmp_path, monkeypatch):
    """Two updates, environments in mid-episode, replay buffers; and a job that leaves."""
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    common = [*OTHERS[name], f"task={name}", "trainer.checkpoint_every_steps=1", f"trainer.device={runs.DEVICE}"]
    early = [[], ["trainer.patience=1", "trainer.min_delta=1e6"], []]
    configs = [compose(*common, f"seed={k}", *more) for k, more in enumerate(early)]
    assert together(tmp_path / "whole", configs)
    for kill_at in (2, 7):
        assert not together(tmp_path / "cut", configs, kill_at=kill_at)
    assert together(tmp_path / "cut", configs)
    assert read_summary(tmp_path / "cut" / "1")["stopped_by"] == "patience"
    for number in range(3):
        assert_same(tmp_path / "whole" / str(number), tmp_path / "cut" / str(number))


def test_a_stack_that_was_killed_ends_with_the_same_bits(config, tmp_path):
    """Jobs leave early; kills before, after, and in mid-epoch; at last the newest checkpoint is damaged."""
    early = [["trainer.patience=1", "trainer.min_delta=0.5"], [], [], ["trainer.stop_at=0.1"]]
    common = [*COMMON, "trainer.checkpoint_every_steps=1"]
    configs = [config(*common, *job, *more) for job, more in zip(JOBS, early, strict=True)]
    assert together(tmp_path / "whole", configs)
    assert len({read_summary(tmp_path / "whole" / str(n))["epochs"] for n in range(4)}) > 1  # some left before others
    for kill_at in (2, 5, 9, 14):
        assert not together(tmp_path / "cut", configs, kill_at=kill_at)
    damaged = tmp_path / "cut" / "stack" / "last.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-100])  # the one before it takes its place
    assert together(tmp_path / "cut", configs)
    for number in range(4):
        assert_same(tmp_path / "whole" / str(number), tmp_path / "cut" / str(number))
        tests = [read_summary(tmp_path / kind / str(number))["test"] for kind in ("whole", "cut")]
        assert same(*tests)


def go_on(folder: Path, configs: list[tuple[dict, dict]]) -> None:
    """Call `together` in a separate, silent process."""
    runs.begin()
    sys.stdout = open(os.devnull, "w")
    together(folder, configs)


@pytest.mark.slow
def test_a_stack_killed_at_twenty_random_moments(config, tmp_path):
    """After each SIGKILL nothing is lost, and the result is that of an uninterrupted stack."""
    common = [*COMMON, "trainer.epochs=10", "trainer.checkpoint_every_steps=1", "trainer.patience=5"]
    configs = [config(*common, *job) for job in JOBS]

    def started(folder: Path) -> multiprocessing.Process:
        process = runs.FORKS.Process(target=go_on, args=(folder, configs), daemon=True)
        process.start()
        return process

    draw, kills, turn = random.Random(0), 0, 0
    whole = started(tmp_path / "whole")
    whole.join()
    while kills < 20:
        process = started(tmp_path / str(turn))
        steps, seen = draw.randrange(8), set[int]()
        while process.is_alive() and len(seen) <= steps:  # however fast the machine is
            seen.add(written(tmp_path / str(turn) / "stack" / "last.ckpt"))
            time.sleep(0.002)
        process.join(draw.uniform(0, 0.1))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        turn += process.exitcode == 0  # it came to its end
    last = started(tmp_path / str(turn))
    last.join()
    assert whole.exitcode == last.exitcode == 0
    for folder, number in itertools.product(range(turn + 1), range(len(JOBS))):
        assert read_summary(tmp_path / str(folder) / str(number))["status"] == "finished"
        assert_same(tmp_path / "whole" / str(number), tmp_path / str(folder) / str(number))


def written(path: Path) -> int:
    """When a file was written; 0 if it is not there."""
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def test_a_stack_on_a_full_disk_can_be_resumed(config, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    configs = [config(*COMMON, *job, "trainer.checkpoint_every_steps=1") for job in JOBS[:2]]
    assert together(tmp_path / "whole", configs)
    assert not together(tmp_path / "cut", configs, kill_at=6)
    with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left on device"):
        patch.setattr(os, "fsync", full)
        together(tmp_path / "cut", configs)
    assert together(tmp_path / "cut", configs)
    for number in range(2):
        assert_same(tmp_path / "whole" / str(number), tmp_path / "cut" / str(number))


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_signal_saves_all_jobs_and_each_can_be_resumed_alone(config, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    configs = [config(*COMMON, *job) for job in JOBS[:2]]
    assert not together(tmp_path, configs, stop_at=6)
    assert read_summary(tmp_path / "0")["status"] == "stopped"
    assert state(tmp_path / "0")["clock"]["step"] == 7
    assert runs.train(tmp_path / "0", configs[0], resumed=True, finish=True).reason == "finished"
    assert together(tmp_path, configs)  # the other one, without it
    assert {read_summary(tmp_path / n)["status"] for n in "01"} == {"finished"}


def test_a_job_that_diverges_leaves_the_others_alone(config, tmp_path):
    configs = [config("optimizer=sgd", f"seed={n}", f"optimizer.lr={lr}") for n, lr in enumerate((0.1, 1e30, 0.1))]
    assert together(tmp_path / "with", configs)
    assert [read_summary(tmp_path / "with" / n)["status"] for n in "012"] == ["finished", "diverged", "finished"]
    assert together(tmp_path / "without", [configs[0], configs[2]])
    for a, b in (("0", "0"), ("2", "1")):
        for one, other in zip(rows(tmp_path / "with" / a), rows(tmp_path / "without" / b), strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("name", ["mlp", "dqn"])
def test_a_trial_leaves_no_trace(name, config, tmp_path):
    """It takes steps with the jobs' optimizers, environments and statistics, and undoes them."""
    jobs = [compose(*OTHERS["dqn"], "task=dqn", f"seed={k}") for k in range(2)] if name == "dqn" else []
    jobs = jobs or [config(*COMMON, *job) for job in JOBS]
    members = [make_job(k, *job, tmp_path / str(k)) for k, job in enumerate(jobs)]
    stack = Stack(members, Checkpoints(tmp_path), "id")
    before = deepcopy({number: part["state"]["components"] for number, part in stack.parts()[0].items()})
    assert gain(stack) > 0
    after = {number: part["state"]["components"] for number, part in stack.parts()[0].items()}
    assert same(before, after)


@pytest.mark.slow
def test_a_stack_that_needs_too_much_memory_is_halved(tmp_path):
    """Really: the processes may take 22 copies of the weights of a job more than they have after their imports."""
    from dlrun.sweep.forks import IMPORTED

    words = ["-m", "data=digits", "model.hidden=[4000,4000]", "seed=0,1,2,3", "sweep.stack=4", "trainer.max_steps=2"]
    code = f"import sys, importlib; [importlib.import_module(name) for name in {IMPORTED}]; "
    own = subprocess.check_output([sys.executable, "-c", code + "print(open('/proc/self/status').read())"], text=True)
    size = int(own.partition("VmPeak:")[2].split()[0]) * 1024 + 22 * 4 * 16_300_000
    limited = partial(resource.setrlimit, resource.RLIMIT_AS, (size, size))
    command = [sys.executable, "-m", "dlrun", *words, f"output_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, preexec_fn=limited)
    assert done.returncode == 0, done
    assert "4 jobs (0 to 3) train in stacks of 2 and 2: out of memory: cannot allocate" in done.stdout


def test_obstacles_to_stacking_are_named(config, tmp_path):
    def refusal(*jobs: list[str]) -> str:
        with pytest.raises(NotStackable) as error:
            members: list[StackedJob] = []
            for number, job in enumerate(jobs):
                like = members[-1].session if members else None
                members.append(make_job(number, *config(*job), tmp_path / str(number), like))
            gain(Stack(members, Checkpoints(tmp_path / "stack"), "id"))
        return str(error.value)

    same_twice = lambda *job: refusal([*job, "seed=0"], [*job, "seed=1"])  # noqa: E731
    assert same_twice("task.grad_accum_steps=2") == "task.grad_accum_steps has no stacked form"
    assert same_twice("task.mixup=0.2") == "task.mixup or task.cutmix has no stacked form"
    assert same_twice("trainer.on_nan=skip") == "trainer.on_nan=skip has no stacked form"
    assert same_twice("task.freeze=['*','!head']") == "task.freeze has no stacked form"
    autoencoder = ["model=autoencoder", "task=autoencoder"]
    assert refusal([*autoencoder, "task.noise=0.1"], autoencoder) == "the jobs differ in the keys of task=autoencoder"
    assert refusal(["trainer.ema=0"], ["trainer.ema=0.9"]) == "trainer.ema is 0 in some of the jobs"
    assert refusal(["model.hidden=[16]"], ["model.hidden=[8]"]).startswith("1.weight: shapes")
    assert refusal(["data.batch_size=8"], ["data.batch_size=16"]).startswith("the data has another shape")


def test_jobs_that_differ_in_rates_only_are_stacked():
    points = itertools.product(["model=mlp", "model=linear"], ["optimizer.lr=0.1", "optimizer.lr=0.2"], range(3))
    jobs = [Job(i, [model, lr, f"seed={seed}"]) for i, (model, lr, seed) in enumerate(points)]
    assert plan(jobs, "auto", 1) == "jobs that differ in model train in stacks of their own"
    assert [job.stack for job in jobs] == [0] * 6 + [6] * 6
    plan(jobs, 4, 1)
    assert [job.stack for job in jobs] == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9]
    divide(jobs[:3], halves([0, 1, 2]))
    assert [job.stack for job in jobs[:3]] == [0, 0, None] and halves([0, 1]) == []
    divide(jobs[:3], [[0, 2]])
    assert [job.stack for job in jobs[:3]] == [0, None, 0]
    plan(two := [Job(i, [f"seed={i}"]) for i in range(8)], "auto", 2)  # two processes at once
    assert [job.stack for job in two] == [0] * 4 + [4] * 4
    plan(rates := [Job(i, [f"model.dropout={rate}"]) for i, rate in enumerate((0, 0.1, 0.2))], "auto", 1)
    assert [job.stack for job in rates] == [None, 1, 1]  # without dropout there is no such layer
    lists = ("0.0", "[0,0.5,0.5]", "[0,0.1,1e-3]", "[0.5,0,0]")
    plan(places := [Job(i, [f"model.dropout={rates}"]) for i, rates in enumerate(lists)], "auto", 1)
    assert [job.stack for job in places] == [None, 1, 1, None]
    plan(off := [Job(i, [f"seed={i}"]) for i in range(2)], "off", 1)
    assert [job.stack for job in off] == [None, None]
    assert parse(which(3, jobs[:2], "auto")) == (True, 3, [0, 1])
    with pytest.raises(UserError, match="is for sweeps"):
        parse("no")


def test_the_jobs_of_a_stack_in_words():
    assert [spoken(numbers) for numbers in ([0], [0, 4], [0, 1], [0, 1, 2], [0, 3, 4, 5, 6])] == [
        "0", "0 and 4", "0 and 1", "0 to 2", "0 and 3 to 6",
    ]  # fmt: skip
    assert spoken([0, 1, 2, 5], first=1, to="-") == "1-3 and 6"


@pytest.mark.slow
def test_seeds_in_one_command(tmp_path):
    arguments = ["seeds=4", "seed=5", "data=moons", "trainer.epochs=3", "sweep.stack=4", f"output_dir={tmp_path}"]
    done = subprocess.run([sys.executable, "-m", "dlrun", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "4 jobs (0 to 3) train as one network" in done.stdout, done
    (sweep,) = tmp_path.glob("*/*_sweep")
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert [job["status"] for job in jobs] == ["finished"] * 4
    assert [read_summary(sweep / str(n))["seed"] for n in range(4)] == [5, 6, 7, 8]
    assert (sweep / "best" / "plots" / "loss.png").exists()


@pytest.mark.slow
def test_folds_of_unequal_size_train_in_stacks_of_their_own(tmp_path):
    words = ["-m", "data=moons", "data.source.samples=202", "data.folds=3", "seed=0,1", "sweep.stack=8"]
    command = [sys.executable, "-m", "dlrun", *words, "trainer.epochs=2", f"output_dir={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "train in stacks of " in done.stdout, done
    assert "the jobs differ in the number of train samples" in done.stdout
    (sweep,) = tmp_path.glob("*/*_sweep")
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    assert {job["status"] for job in jobs} == {"finished"} and len({job["stack"] for job in jobs}) == 2
    assert len((sweep / "out_of_fold.csv").read_text().splitlines()) > 200


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["none", "asha"])
def test_a_stacked_search_that_was_killed_ends_with_the_same_bits(pruner, tmp_path):
    """SIGKILL for the sweep and its stack at random moments; each job once."""
    space = ["sweep=optuna", "sweep.trials=12", "sweep.sampler=random", "sweep.stack=6", f"sweep.pruner={pruner}"]
    space += ["optimizer.lr=tag(log,interval(1e-4,1e-1))", "data=moons", "trainer.epochs=12"]
    space += ["trainer.checkpoint_every_steps=3", "trainer.checkpoint_gap=0", "trainer.log_every=0"]

    def start(kind: str, *words: str) -> subprocess.Popen:
        command = [sys.executable, "-m", "dlrun", "-m", *words, f"output_dir={tmp_path / kind}"]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    begun, draw, kills = time.monotonic(), random.Random(0), 0
    assert start("whole", *space).wait() == 0
    seconds = time.monotonic() - begun
    process = start("cut", *space)
    while kills < 5:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(0.2, 0.8) * seconds)
        if process.poll() is not None:
            break
        family = [*children(process.pid), process.pid]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        kills += 1
        sweeps = list((tmp_path / "cut").glob("*/*_sweep/sweep.json"))
        process = start("cut", *(["sweep.resume=last"] if sweeps else space))
    assert process.wait() == 0 and kills
    whole, cut = (next((tmp_path / kind).glob("*/*_sweep")) for kind in ("whole", "cut"))
    jobs = [json.loads((folder / "sweep.json").read_text())["jobs"] for folder in (whole, cut)]
    for one, other in zip(*jobs, strict=True):
        assert one["overrides"][:-1] == other["overrides"][:-1]  # the last one is output_dir
        assert all(one[name] == other[name] for name in ("status", "values", "stack"))
        assert_same(whole / str(one["number"]), cut / str(one["number"]))
    assert {job["status"] for job in jobs[0]} == ({"finished", "pruned"} if pruner == "asha" else {"finished"})


def children(pid: int) -> list[int]:
    """The processes that a process started, and those that they started."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *children(child)]
    return found
