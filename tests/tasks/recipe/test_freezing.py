"""Frozen layers, unfreezing by the clock, rates by layer."""

from collections import OrderedDict
from signal import SIGTERM

import pytest
import torch
from runs import SMALL, assert_same, compose, rows, state, train, write_mnist
from torch import nn
from toys import CPU, make_task, seeded

from dlrun.clock import Clock
from dlrun.errors import UserError
from dlrun.seeds import Reseeder
from dlrun.spec import Image
from dlrun.tasks.recipe.freezing import matching, named

SPEC = Image((1, 4, 4), 3)
BODY = ["stem.0.weight", "stem.1.weight", "stem.1.bias", "body.0.weight", "body.1.weight", "body.1.bias"]
HEAD = ["head.weight", "head.bias"]
RESTING = ["running_mean", "running_var", "num_batches_tracked"]


def net() -> nn.Module:
    """Two convolutions with BatchNorm, and a head."""
    with seeded():
        parts = {
            "stem": nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
            "body": nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()),
            "head": nn.Linear(16, 3),
        }
        return nn.Sequential(OrderedDict(parts))


def trained(steps: int = 8, epochs: int = 2, optimizer: str = "sgd", task: dict | None = None, **keys) -> list[dict]:
    """The net's state at the start and after each step."""
    task = make_task(net(), SPEC, optimizer, task=task, **keys)
    clock, reseed, states = Clock(0, epochs, steps // epochs), Reseeder(CPU), []
    with seeded():
        x, y = torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
        for step in range(steps + 1):
            states.append({name: value.clone() for name, value in task.net.state_dict().items()})
            if step == steps:
                break
            task.net.train()  # as in the engine
            reseed(0, clock.step)
            task.step((x, y), clock)
            clock.tick(6)
            if clock.batch == clock.steps_per_epoch:
                clock.next_epoch()
    return states


def changed(before: dict, after: dict) -> set[str]:
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def statistics(*layers: str) -> set[str]:
    return {f"{layer}.1.{name}" for layer in layers for name in RESTING}


def test_auxiliary_heads_count_as_heads():
    """Otherwise they would keep their initial weights and disturb the body."""
    assert matching(["a.weight", "aux1.fc.bias", "fc.weight"], "head", "") == {"aux1.fc.bias", "fc.weight"}


def test_a_layer_freezes_at_its_time():
    """Its norm keeps its statistics, too; other layers continue to learn. Layers can be frozen again."""
    states = trained(task=dict(freeze_from=[["stem", 1]]))
    assert changed(states[3], states[4]) == {*BODY, *HEAD, *statistics("stem", "body")}
    assert changed(states[4], states[8]) == {*BODY[3:], *HEAD, *statistics("body")}
    states = trained(task=dict(freeze=["stem"], unfreeze=[["stem", 0.5]], freeze_from=[["stem", 1.5]]))
    learns = ["stem.0.weight" in changed(*pair) for pair in zip(states, states[1:], strict=False)]
    assert learns == [False, False, True, True, True, True, False, False]
    with pytest.raises(UserError, match="task.freeze_from has 'stm', which matches nothing"):
        trained(task=dict(freeze_from=[["stm", 1]]))


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_frozen_weights_do_not_change_by_a_bit(optimizer):
    """Its statistics do not change, either; weight decay does not apply."""
    decay = dict(weight_decay=0.1, lr=0.01)
    for freeze in (["stem", "body"], ["*", "!head"], ["stem.*", "body.?.*"], ["*", "!*.weight", "stem", "body"]):
        first, *_, last = trained(task=dict(freeze=freeze), optimizer=optimizer, **decay)
        assert changed(first, last) == set(HEAD) if "!*.weight" not in freeze else {"head.weight"}
    first, *_, last = trained(task=dict(freeze=["stem"]), optimizer=optimizer, **decay)
    assert changed(first, last) == {*BODY, *HEAD, *statistics("body")} - set(BODY[:3])
    first, *_, last = trained(optimizer=optimizer, **decay)
    assert changed(first, last) == {*BODY, *HEAD, *statistics("stem", "body")}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_weights_learn_from_their_time_on(optimizer):
    """The recipe: the head, then from the top; at 0.5 epochs of 4 steps and at 1."""
    task = dict(freeze=["stem", "body"], unfreeze=[["body", 0.5], ["*", 1]])
    states = trained(task=task, optimizer=optimizer)
    moves = [changed(before, after) for before, after in zip(states, states[1:], strict=False)]
    head, body, stem = set(HEAD), {*BODY[3:], *statistics("body")}, {*BODY[:3], *statistics("stem")}
    assert moves == [head] * 2 + [head | body] * 2 + [head | body | stem] * 4


def test_a_head_after_frozen_layers_learns_as_it_would_alone():
    """A head after a frozen body learns as it would alone on the outputs of the body."""
    frozen = trained(task=dict(freeze=["stem", "body"]))
    whole = net().eval()
    with seeded():
        x, y = torch.randn(6, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    features = nn.Sequential(whole.stem, whole.body)(x).detach()
    task = make_task(nn.Sequential(whole.head), SPEC, "sgd")
    for step in range(8):
        task.step((features, y), Clock(0, 1, 8, step=step, batch=step))
    assert torch.allclose(task.net[0].weight, frozen[-1]["head.weight"], atol=1e-6)


def test_rates_are_factors_on_the_learning_rate():
    """The first step of plain SGD is the rate times the gradient; the last matching pattern counts."""
    plain = dict(momentum=0.0, nesterov=False, lr=0.5)
    moves = []
    for rates in ([], [["*", 0.25], ["body", 0.5], ["head", 1.0]]):
        before, after = trained(1, 1, task=dict(lr_multipliers=rates), **plain)
        moves.append({name: after[name] - before[name] for name in before})
    for name in BODY + HEAD:
        factor = 0.25 if name.startswith("stem") else 0.5 if name.startswith("body") else 1.0
        assert torch.allclose(moves[1][name], factor * moves[0][name], rtol=1e-3, atol=1e-6), name


def test_the_schedule_scales_all_rates_and_the_base_rate_is_logged(tmp_path):
    keys = [
        "schedule=cosine",
        "schedule.warmup_fraction=0.0",
        "optimizer=sgd",
        "task.lr_multipliers=[['*',0.1]]",
        "trainer.epochs=2",
    ]
    small = [key for key in SMALL if not key.startswith("trainer.epochs")]
    train(tmp_path / "a", compose(f"data_dir={write_mnist(tmp_path)}", *small, *keys))
    (group,) = state(tmp_path / "a")["components"]["update"]["optimizer"]["param_groups"]
    assert group["lr"] == pytest.approx(0.1 * rows(tmp_path / "a")[-1]["lr"])


CASES = {
    "sgd": ["optimizer=sgd", "schedule=one_cycle"],
    "adam": ["optimizer=adam", "optimizer.weight_decay=0.01", "trainer.ema=0.9"],
    "steps": ["optimizer=rmsprop", "task.grad_accum_steps=2", "trainer.clip_global_norm=0.5", "trainer.on_nan=skip"],
    "bf16": ["optimizer=adamw", "trainer.precision=bf16"],
}


@pytest.mark.thorough(but=["steps"])
@pytest.mark.parametrize("case", CASES)
def test_resuming_across_an_unfreezing_is_exact(case, tmp_path):
    """2 epochs of 4 steps; the last but one layer learns from step 2 on, the first from step 6 on."""
    small = [key for key in SMALL if not key.startswith("model.")] + ["model.hidden=[16,8]", "model.norm=batch"]
    layers = sorted(state_names(compose(*small)[0]))
    first, second = layers[0], layers[2]
    keys = [f"task.freeze=['{first}','{second}']", f"task.unfreeze=[['{second}',0.5],['{first}',1.5]]"]
    keys += [f"task.lr_multipliers=[['{first}',0.1]]"]
    config = compose(f"data_dir={write_mnist(tmp_path / 'data')}", *small, *keys, *CASES[case])
    train(tmp_path / "a", config)
    for step in (0, 1, 2, 5, 6):
        outcome = train(tmp_path / "b", config, resumed=step > 0, signals={step: SIGTERM})
        assert outcome.reason == "signal" and state(tmp_path / "b")["clock"]["step"] == step + 1
    assert train(tmp_path / "b", config, resumed=True).reason == "finished"
    assert_same(tmp_path / "a", tmp_path / "b")


def state_names(config: dict) -> set[str]:
    """The names of a model's layers that have weights."""
    from dlrun.config.build import build

    names = build(config["model"])(Image((1, 28, 28), 10)).state_dict()
    return {name.rpartition(".")[0] for name in names}


@pytest.mark.parametrize(("keys", "message"), [
    (dict(freeze=["stm"]), "task.freeze has 'stm', which matches nothing\n  expected .*: stem.0.weight"),
    (dict(freeze=["*", "!haed"]), "task.freeze has '!haed', which matches nothing"),
    (dict(freeze=["*"]), r"task.freeze=\['\*'\] freezes every parameter at the start: stem.0.weight"),
    (dict(freeze=["*"], unfreeze=[["*", 1]]), "freezes every parameter at the start"),
    (dict(freeze=["stem"], unfreeze=[["body", 1]]), "task.unfreeze has 'body', which is not frozen\n  expected"),
    (dict(unfreeze=[["tail", 1]]), "task.unfreeze has 'tail', which matches nothing"),
    (dict(lr_multipliers=[["tail", 1.0]]), "task.lr_multipliers has 'tail', which matches nothing"),
])  # fmt: skip
def test_bad_patterns_are_reported(keys, message):
    with pytest.raises(UserError, match=message):
        make_task(net(), SPEC, "sgd", task=keys)


def test_the_head_is_the_last_layer_where_nothing_has_that_name():
    assert matching(["0.weight", "0.bias", "3.weight", "3.bias"], "head", "") == {"3.weight", "3.bias"}
    assert matching(["head.0.weight", "head.0.bias", "fc.weight"], "head", "") == {"head.0.weight", "head.0.bias"}


def test_long_lists_of_weights_are_shortened_to_their_modules():
    names = [f"stage{i}.{j}.conv.weight" for i in range(4) for j in range(10)] + ["head.bias"]
    assert named(names) == "stage0.*, stage1.*, stage2.*, stage3.*, head.*"
    assert matching(names, "stage1", "") == {name for name in names if name.startswith("stage1.")}
