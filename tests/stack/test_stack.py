"""Jobs that train as one network: each ends as it would alone, also when other jobs leave."""

import os
import resource
import subprocess
import sys
from copy import deepcopy
from functools import partial

import pytest
import runs
import torch
from runs import compose, rows, same, state
from stacks import COMMON, JOBS, OTHERS, together

from dlrun.output.checkpoints import Checkpoints
from dlrun.output.folders import read_summary
from dlrun.stack.functions import NotStackable
from dlrun.stack.run import make_job
from dlrun.stack.stacked import Stack
from dlrun.stack.stacked_job import StackedJob
from dlrun.stack.trial import gain
from dlrun.sweep.population import Successor
from dlrun.train.session import Session


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
            assert found == pytest.approx(wanted, rel=1e-4, abs=1e-4)
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
    found = Stack(members, Checkpoints(tmp_path), "id").learner.evaluate(
        [data] * 3, [m.training.clock for m in members]
    )
    assert len({each["loss"] for each in found}) == 3 and found[0].keys() == wanted[0].keys()
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


QUICK = ("autoencoder", "gan", "wgan_gp", "ppo", "dqn", "pixels", "pixels_ppo")  # the others are slow tests
NAMES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in OTHERS]


@pytest.mark.thorough(but=["dqn", "autoencoder"])
@pytest.mark.parametrize("name", NAMES)
def test_other_tasks_log_what_they_log_alone(name, tmp_path, monkeypatch):
    """Their steps are those of one job: each draws its own noise, and each of their updates is one of its own."""
    monkeypatch.setattr("dlrun.train.session.Session.finish", lambda *args: None)
    chosen = [] if any(each.startswith("task=") for each in OTHERS[name]) else [f"task={name}"]
    common = [*OTHERS[name], *chosen, "trainer.log_every=1", f"trainer.device={runs.DEVICE}"]
    configs = [compose(*common, *job) for job in (["seed=1"], ["seed=2", "optimizer.lr=3e-3"])]
    assert together(tmp_path / "stack", configs)
    for number, one in enumerate(configs):
        runs.train(tmp_path / "alone" / str(number), one, finish=True)
        for wanted, found in zip(*(rows(tmp_path / kind / str(number)) for kind in ("alone", "stack")), strict=True):
            assert found.keys() == wanted.keys()
            counts = ("acc", "miou")  # of pixels: one that is decided by a last bit is 1/4096 of them
            wanted = {key: value for key, value in wanted.items() if not key.endswith(counts)}
            assert {k: found[k] for k in wanted} == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def test_a_job_that_diverges_leaves_the_others_alone(config, tmp_path):
    configs = [config("optimizer=sgd", f"seed={n}", f"optimizer.lr={lr}") for n, lr in enumerate((0.1, 1e30, 0.1))]
    assert together(tmp_path / "with", configs)
    assert [read_summary(tmp_path / "with" / n)["status"] for n in "012"] == ["finished", "diverged", "finished"]
    assert together(tmp_path / "without", [configs[0], configs[2]])
    for a, b in (("0", "0"), ("2", "1")):
        for one, other in zip(rows(tmp_path / "with" / a), rows(tmp_path / "without" / b), strict=True):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("decays", [(0, 1e30, 0), (1e30, 1e30, 1e30)])
def test_jobs_whose_last_step_is_too_large_leave_the_others_alone(decays, config, tmp_path):
    """Their loss is finite, their weights are not: the checkpoint at the limit notices it."""
    words = "optimizer=sgd", "trainer.max_steps=1"
    own = [[f"optimizer.weight_decay={decay}", f"optimizer.lr={max(decay, 0.1)}"] for decay in decays]
    configs = [config(*words, *each) for each in own]
    assert together(tmp_path, configs)
    wanted = ["diverged" if decay else "finished" for decay in decays]
    assert [read_summary(tmp_path / n)["status"] for n in "012"] == wanted


def test_a_rate_of_a_group_stays_when_a_population_changes_the_others(config, tmp_path):
    """As in a job alone with the new rate."""
    words = ["optimizer=adamw", "optimizer.groups={biases:{lr:0.2}}", "optimizer.lr=0.01"]
    members = [make_job(k, *config(*words, f"seed={k}"), tmp_path / str(k)) for k in range(2)]
    source = {name: each.state_dict() for name, each in members[0].session.task.components.items()}
    members[1].training.run.folder.mkdir()
    with open(os.devnull, "w") as members[1].training.run.out:
        members[1].take_over(source, Successor(member=1, source=0, values={"optimizer.lr": 0.05}))
    members[1].training.run.close()
    stack = Stack(members, Checkpoints(tmp_path), "id")
    (update,) = stack.updates.values()
    rates = {tuple(piece.param.shape): rate.tolist() for piece, rate in update._set_rates()}
    assert rates[2, 16, 784] == pytest.approx([0.01, 0.05]) and rates[2, 16] == pytest.approx([0.2, 0.2])


