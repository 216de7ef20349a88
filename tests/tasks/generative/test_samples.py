"""Generative runs as a whole: samples measured by another run's classifier, images of every epoch, bad input."""

from signal import SIGTERM

import pytest
import runs
import torch
import yaml
from runs import assert_same, compose, train
from test_generative import blobs, make_pair

from dlrun.errors import ConfigError, DataError, Diverged, UserError
from dlrun.tasks.generative.wgan_gp import WganGp

TINY = [o for o in runs.SMALL if not o.startswith("model.")]
PAIR = ["model=wgan_gp", "model.width=4", "task.n_critic=2", "task.num_samples=4", *TINY]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return runs.write_mnist(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def classify(data_dir, tmp_path_factory):
    """Train a run as the command line does, with its config; returns its folder."""

    def run(*overrides):
        folder, (config, names) = tmp_path_factory.mktemp("run") / "of", compose(f"data_dir={data_dir}", *overrides)
        train(folder, (config, names), finish=True)
        texts = {"config": config, "hydra": {"hydra": {"runtime": {"choices": names}}}, "overrides": []}
        (folder / ".hydra").mkdir()
        for name, content in texts.items():
            (folder / ".hydra" / f"{name}.yaml").write_text(yaml.safe_dump(content))
        return folder

    return run


@pytest.fixture(scope="module")
def classifier(classify):
    return classify(*runs.SMALL, "trainer.epochs=1")


# Measured by a classifier


@pytest.mark.thorough
@pytest.mark.parametrize("model", ["wgan_gp", "vae", "adversarial_autoencoder"])
def test_a_classifier_measures_samples(model, classifier, data_dir, tmp_path):
    keys = PAIR if model == "wgan_gp" else [f"model={model}", "model.hidden=[16]", *TINY]
    train(tmp_path / "a", compose(f"data_dir={data_dir}", *keys, f"task.quality={classifier}"), finish=True)
    rows = [row for row in runs.rows(tmp_path / "a") if "val/fd" in row]
    assert len(rows) == 2 and all(row["val/fd"] > 0 and row["val/swd"] > 0 for row in rows)
    train(tmp_path / "b", compose(f"data_dir={data_dir}", *keys))
    same = {k: v for k, v in runs.rows(tmp_path / "b")[-1].items() if k.startswith("train/")}
    assert same.items() <= rows[-1].items(), "to be measured changes nothing"
    assert runs.rows(tmp_path / "b")[-1]["val/swd"] == rows[-1]["val/swd"], "without a classifier, too"


@pytest.mark.thorough
def test_a_classifier_of_other_data_is_refused(classify, classifier, data_dir, tmp_path):
    def refused(folder, *overrides):
        with pytest.raises(UserError) as error:
            train(tmp_path, compose(f"data_dir={data_dir}", *PAIR, f"task.quality={folder}", *overrides))
        return str(error.value)

    wanted = "expected the folder of a finished classifier's run on the same data (Image(shape=1x28x28, classes=10))"
    text = refused(classify("data=digits", "model.hidden=[4]", "trainer.epochs=1"))
    assert "that run learned from data=digits, Image(shape=1x8x8, classes=10)" in text and wanted in text
    assert "that run learned from data=mnist" in refused(classifier, "data.source.folder=FashionMNIST/raw")
    text = refused(classify("model=vae", "model.hidden=[4]", *TINY, "trainer.epochs=1"))
    assert "that run trained task=vae on Image(shape=1x28x28, classes=10), no classes" in text
    assert "there is no run in that folder (no .hydra/config.yaml)" in refused(tmp_path / "none")
    (classifier / "checkpoints" / "best.ckpt").rename(classifier / "kept")
    (classifier / "checkpoints" / "last.ckpt").rename(classifier / "kept too")
    text = refused(classifier)
    (classifier / "kept").rename(classifier / "checkpoints" / "best.ckpt")
    assert "cannot read the checkpoint" in text and wanted in text
    with pytest.raises(UserError, match="a classifier's features need images, and the data is Table"):
        train(tmp_path, compose("model=wgan_gp", "data=gaussians", f"task.quality={classifier}"))


# Images of every epoch


@pytest.mark.thorough
def test_images_of_every_epoch_survive_a_kill(data_dir, tmp_path):
    """Images after the checkpoint are dropped and written again, equal; strip and video show all epochs."""
    from PIL import Image

    config = compose(f"data_dir={data_dir}", *PAIR, "trainer.epochs=4", "trainer.ema=0.5")
    train(tmp_path / "a", config, finish=True)
    train(tmp_path / "b", config, signals={9: SIGTERM})
    found = sorted(path.name for path in (tmp_path / "b" / "images").iterdir())
    assert found == ["samples_00001.png", "samples_00002.png"]
    late = tmp_path / "b" / "images" / "samples_00003.png"  # left by a run that is killed before its checkpoint
    late.write_bytes(b"of another future")
    train(tmp_path / "b", config, resumed=True, signals={10: SIGTERM})
    assert not late.exists()
    train(tmp_path / "b", config, resumed=True, finish=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    names = {"samples.gif", "samples_strip.png", *(f"samples_{epoch:05}.png" for epoch in range(1, 5))}
    made = [{p.name: p.read_bytes() for part in ("images", "plots") for p in (tmp_path / run / part).iterdir()
             if p.name in names} for run in "ab"]  # fmt: skip
    assert made[0].keys() == names and made[0] == made[1]
    with Image.open(tmp_path / "a" / "plots" / "samples.gif") as video:
        assert video.n_frames == 4 and video.size == (58, 58)  # two images and a gap
    with Image.open(tmp_path / "a" / "images" / "samples_00004.png") as last:
        assert last.size == (58, 58) and last.mode == "L"


def test_a_long_run_has_a_video_of_limited_length(tmp_path):
    from PIL import Image

    from dlrun.output import video

    for epoch in range(1, 251):
        video.save_frame(video.frame_path(tmp_path / "images", "samples", epoch), torch.full((3, 2, 2), epoch / 250))
    video.assemble(tmp_path / "images", tmp_path)
    with Image.open(tmp_path / "samples.gif") as found:
        assert found.n_frames == video.FRAMES
        shades = []
        for frame in (0, video.FRAMES - 1):
            found.seek(frame)
            shades.append(found.convert("RGB").getpixel((0, 0))[0])
    assert shades == [1, 255], "the first epoch and the last are in it"


# Bad input


@pytest.mark.parametrize(("keys", "text"), [
    (["model=vae", "model.latent=0"], "model.latent=0: expected an integer >= 1"),
    (["model=dcgan", "model.latent=0"], "model.latent=0: expected an integer >= 1"),
    (["model=adversarial_autoencoder", "model.latent=0"], "model.latent=0: expected an integer >= 1"),
    (["model=wgan_gp", "task.n_critic=0"], "task.n_critic=0: expected an integer in \\[1, 1000\\]"),
    (["model=wgan", "task.n_critic=0"], "task.n_critic=0: expected an integer in \\[1, 1000\\]"),
    (["model=vae", "task.num_samples=0"], "task.num_samples=0: expected an integer >= 1"),
    (["model=dcgan", "model.form=mine"], "model.form=mine: expected one of paper, book, small"),
])  # fmt: skip
def test_impossible_settings_of_samples_are_refused(keys, text):
    with pytest.raises(ConfigError, match=text):
        compose("data=mnist", *keys)


@pytest.mark.parametrize(("model", "side", "text"), [
    ("wgan_gp", 30, "gan cannot make images of 30x30.*expected sides such as 8, 16, 28, 32, 48, 64 or 96"),
    ("dcgan model.form=small", 27, "form=small cannot make images of 27x27.*28x28 or more"),
    ("conv_vae", 30, "conv_vae cannot take images of 30x30.*such as 8, 28, 32, 64 or 96"),
])  # fmt: skip
def test_sizes_out_of_reach_are_refused_before_anything_is_written(model, side, text, data_dir, tmp_path):
    shape = f"data.spec.shape=[1,{side},{side}]"
    with pytest.raises(UserError, match=text):
        train(tmp_path / "run", compose(f"data_dir={data_dir}", *TINY, shape, *f"model={model}".split()))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_single_image_is_refused(tmp_path):
    from PIL import Image

    (tmp_path / "anime_faces").mkdir()
    Image.radial_gradient("L").resize((64, 64)).save(tmp_path / "anime_faces" / "one.png")
    with pytest.raises((DataError, UserError), match="of 1 image leaves the train split empty"):
        train(tmp_path / "run", compose(f"data_dir={tmp_path}", "model=wgan_gp", "data=anime_faces", "model.width=4"))


@pytest.mark.parametrize("step", [2, 3])  # a step of the critic alone, and one of both
def test_a_loss_that_is_not_finite_stops_with_the_step(step, data_dir, tmp_path):
    config = compose(f"data_dir={data_dir}", *PAIR)
    with pytest.raises(Diverged, match=f"the loss is nan in epoch 1, step {step + 1}"):
        train(tmp_path, config, nan_at=(step,))


def test_a_penalty_that_is_not_finite_stops_before_the_weights():
    """The scores are finite, the slope is not: a square root has none at 0."""
    task = make_pair(WganGp, n_critic=1)
    task.net.critic.append(Steep())
    before = [p.clone() for p in task.net.parameters()]
    from dlrun.clock import Clock

    with pytest.raises(Diverged, match="the loss is (nan|inf) in epoch 1, step 1"):
        task.step((blobs().x, None), Clock(0, 1, 1))
    assert all(torch.equal(a, b) for a, b in zip(before, task.net.parameters(), strict=True))


class Steep(torch.nn.Module):
    def forward(self, score):
        return (score * 0).abs().sqrt()


# Memory


@pytest.mark.slow
@pytest.mark.parametrize("model", ["wgan_gp model.width=4 task.n_critic=2", "vae model.hidden=[16]"])
def test_memory_does_not_grow_from_epoch_to_epoch(model, data_dir, tmp_path, monkeypatch):
    import gc

    from dlrun.train import engine

    held, end = [], engine.end_epoch

    def counting(*args):
        end(*args)
        gc.collect()
        tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]  # no exporter's
        held.append((len(tensors), sum(t.nbytes for t in tensors)))

    monkeypatch.setattr(engine, "end_epoch", counting)
    train(tmp_path, compose(f"data_dir={data_dir}", *TINY, *f"model={model}".split(), "trainer.epochs=3"))
    assert held[1] == held[2], held
