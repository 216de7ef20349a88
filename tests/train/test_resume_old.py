"""Resuming is exact: a run that was stopped, by a signal or by the death of its process, and resumed ends with the same
bits and the same metrics as one that never was."""

import hashlib
import json
import os
import random
import shutil
import signal
import time
import warnings
import zipfile
from contextlib import suppress

import pytest
import runs
import torch
import yaml
from reviews import write_reviews
from runs import SMALL, assert_same, compose, dl_run, ended, rows, state, train, wait_for
from toys import kinds, options, takes

from dlrun.errors import CheckpointError, DataError, PairingError, UserError
from dlrun.output import checkpoint
from dlrun.output.checkpoint import load, save
from dlrun.output.checkpoints import Checkpoints
from dlrun.system.signals import ONE_REQUEST, Signals

STEPS = 8  # of a SMALL run
STRAIGHT = ("model.dropout=0.2", "trainer.monitor=loss")  # by which the second epoch is the best
MODELS = kinds([name for name in options("model") if takes(name) not in (["Env"], ["Function"], ["Series"])])
MODELS = [
    name for name in MODELS if name not in ("alexnet", "vgg16_imagenet", "polynomial", "operations", "convolution")
]  # plain, and 28x28 is too small for the first two; the others learn in one step, or nothing
DEEP = ("densenet121", "googlenet", "xception")  # with nothing in them that others have not
HALF = ("autoencoder", "gan", "gru", "lenet", "mlp", "resnet18", "unet", "vae")  # of each kind one
NARROW = {"widths": "[4,4,4]", "width": 4, "hidden": "[16]", "growth": 4}  # where a model has that key
OPTIMIZERS = sorted(p.stem for p in (runs.CONFIGS / "optimizer").glob("*.yaml"))
AUGMENT = "{flip: alternate, crop: 2, pad: reflect, rot90: true, cutout: 4, erase: 0.5, noise: 0.1, jitter: 0.2, "
AUGMENT += "policy: trivial}"
CASES = {
    "dropout": ["model.dropout=0.5", "model.norm=batch"],
    "augmentation": [f"data.augment={AUGMENT}".replace(": ", ":").replace(", ", ",")],
    "average": ["trainer.ema=0.9", "model.norm=batch", "optimizer=sgd", "schedule=cosine"],
    "penalties": ["task.l1=0.001", "task.l2=0.001", "task.label_smoothing=0.1", "trainer.clip_global_norm=0.5"],
    "pieces": ["task.grad_accum_steps=3", "model.dropout=0.2", "trainer.clip_value=0.01", "trainer.clip_norm=0.1"],
    "bf16": ["trainer.precision=bf16", "model.dropout=0.2", "optimizer=adamw", "schedule=one_cycle"],
    "rare": ["trainer.val_every=2", "trainer.log_every=0", "schedule=step"],
    "often": ["trainer.log_every=1", "trainer.checkpoint_every_steps=1", "trainer.monitor=val/loss", "schedule=linear"],
    "patience": ["trainer.epochs=9", "trainer.patience=2", "trainer.min_delta=9", "optimizer.lr=0.003"],
    "skip": ["trainer.on_nan=skip", "model.norm=batch", "trainer.ema=0.5"],
    "mixing": ["task.mixup=0.4", "task.cutmix=1.0", "task.test_flip=true", "task.test_shift=1"],
    "judged": [
        "data.sampler=balanced",
        "task.class_weights=balanced",
        "task.loss=focal",
        "task.metrics=[f1,top3,brier]",
    ],
    "ending": ["task.freeze_from=[['2',1]]", "optimizer=muon", "model.norm=batch"],
    "limit": ["trainer.max_steps=6"],
    **({"graphs": ["trainer.cuda_graph=true", "model.dropout=0.2"]} if runs.DEVICE == "cuda" else {}),
    "kinds": ["optimizer=sgd", "optimizer.groups={biases:{lr:0.5},head:{weight_decay:0.01}}", "model.norm=batch"],
    **{f"optimizer {name}": [f"optimizer={name}", "optimizer.weight_decay=0.01"] for name in OPTIMIZERS},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return write_reviews(runs.write_mnist(tmp_path_factory.mktemp("data")))


@pytest.fixture(scope="module")
def config(data_dir):
    """Composes a small run with these overrides."""
    return lambda *overrides: compose(f"data_dir={data_dir}", *SMALL, *overrides)


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    """The folder of a run that was never stopped."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(folder, config(*STRAIGHT))
    return folder


def narrow(model, data_dir, *overrides):
    """A model on the small images, or on points where it does not take images; as narrow as it can be."""
    given = yaml.safe_load((runs.CONFIGS / "model" / f"{model}.yaml").read_text())["model"]
    small = [o for o in SMALL if not o.startswith("model.")] + list(overrides)
    small += [f"model.{key}={value}" for key, value in NARROW.items() if key in given]
    small += ["model.form=cifar"] * (given.get("form") == "imagenet") + ["model.auxiliary=0.3"] * ("auxiliary" in given)
    if takes(model) == ["Series"]:
        return compose(f"model={model}", "data=eeg", *(o for o in small if o.startswith(("model.", "trainer."))))
    try:
        return compose(f"model={model}", f"data_dir={data_dir}", *small)
    except PairingError:
        pass
    try:
        other = [o for o in small if not o.startswith("data.source")]
        return compose(f"model={model}", *other, "data=moons", "data.source.samples=96")
    except PairingError:
        pass
    try:
        shapes = [o for o in small if not o.startswith(("data.source", "data=", "model.head"))]
        shapes += ["data=shapes", "data.source.samples=80", "data.source.test_samples=4", "data.spec.shape=[3,20,20]"]
        return compose(f"model={model}", *shapes, *["model.head=8"] * isinstance(given.get("head"), int))
    except PairingError:
        small += ["model.units=5"] * ("units" in given) + ["model.embedding.size=6"] * ("embedding" in given)
        return compose(f"model={model}", f"data_dir={data_dir}", *small, "data=imdb", "data.length=9", "data.vocab=30")


def test_a_run_keeps_its_number_of_threads(config, tmp_path, monkeypatch, capsys):
    """Whatever the machine or the sweep it goes on in has: with two, sums are rounded otherwise."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    composed = config("model.hidden=[64]", "data.batch_size=10")
    train(tmp_path / "a", composed)
    train(tmp_path / "b", composed, signals={5: signal.SIGTERM})
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    try:
        torch.set_num_threads(2)
        train(tmp_path / "b", composed, resumed=True)
        assert torch.get_num_threads() == 1 and "threads: 1 as before, for bit-exact results" in capsys.readouterr().out
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        train(tmp_path / "c", composed, resumed=True)
        assert torch.get_num_threads() == 2 and "threads: 1 before, now 2 (OMP_NUM_THREADS)" in capsys.readouterr().out
    finally:
        torch.set_num_threads(1)
    assert_same(tmp_path / "a", tmp_path / "b")


# Stopped by a signal


@pytest.mark.parametrize(
    ("model", "precision"),
    [
        pytest.param(model, precision, marks=[] if model in kept else pytest.mark.slow)
        for precision, kept in (("fp32", set(MODELS) - set(DEEP)), ("bf16", HALF), ("fp16", HALF))
        for model in MODELS
        if precision != "fp16" or runs.DEVICE == "cuda"
    ],
)
def test_every_model_resumes_to_the_bit(model, precision, data_dir, tmp_path):
    composed = narrow(model, data_dir, f"trainer.precision={precision}")
    train(tmp_path / "a", composed)
    assert train(tmp_path / "b", composed, signals={5: signal.SIGTERM}).number == signal.SIGTERM
    assert state(tmp_path / "b")["clock"]["step"] == 6
    assert train(tmp_path / "b", composed, resumed=True).reason == "finished"
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler is here")
@pytest.mark.filterwarnings("ignore")  # of torch's compiler about itself
@pytest.mark.parametrize("model", ["mlp", "resnet18", "gan", "vae", "adversarial_autoencoder"])
def test_compiled_nets_resume_to_the_bit(model, data_dir, tmp_path):
    composed = narrow(model, data_dir, "trainer.compile=true", "trainer.deterministic=true")
    train(tmp_path / "a", composed)
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 2  # torch says nothing where it leaves a net as it is
    assert torch._inductor.config.deterministic
    torch.compiler.reset()
    train(tmp_path / "b", composed, signals={2: signal.SIGTERM})  # what is compiled next is for the last, smaller batch
    torch.compiler.reset()
    train(tmp_path / "b", composed, resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    train(tmp_path / "c", narrow(model, data_dir))
    compiled, plain = rows(tmp_path / "a")[-1], rows(tmp_path / "c")[-1]
    assert compiled["train/loss"] == pytest.approx(plain["train/loss"], rel=0.05)  # Adam makes much of rounding


@pytest.mark.parametrize("case", CASES)
def test_every_setting_resumes_to_the_bit_twice(case, config, tmp_path):
    composed, nan_at = config(*CASES[case]), (2, 4) if case == "skip" else ()
    end = train(tmp_path / "a", composed, nan_at=nan_at)
    assert end.reason == {"patience": "patience", "limit": "max_steps"}.get(case, "finished")
    signals = {1: signal.SIGINT, 4: signal.SIGTERM}
    for number in (signal.SIGINT, signal.SIGTERM):
        outcome = train(tmp_path / "b", composed, resumed=number != signal.SIGINT, signals=signals, nan_at=nan_at)
        assert (outcome.reason, outcome.number) == ("signal", number)
    assert train(tmp_path / "b", composed, resumed=True, nan_at=nan_at).reason == end.reason
    assert_same(tmp_path / "a", tmp_path / "b")
    if case == "skip":
        assert state(tmp_path / "b")["components"]["update"]["skipped"] == 2
        assert rows(tmp_path / "b")[-1]["train/skipped_steps"] == 2
    if case == "patience":
        assert rows(tmp_path / "b")[-1]["epoch"] == 3  # 1, and 2 without a better one


@pytest.mark.parametrize("step", range(STEPS))
def test_a_stop_at_any_step_is_exact(step, config, straight, tmp_path):
    composed = config(*STRAIGHT)
    train(tmp_path, composed, signals={step: signal.SIGTERM})
    train(tmp_path, composed, resumed=True)
    assert_same(straight, tmp_path)


def test_a_stop_in_an_evaluation_is_exact(config, straight, tmp_path, monkeypatch):
    from dlrun.tasks.supervised import Supervised

    evaluate, calls = Supervised.evaluate, []

    def stopping(self, data, split):
        found = evaluate(self, data, split)
        calls.append(split)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the signal waited")
        return found

    monkeypatch.setattr(Supervised, "evaluate", stopping)
    composed = config(*STRAIGHT)
    assert train(tmp_path, composed).number == signal.SIGINT
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "stopped"
    train(tmp_path, composed, resumed=True)
    assert_same(straight, tmp_path)


def test_a_stop_in_the_final_test_loses_nothing(config, tmp_path, monkeypatch):
    from dlrun.tasks.supervised import Supervised

    with monkeypatch.context() as patch:
        patch.setattr(Supervised, "report", lambda self, data: signal.raise_signal(signal.SIGTERM))
        outcome = train(tmp_path, config(), finish=True)
    assert (outcome.reason, outcome.number) == ("signal", signal.SIGTERM)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert train(tmp_path, config(), resumed=True, finish=True).reason == "finished"
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "finished" and set(summary["test"]) >= {"test/acc", "test/loss"}


def test_the_handlers_of_signals_come_back(config, tmp_path):
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    train(tmp_path, config(), signals={2: signal.SIGINT})
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_slurms_warnings_save_and_stop(number, config, straight, tmp_path):
    """They may come twice, to the run and to the script that started it."""
    outcome = train(tmp_path, config(*STRAIGHT), signals={5: number})
    assert (outcome.reason, outcome.number) == ("signal", number)
    train(tmp_path, config(*STRAIGHT), resumed=True)
    assert_same(straight, tmp_path)
    with Signals() as signals:
        signal.raise_signal(number)
        signal.raise_signal(number)
        assert signals.stop == number


@pytest.fixture
def pressed(monkeypatch):
    """pressed((0, number), (1, number)) receives signals at these seconds; returns (signal to stop for, killed by)."""

    def press(*pairs):
        killed, now = [], [100.0]
        monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))
        monkeypatch.setattr(time, "monotonic", lambda: now[0])
        with Signals() as signals:
            for seconds, number in pairs:
                now[0] = 100.0 + seconds
                signal.raise_signal(number)
            return signals.stop, killed

    return press