@pytest.mark.parametrize("name", ["mlp", "dqn", "ppo", "a2c"])
def test_a_trial_leaves_no_trace(name, config, tmp_path):
    """It takes steps with the jobs' optimizers, environments and statistics, and undoes them."""
    jobs = [config(*COMMON, *job) for job in JOBS] if name == "mlp" else []
    jobs = jobs or [compose(*OTHERS[name], f"task={name}", f"seed={k}") for k in range(2)]
    members = [make_job(k, *job, tmp_path / str(k)) for k, job in enumerate(jobs)]
    stack = Stack(members, Checkpoints(tmp_path), "id")
    before = deepcopy({number: part["state"]["components"] for number, part in stack.parts()[0].items()})
    assert gain(stack).step > 0
    after = {number: part["state"]["components"] for number, part in stack.parts()[0].items()}
    assert same(before, after)


@pytest.mark.parametrize(("together", "repetitions"), [(0.6, 6), (0.7, 41)])
def test_a_trial_ends_early_if_its_gain_is_clear(together, repetitions, config, tmp_path, monkeypatch):
    """Two jobs: 2 / 0.6 is more than 3 times the speed, 2 / 0.7 is less."""
    taken = []
    monkeypatch.setattr("dlrun.stack.trial.SECONDS", 1000.0)
    monkeypatch.setattr(
        "dlrun.stack.trial.seconds", lambda steps: taken.append(steps) or (1.0, together)[len(taken) % 2 - 1]
    )
    members = [make_job(k, *config(*COMMON, f"seed={k}"), tmp_path / str(k)) for k in range(2)]
    assert gain(Stack(members, Checkpoints(tmp_path / "stack"), "id")) == (1.0, together)
    assert len(taken) == 2 * repetitions


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


LATE = """
import torch
from torch import nn
from dlrun.spec import Image

class Late(nn.Module):
    def __init__(self, spec: Image) -> None:
        super().__init__()
        self.layer = nn.Linear(spec.features, spec.outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training and len(x) % 64:  # the last batch of an epoch
            torch.cat([self.layer.weight, self.layer.weight])
        return self.layer(x.flatten(1))
"""


@pytest.mark.slow
def test_jobs_of_a_stack_that_fails_in_a_later_step_train_alone(tmp_path):
    (tmp_path / "late.py").write_text(LATE)
    own = {"PYTHONPATH": str(tmp_path), "DL_RUN_ALLOW": "late", "COLUMNS": "200"}
    words = ["data=digits", "model=late.Late", "trainer.epochs=2", "sweep.stack=2", "seeds=2", f"output_dir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-m", "dlrun", *words], capture_output=True, text=True, check=False, env=os.environ | own
    )
    assert done.returncode == 0 and "layer.weight of Linear: cat has no stacked form" in done.stdout, done
    found = [read_summary(path.parent)["status"] for path in tmp_path.glob("*/*/[0-9]/summary.json")]
    assert found == ["finished"] * 2


class Adam(torch.optim.Adam):
    """Normalises the gradients of a tensor, though its name is that of an optimizer that treats each number alone."""

    def step(self, closure: None = None) -> None:
        for param in self.param_groups[0]["params"]:
            param.grad = param.grad / param.grad.norm()
        super().step()


def test_an_optimizer_that_is_named_like_one_of_torch_sees_one_job_at_a_time(config, tmp_path, monkeypatch):
    monkeypatch.setattr("dlrun.train.session.plot", lambda *args: None)
    configs = []
    for k in range(2):
        plain, names = config("model.hidden=[8]", f"seed={k}", "schedule=cosine")
        own = {"_target_": f"{__name__}.Adam", "lr": 0.01 * (1 + k), "fused": True}
        configs.append((deepcopy(plain) | {"optimizer": own}, names))
    assert together(tmp_path / "stack", configs, is_tried=True)
    for number, one in enumerate(configs):
        runs.train(tmp_path / "alone" / str(number), one, finish=True)
        wanted, found = (
            [row["val/loss"] for row in rows(tmp_path / kind / str(number)) if "val/loss" in row]
            for kind in ("alone", "stack")
        )
        assert len(wanted) == 4 and found == pytest.approx(wanted, rel=1e-5)


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
