"""`auto` in a config: form, learning rate and batch size depend on the data; the user's values win."""

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image as PILImage
from runs import compose, rows, train

from dlrun.cli import main
from dlrun.config.auto import resolve_auto, set_batch_size
from dlrun.config.saved import read_config
from dlrun.optim.update import EARLY
from dlrun.train.engine import explosion

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = ["trainer.device=cpu", "model.width=2", "trainer.epochs=1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Two classes, 60 images of 64x64; 36 train."""
    root, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for name in ("ants", "bees"):
        (root / name).mkdir()
        for i in range(30):
            PILImage.fromarray(random.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(root / name / f"{i}.png")
    return root


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (["model=resnet18", "data=cifar10"], ("cifar", 0.1, 128)),
        (["model=resnet18", "data=image_folder"], ("imagenet", 0.025, 64)),
        (["model=densenet121", "data=image_folder", "data.spec.shape=[3,48,64]"], ("cifar", 0.05, 64)),
        (["model=googlenet", "data=image_folder", "data.batch_size=8"], ("imagenet", 0.003125, 8)),
        (["model=mobilenet", "data=pokemon", "optimizer=adam"], ("imagenet", 0.001, 32)),
        (["model=alexnet", "data=image_folder"], ("imagenet", 0.0025, 64)),  # without normalisation
        (["model=resnet50", "data=cifar10", "model.weights=imagenet"], ("imagenet", 0.05, 128)),
        (["model=vgg13", "data=cifar10", "model.norm=none"], (None, 0.01, 128)),
        (["model=resnet18", "data=image_folder", "model.form=cifar", "optimizer.lr=0.3"], ("cifar", 0.3, 64)),
        (["experiment=pokemon_small"], ("cifar", 0.001, 32)),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_auto_chooses_by_image_size_and_batch_size(choice, expected):
    config, _ = compose(*choice)
    assert (config["model"].get("form"), config["optimizer"]["lr"], config["data"]["batch_size"]) == expected


@pytest.mark.parametrize(("samples", "size"), [(36, 8), (255, 8), (256, 16), (1024, 64), (100_000, 64), (57, 6)])
def test_the_batch_size_gives_sixteen_steps_per_epoch_if_possible(samples, size):
    """No batch has one sample: 57 = 7 * 8 + 1 = 8 * 7 + 1 = 9 * 6 + 3."""
    config = {
        "data": {"batch_size": "auto"}, "model": {"norm": "batch"},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": "auto"},
    }  # fmt: skip
    resolve_auto(config)
    set_batch_size(config, ["data.batch_size", "optimizer.lr"], samples)
    assert config["data"]["batch_size"] == size
    assert config["optimizer"]["lr"] == pytest.approx(0.1 * size / 128, rel=1e-3)


def test_auto_values_are_printed_saved_and_used(images, tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    keys = ["model=resnet18", "data=image_folder", f"data.root={images}", *SMALL]
    monkeypatch.setattr("sys.argv", ["dl-run", *keys, "schedule=constant", f"run_dir={run}", f"data_dir={tmp_path}"])
    main()
    chosen = "chosen by the data: model.form=imagenet, optimizer.lr=0.003125, data.batch_size=8"
    out = capsys.readouterr().out
    assert chosen in " ".join(out.split()) and "an epoch is one batch" not in out
    config = read_config(run)[0]
    assert (config.model.form, config.optimizer.lr, config.data.batch_size) == ("imagenet", 0.003125, 8)
    assert [(row["step"], row["lr"]) for row in rows(run)] == [(5, 0.003125)]  # 36 samples


@pytest.mark.parametrize(
    ("peak", "val", "step", "warning"),
    [
        (2.0, 2.0, 2, None), (229.0, None, 2, None), (231.0, 0.5, 1, "train loss rose to 231 within 1 step;"),
        (9.2, 755_000.0, 4, "val loss rose to 7.55e+05"), (9.2, float("inf"), 4, "val loss rose to inf"),
        (9.2, float("nan"), 4, None), (500.0, 0.5, EARLY + 1, None),
    ],
)  # fmt: skip
def test_a_loss_that_explodes_early_is_reported(peak, val, step, warning):
    update = SimpleNamespace(peak=peak, first_loss=2.3, optimizer=SimpleNamespace(defaults={"lr": 0.1}))
    task = SimpleNamespace(update=update, scores={"loss": "min"})
    training = SimpleNamespace(task=task, clock=SimpleNamespace(step=step), has_exploded=False)
    found = explosion(training, val)
    assert (found is None) if warning is None else (warning in found and "try optimizer.lr=0.01 (now 0.1)" in found)
    task.scores = {"swd": "min"}  # an adversary's loss may rise
    assert explosion(training, val) is None


@pytest.mark.parametrize("resumed", [False, True])
def test_an_explosion_of_the_loss_is_reported_once_per_session(resumed, tmp_path):
    keys = ["data=digits", "model=linear", "optimizer=sgd", "optimizer.lr=5e5", "data.batch_size=2000"]
    train(tmp_path, compose(*keys, "trainer.device=cpu", f"trainer.epochs={1 if resumed else 3}"))
    if resumed:
        train(tmp_path, compose(*keys, "trainer.device=cpu", "trainer.epochs=3"), resumed=True)
    log = (tmp_path / "run.log").read_text()
    assert "an epoch is one batch: data.batch_size=2,000 is more than 1,294" in " ".join(log.split())
    assert log.count("try optimizer.lr=5e+04 (now 5e+05)") == (2 if resumed else 1)
