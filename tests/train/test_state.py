"""The state of a training: what is never saved, and which checkpoints and data a resumed run refuses."""

import signal

import pytest
import runs
import torch
from runs import STRAIGHT, assert_same, state, train

from dlrun.clock import Clock
from dlrun.errors import CheckpointError, DataError, Diverged, UserError
from dlrun.output.checkpoint import load, save
from dlrun.output.run_folder import RunFolder
from dlrun.train.state import Training, all_finite


@pytest.mark.parametrize("histograms", ["false", "true"])
def test_weights_that_are_not_finite_are_never_saved(histograms, session, tmp_path):
    made = session(f"trainer.histograms={histograms}")
    learn = made.task.step

    def step(batch, clock):
        metrics = learn(batch, clock)
        if clock.step == 5:
            with torch.no_grad():
                next(made.task.net.parameters())[:] = float("inf")
            made.task.step = lambda batch, clock: {"loss": torch.zeros(())}
        return metrics

    made.task.step = step
    with pytest.raises(Diverged, match="the weights are no longer finite in epoch 3, step 8"):
        made.start(tmp_path, resumed=False)
    assert state(tmp_path)["clock"]["step"] == 4


def test_a_network_may_hold_a_mask_of_infinities(session, tmp_path):
    made = session()
    made.task.net.register_buffer("mask", torch.tensor(-torch.inf))
    made.start(tmp_path, resumed=False)
    assert state(tmp_path)["components"]["net"]["mask"].isinf()


@pytest.mark.parametrize(("value", "finite"), [(0.5, True), (float("inf"), False), (float("nan"), False)])
def test_all_finite_checks_nested_values(value, finite):
    assert (
        all_finite({"a": [torch.ones(2), (torch.tensor([1, 2]), {"b": torch.tensor([1.0, value])})], "c": None})
        == finite
    )


@pytest.mark.parametrize(
    "change",
    [
        {"clock": {"step": 1}}, {"clock": 3}, {"clock": {"step": -1}, "add": True},
        {"clock": {"step": "4"}, "add": True}, {"clock": {"epochs": 1}, "add": True},
        {"means": []}, {"means": {"sums": 3}, "add": True}, {"rows": "x"}, {"rows": -1},
        {"threads": 0}, {"threads": "2"},
        {"components": 5}, {"components": {"net": 3}, "add": True}, {"best": 4}, {"best": {"score": "x"}, "add": True},
    ],
)  # fmt: skip
def test_a_checkpoint_with_invalid_content_is_refused(change, config, tmp_path):
    train(tmp_path, config(), signals={4: signal.SIGTERM})
    path = tmp_path / "checkpoints" / "last.ckpt"
    state, ((key, value), *add) = load(path), change.items()
    save(path, {**state, key: {**state[key], **value} if add else value})
    with pytest.raises(CheckpointError, match="expected"):
        train(tmp_path, config(), resumed=True)


def test_a_checkpoint_with_other_components_is_refused(session, tmp_path):
    made = session()
    run = RunFolder(tmp_path, {})
    training = Training(made.task, made.trainer, run, Clock(0, 1, 4), {})
    with pytest.raises(CheckpointError, match=r"holds \['critic', 'net'\], expected \['net', 'update'\]"):
        training.restore({"components": {"net": {}, "critic": {}}})
    run.close()


def change(path, key, value):
    """Change a value in a checkpoint and renew its SHA-256. key: a path in the checkpoint."""
    found = load(path)
    *outer, last = key.split("/")
    inner = found
    for name in outer:
        inner = inner[int(name) if name.isdecimal() else name]
    inner[last] = value
    save(path, {name: part for name, part in found.items() if name not in ("format", "version")})


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("components/update/optimizer/state/0/exp_avg", torch.zeros(1), r"does not fit a weight .* \(16, 784\)"),
        ("components/update/optimizer/state/0/exp_avg", "x", "exp_avg does not fit"),
        ("components/update/skipped", "x", "skipped: unexpected type str"),
        ("components/net/1.weight", torch.zeros(16, 784, dtype=torch.cfloat), "a tensor of an unexpected kind"),
        ("clock/step", 10**30, "expected numbers of at least 0"),
        ("clock/seed", 77, "expected numbers of at least 0"),
        ("best/metric", "acc", "this run's by 'loss'"),
        ("means/samples", {"train/loss": "x"}, "expected"),
        ("threads", 2**40, "out of range"),
    ],
)
def test_an_edited_checkpoint_with_a_valid_hash_is_refused(key, value, why, stopped, config):
    """Anyone can compute the SHA-256; with tensors that are too small, kernels would write past their end."""
    for name in ("last", "previous"):
        change(stopped / "checkpoints" / f"{name}.ckpt", key, value)
    with pytest.raises(CheckpointError, match=why):
        train(stopped, config(*STRAIGHT), resumed=True)


def test_settings_of_the_optimizer_come_from_the_config(stopped, config, straight):
    group = load(stopped / "checkpoints" / "last.ckpt")["components"]["update"]["optimizer"]["param_groups"][0]
    changed = [group | {"lr": 9.0, "betas": (0.1, 0.1)}]
    change(stopped / "checkpoints" / "last.ckpt", "components/update/optimizer/param_groups", changed)
    train(stopped, config(*STRAIGHT), resumed=True)
    assert_same(straight, stopped)


@pytest.mark.parametrize("what", ["train-labels", "train-images", "t10k-labels"])
def test_changed_data_is_refused(what, config, tmp_path):
    runs.write_mnist(tmp_path / "data")
    composed = config(f"data_dir={tmp_path / 'data'}")
    train(tmp_path / "run", composed, signals={5: signal.SIGTERM})
    (path,) = (tmp_path / "data").rglob(f"{what}*")
    content = bytearray(path.read_bytes())
    content[-1] = 1 if content[-1] != 1 else 2
    if what == "train-images":
        content[16:] = content[16:][::-1]
    path.write_bytes(content)
    with pytest.raises(DataError, match="(?s)the data has changed.*init="):
        train(tmp_path / "run", composed, resumed=True)


def test_the_same_data_in_another_folder_is_accepted(stopped, config, straight, tmp_path_factory):
    train(stopped, config(*STRAIGHT, f"data_dir={runs.write_mnist(tmp_path_factory.mktemp('other'))}"), resumed=True)
    assert_same(straight, stopped)


def test_fewer_epochs_than_have_begun_are_refused(stopped, config):
    with pytest.raises(UserError, match="trainer.epochs=1: the run is already in epoch 2"):
        train(stopped, config(*STRAIGHT, "trainer.epochs=1"), resumed=True)


def test_a_network_that_does_not_fit_the_checkpoint_is_reported(stopped, config):
    with pytest.raises(CheckpointError, match="checkpoint's 'net' does not fit the config"):
        train(stopped, config(*STRAIGHT, "model.hidden=[17]"), resumed=True)