def test_a_second_signal_stops_at_once(pressed):
    assert pressed((0, signal.SIGTERM)) == (signal.SIGTERM, [])
    assert pressed((0, signal.SIGTERM), (2, signal.SIGINT)) == (signal.SIGTERM, [signal.SIGINT])


@pytest.mark.parametrize("warning", [signal.SIGUSR1, signal.SIGHUP])
def test_sigterm_after_a_warning_is_the_first_request(warning, pressed):
    """SLURM's time limit; a third signal ends the run at once."""
    assert pressed((0, warning), (2, signal.SIGTERM)) == (warning, [])
    assert pressed((0, warning), (2, signal.SIGTERM), (4, signal.SIGTERM)) == (warning, [signal.SIGTERM])
    assert pressed((0, signal.SIGTERM), (2, warning)) == (signal.SIGTERM, [])


def test_a_signal_to_all_processes_and_through_their_parent_is_one(pressed):
    """systemd and SLURM signal each process of a job, and a launcher or a sweep passes its own on."""
    assert pressed((0, signal.SIGTERM), (0.2, signal.SIGTERM)) == (signal.SIGTERM, [])


def test_a_terminal_that_is_gone_may_say_so_twice(monkeypatch):
    """Its shell says it, too. What nohup started is not to hear it."""
    monkeypatch.setattr(os, "kill", lambda pid, number: pytest.fail("it stopped at once"))
    with Signals() as signals:
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)
        assert signals.stop == signal.SIGHUP
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            assert signals.stop is None
    finally:
        signal.signal(signal.SIGHUP, before)


# More of it


def test_more_epochs_are_as_if_from_the_start(config, tmp_path):
    short, long = config(*STRAIGHT), config(*STRAIGHT, "trainer.epochs=4")
    train(tmp_path / "a", long)
    train(tmp_path / "b", short, finish=True)  # the final test must leave no trace
    train(tmp_path / "b", long, resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.parametrize("limit", [3, 4, 6])
def test_a_higher_limit_is_as_if_from_the_start(limit, config, tmp_path):
    """Also where the weights in mid-epoch were the best so far: what was tested there is not what is tested now."""
    figures = lambda folder: [json.loads((folder / "summary.json").read_text())[k] for k in ("best", "test")]  # noqa: E731
    train(tmp_path / "a", config(), finish=True)
    low = config(f"trainer.max_steps={limit}")
    assert train(tmp_path / "b", low).reason == "max_steps"
    ended = rows(tmp_path / "b")
    assert ended[-1]["step"] == limit and "val/acc" in ended[-1]
    assert train(tmp_path / "b", low, resumed=True).reason == "max_steps"  # no further than before
    assert rows(tmp_path / "b") == ended
    assert train(tmp_path / "b", low, resumed=True, finish=True).reason == "max_steps"
    kept = {"last.ckpt", "previous.ckpt", "best.ckpt", f"tested_{limit}.ckpt"}
    assert {path.name for path in (tmp_path / "b" / "checkpoints").iterdir()} <= kept
    train(tmp_path / "b", config(), resumed=True, finish=True)
    assert not list((tmp_path / "b" / "checkpoints").glob("tested_*"))
    assert_same(tmp_path / "a", tmp_path / "b")
    assert figures(tmp_path / "a") == figures(tmp_path / "b")


def test_more_patience_goes_on(config, tmp_path):
    impatient = ["trainer.epochs=5", "trainer.min_delta=9", "trainer.patience=1"]
    train(tmp_path / "a", config(*impatient[:2]))
    assert train(tmp_path / "b", config(*impatient)).reason == "patience"
    assert len(rows(tmp_path / "b")) < len(rows(tmp_path / "a"))
    train(tmp_path / "b", config(*impatient[:2]), resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")


def test_weights_only_reads_every_checkpoint(straight):
    for name in ("last", "previous", "best"):
        found = torch.load(straight / "checkpoints" / f"{name}.ckpt", weights_only=True)
        assert found["format"] == checkpoint.FORMAT and found["state_dict"]


# TensorBoard


def points(folder):
    """Its scalars, as TensorBoard shows them: (step, value) by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorBoard's own
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        board = EventAccumulator(str(folder / "tensorboard"))
        board.Reload()
        return {name: [(e.step, e.value) for e in board.Scalars(name)] for name in board.Tags()["scalars"]}


@pytest.mark.parametrize(
    "every", [2, 4]
)  # the checkpoint before the kill: in mid-epoch; at an epoch's end, before its row
def test_tensorboard_shows_one_curve(every, config, tmp_path):
    composed = config(f"trainer.checkpoint_every_steps={every}", "trainer.log_every=2", "trainer.checkpoint_gap=99")
    train(tmp_path / "a", composed)
    with pytest.raises(Killed):
        die(tmp_path / "b", composed, step=6)
    time.sleep(1.1)  # TensorBoard orders its files by the second
    train(tmp_path / "b", composed, resumed=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    names = {name for row in rows(tmp_path / "a") for name in row if "/" in name} | {"lr"}
    found, expected = points(tmp_path / "b"), points(tmp_path / "a")
    for name in names:
        assert found[name] == expected[name], name
    assert [step for step, _ in found["train/loss"]] == [4, 8]
    assert [step for step, _ in found["step/loss"]] == [2, 4, 6, 8]


def test_tensorboard_has_the_test_points_when_the_summary_says_finished(config, tmp_path, monkeypatch):
    def killed(self, steps):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "forget_tested", killed)  # the first thing after the summary
        with pytest.raises(Killed):
            train(tmp_path, config(), finish=True)
        assert {"test/acc", "test/loss"} <= points(tmp_path).keys()


def test_a_run_survives_the_removal_of_its_curves(config, tmp_path, capsys):
    from dlrun.output.run_folder import Run

    sync = Run.sync

    def removing(self):
        shutil.rmtree(self.folder / "tensorboard", ignore_errors=True)
        sync(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "sync", removing)
        assert train(tmp_path, config(), finish=True).reason == "finished"
    assert "tensorboard/ was removed during the run" in capsys.readouterr().out


# Killed


class Killed(BaseException):
    """Stands for SIGKILL where a test has to be quick."""


def die(folder, composed, step):
    """A run that ends at a step without a word."""
    from dlrun.tasks.supervised import Supervised

    learn = Supervised.step

    def dying(self, batch, clock):
        if clock.step == step:
            raise Killed
        return learn(self, batch, clock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Supervised, "step", dying)
        train(folder, composed)


def test_a_run_that_is_killed_again_and_again_ends_the_same(config, tmp_path):
    composed = config("trainer.checkpoint_every_steps=3", "trainer.epochs=30", "model.dropout=0.2", "optimizer=sgd")
    train(tmp_path / "a", composed)
    chance, folder, kills = random.Random(0), tmp_path / "b", 0
    for _ in range(60):
        resumed = any((folder / "checkpoints").glob("*.ckpt"))
        if not resumed:
            shutil.rmtree(folder, ignore_errors=True)
        process = runs.FORKS.Process(
            target=runs.child, args=(folder, composed), kwargs={"resumed": resumed}, daemon=True
        )
        process.start()
        started = (folder / "checkpoints").stat().st_mtime_ns if resumed else None
        patience = time.monotonic() + 20
        while process.is_alive() and time.monotonic() < patience:  # until it writes: a kill in the imports is no test
            if (folder / "checkpoints").exists() and (folder / "checkpoints").stat().st_mtime_ns != started:
                break
            time.sleep(0.001)
        process.join(chance.random() * 0.1 if kills < 12 else 60)
        if process.exitcode is not None:
            break
        process.kill()
        process.join()
        kills += 1
    assert process.exitcode == 0 and kills >= 3, (process.exitcode, kills)
    assert_same(tmp_path / "a", folder)
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("call", range(4))
def test_a_kill_while_a_checkpoint_is_written_is_exact(call, config, straight, tmp_path, monkeypatch):
    """The renames of the second epoch's checkpoint: best, incoming, last to previous, incoming to last."""
    composed, replace, calls = config(*STRAIGHT), os.replace, []

    def dying(source, target):
        if str(target).endswith(".ckpt"):
            calls.append(target)
            if len(calls) > 3 + call:
                raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            train(tmp_path, composed)
    train(tmp_path, composed, resumed=True)
    assert_same(straight, tmp_path)


def test_a_kill_before_the_first_checkpoint_is_reported(config, tmp_path):
    with pytest.raises(Killed):
        die(tmp_path, config(), step=2)
    with pytest.raises(CheckpointError, match="holds no checkpoint.*start it again"):
        train(tmp_path, config(), resumed=True)


# Damaged


def flip(path, at=1000):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


@pytest.fixture
def stopped(config, tmp_path):
    """A run of the straight one's kind, stopped in its second epoch."""
    train(tmp_path, config(*STRAIGHT), signals={5: signal.SIGTERM})
    return tmp_path


def change(path, key, value):
    """In a checkpoint, whose SHA-256 is then right again. key: a path in it."""
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
def test_a_whole_checkpoint_that_no_run_wrote_is_refused(key, value, why, stopped, config):
    """The SHA-256 is of what is in the file, whoever wrote it; kernels would write past what is too small."""
    for name in ("last", "previous"):
        change(stopped / "checkpoints" / f"{name}.ckpt", key, value)
    with pytest.raises(CheckpointError, match=why):
        train(stopped, config(*STRAIGHT), resumed=True)


def test_the_settings_of_an_optimizer_are_the_configs(stopped, config, straight):
    group = load(stopped / "checkpoints" / "last.ckpt")["components"]["update"]["optimizer"]["param_groups"][0]
    changed = [group | {"lr": 9.0, "betas": (0.1, 0.1)}]
    change(stopped / "checkpoints" / "last.ckpt", "components/update/optimizer/param_groups", changed)
    train(stopped, config(*STRAIGHT), resumed=True)
    assert_same(straight, stopped)


def test_compressed_entries_are_refused(stopped, config):
    """A few bytes could be gigabytes."""
    path = stopped / "checkpoints" / "last.ckpt"
    with zipfile.ZipFile(path) as found, zipfile.ZipFile(stopped / "new", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in found.infolist():
            new.writestr(entry.filename, found.read(entry))
    body = bytearray((stopped / "new").read_bytes())
    body[-2:] = (64).to_bytes(2, "little")
    path.write_bytes(bytes(body) + hashlib.sha256(body).hexdigest().encode())
    with pytest.raises(CheckpointError, match="its entries are compressed"):
        load(path)


@pytest.mark.parametrize("what", ["train-labels", "train-images", "t10k-labels"])
def test_other_data_than_the_runs_is_refused(what, config, tmp_path):
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


def test_the_same_data_elsewhere_will_do(stopped, config, straight, tmp_path_factory):
    train(stopped, config(*STRAIGHT, f"data_dir={runs.write_mnist(tmp_path_factory.mktemp('other'))}"), resumed=True)
    assert_same(straight, stopped)


def test_fewer_epochs_than_are_begun_are_refused(stopped, config):
    with pytest.raises(UserError, match="trainer.epochs=1: the run is already in epoch 2"):
        train(stopped, config(*STRAIGHT, "trainer.epochs=1"), resumed=True)


@pytest.mark.parametrize("line", [b'{"step": 4, ', b"[1]", b'{"epoch": 1}', b"\xff\xfe"])
def test_a_damaged_line_of_metrics_is_reported(line, stopped, config):
    path = stopped / "metrics.jsonl"
    damaged = b"\n".join([line, *path.read_bytes().split(b"\n")[1:]])
    path.write_bytes(damaged)
    with pytest.raises(UserError, match="metrics.jsonl is damaged or was changed"):
        train(stopped, config(*STRAIGHT), resumed=True)
    assert path.read_bytes() == damaged


def test_a_damaged_last_falls_back_to_the_one_before(stopped, config, straight, capsys):
    flip(stopped / "checkpoints" / "last.ckpt")
    train(stopped, config(*STRAIGHT), resumed=True)
    said = capsys.readouterr().out
    assert "last.ckpt is damaged" in said and "resuming from the previous checkpoint" in said
    assert_same(straight, stopped)
    load(stopped / "checkpoints" / "previous.ckpt")  # the damaged one has not taken its place


def test_a_missing_last_falls_back_to_the_one_before(stopped, config, straight, capsys):
    (stopped / "checkpoints" / "last.ckpt").unlink()
    train(stopped, config(*STRAIGHT), resumed=True)
    assert "last.ckpt is missing" in capsys.readouterr().out
    assert_same(straight, stopped)


def test_a_damaged_last_is_never_moved_over_a_good_previous(stopped, config):
    for _ in range(3):  # the second time by the first one's only good checkpoint
        flip(stopped / "checkpoints" / "last.ckpt")
        train(stopped, config(*STRAIGHT), resumed=True, signals={4: signal.SIGTERM})
        assert state(stopped)["clock"]["step"] == 5
        assert state(stopped, "previous")["clock"]["step"] == 4


def test_another_runs_best_is_not_used(stopped, config, tmp_path_factory, capsys):
    other = tmp_path_factory.mktemp("other")
    train(other, config(*STRAIGHT, "seed=5"))
    shutil.copy(other / "checkpoints" / "best.ckpt", stopped / "checkpoints" / "best.ckpt")
    train(stopped, config(*STRAIGHT), resumed=True)
    assert "best.ckpt belongs to another run" in capsys.readouterr().out
    shutil.copy(other / "checkpoints" / "last.ckpt", stopped / "checkpoints" / "last.ckpt")
    (stopped / "checkpoints" / "previous.ckpt").unlink()
    with pytest.raises(CheckpointError, match="last.ckpt belongs to another run"):
        train(stopped, config(*STRAIGHT), resumed=True)


def test_a_damaged_best_is_reported_and_not_used(stopped, config, capsys):
    flip(stopped / "checkpoints" / "best.ckpt")
    train(stopped, config(*STRAIGHT), resumed=True, finish=True)
    assert "the best epoch's weights are lost" in capsys.readouterr().out
    assert state(stopped, "best")["best"]["epoch"] == 2


def test_last_weights_are_labelled_as_such_where_the_best_are_lost(config, tmp_path, capsys):
    train(tmp_path, config(*STRAIGHT))
    (tmp_path / "checkpoints" / "best.ckpt").unlink()
    train(tmp_path, config(*STRAIGHT), resumed=True, finish=True)  # only the test is left to do
    assert "\ntest (epoch 2) " in capsys.readouterr().out


def test_without_a_good_checkpoint_nothing_goes_on(stopped, config):
    before = (stopped / "metrics.jsonl").read_bytes()
    for name in ("last", "previous"):
        flip(stopped / "checkpoints" / f"{name}.ckpt")
    with pytest.raises(CheckpointError) as error:
        train(stopped, config(*STRAIGHT), resumed=True)
    for part in (
        "no checkpoint of this run can be read",
        "last.ckpt is damaged",
        "previous.ckpt is damaged",
        "expected",
    ):
        assert part in str(error.value)
    assert (stopped / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("tail", [b'{"step": 7, "epo', b'{"step": 6, "epoch": 2}\n{"step"', b"\n"])
def test_a_torn_line_of_metrics_is_forgotten(tail, stopped, config, straight):
    with open(stopped / "metrics.jsonl", "ab") as file:
        file.write(tail)
    train(stopped, config(*STRAIGHT), resumed=True)
    assert_same(straight, stopped)


def test_metrics_that_were_cut_are_refused(stopped, config):
    (stopped / "metrics.jsonl").write_bytes((stopped / "metrics.jsonl").read_bytes()[:-3])
    with pytest.raises(UserError, match="was changed after the checkpoint: it has 3 of 3 lines"):
        train(stopped, config(*STRAIGHT), resumed=True)


def test_another_net_than_the_checkpoints_is_reported(stopped, config):
    with pytest.raises(CheckpointError, match="checkpoint's 'net' does not fit the config"):
        train(stopped, config(*STRAIGHT, "model.hidden=[17]"), resumed=True)


def test_another_version_of_the_format_is_refused(stopped, config, monkeypatch):
    for name in ("last", "previous"):
        path = stopped / "checkpoints" / f"{name}.ckpt"
        found = torch.load(path, weights_only=True)
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, "FORMAT", 99)
            save(path, {k: v for k, v in found.items() if k not in ("format", "version")})
    with pytest.raises(CheckpointError, match="has format 99, written by dl-run .* reads format 2"):
        train(stopped, config(*STRAIGHT), resumed=True)


def test_checkpoints_keep_the_one_before(tmp_path):
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in range(3):
        checkpoints.write({"step": step}, {"step": -step} if step < 2 else None)
    checkpoints.wait()
    found = {p.stem: load(p)["step"] for p in (tmp_path / "checkpoints").iterdir()}
    assert found == {"last": 2, "previous": 1, "best": -1}


# The command


def test_the_command_stops_with_the_signals_codes_and_goes_on(data_dir, tmp_path):
    """SIGTERM: 143. SIGINT in an evaluation: 130. Two signals: at once. A second process on the run: refused."""
    folder, log = tmp_path / "run", tmp_path / "log"
    small = [f"data_dir={data_dir}", *SMALL, "trainer.epochs=9999", f"run_dir={folder}"]
    process = dl_run(log, *small)
    wait_for("epoch    2/9999", log, process)
    os.kill(process.pid, signal.SIGTERM)
    assert ended(process) == 143
    assert f"checkpoint saved. Resume with: dl-run resume={folder}" in log.read_text()

    log.unlink()
    process = dl_run(log, f"resume={folder}", slow=30.0)
    wait_for("evaluating val", log, process)
    second = tmp_path / "second"
    assert ended(dl_run(second, f"resume={folder}")) == 2
    assert f"{folder} is in use" in second.read_text()
    os.kill(process.pid, signal.SIGINT)
    assert ended(process) == 130
    assert json.loads((folder / "summary.json").read_text())["status"] == "stopped"

    log.unlink()
    process = dl_run(log, f"resume={folder}")
    wait_for("/9999", log, process)
    os.kill(process.pid, signal.SIGTERM)
    time.sleep(2 * ONE_REQUEST)
    with suppress(ProcessLookupError):  # it may have saved and ended
        os.kill(process.pid, signal.SIGINT)
    assert ended(process) in (-signal.SIGINT, 143)
    epochs = state(folder)["clock"]["epoch"]

    last = tmp_path / "end"
    assert ended(dl_run(last, f"resume={folder}", f"trainer.epochs={epochs + 1}")) == 0
    assert rows(folder)[-1]["epoch"] == epochs + 1
    train(tmp_path / "straight", compose(f"data_dir={data_dir}", *SMALL, f"trainer.epochs={epochs + 1}"))
    assert_same(tmp_path / "straight", folder)


def test_a_finished_run_is_refused(data_dir, tmp_path):
    folder, log = tmp_path / "run", tmp_path / "log"
    assert ended(dl_run(log, f"data_dir={data_dir}", *SMALL, f"run_dir={folder}")) == 0
    assert ended(dl_run(log, f"resume={folder}")) == 2
    assert f"the run in {folder} is finished" in log.read_text()
    assert ended(dl_run(log, f"resume={folder}", "trainer.epochs=3")) == 0
    assert rows(folder)[-1]["epoch"] == 3
