"""Generative tasks: closed forms of what they compute, each learns a toy, each resumes to the bit between turns."""

from functools import partial
from math import log, pi

import pytest
import runs
import torch
import torch.nn.functional as F
from runs import assert_same, compose, train
from torch import nn
from toys import PLACE, Batches, learn, make_update, section, seeded

from dlrun.build import build
from dlrun.clock import Clock
from dlrun.errors import UserError
from dlrun.models.autoencoder import autoencoder, conv_autoencoder, halvings, vae
from dlrun.models.mlp import mlp
from dlrun.spec import Image
from dlrun.tasks.autoencoder import Autoencoder
from dlrun.tasks.pictures import beside, between, first_rows, grid, means, rescaled
from dlrun.tasks.vae import Vae, kl_to_standard

SMALL = Image((1, 8, 8), classes=4)
BOOK = Image((1, 28, 28))
DENSE = dict(activation="relu", init="keras")


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def pictures(spec: Image, num: int = 16) -> torch.Tensor:
    with seeded(1):
        return (torch.rand(num, *spec.shape) > 0.5).float() * 0.8 + 0.1


def make(kind: type, net: nn.Module, spec: object, *, lr: float = 0.01, ema: float = 0.0, **keys) -> object:
    """A task with the keys of its YAML, but for those given."""
    name = {"Autoencoder": "autoencoder", "Vae": "vae"}.get(kind.__name__, kind.__name__)
    stated = {key: value for key, value in section("task", name).items() if key != "_target_"}
    return kind(net, spec, PLACE, partial(make_update, lr=lr, ema=ema), **stated | keys)


def make_vae(spec: Image = SMALL, latent: int = 3, lr: float = 0.01, **keys) -> Vae:
    with seeded():
        net = vae(spec, latent=latent, hidden=[32], **DENSE)
    return make(Vae, net, spec, lr=lr, **keys)


def data_of(x: torch.Tensor, spec: object, size: int = 8) -> Batches:
    return Batches(x, torch.zeros(len(x), dtype=torch.int64), spec, size)


# Networks


def test_nets_have_the_books_parameters():
    net = autoencoder(BOOK, latent=20, hidden=[256, 128], dropout=0.0, **DENSE)
    assert (count(net.encoder), count(net.decoder)) == (236_436, 237_200)
    assert count(vae(BOOK, latent=20, hidden=[128], **DENSE)) == 209_464


@pytest.mark.parametrize("name", ["autoencoder", "denoising_autoencoder", "dropout_autoencoder", "conv_autoencoder",
                                  "vae", "conv_vae"])  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 8)])
def test_nets_take_their_sizes_from_the_spec(name, shape):
    with torch.device("meta"):
        net = build(section("model", name))(Image(shape))
        out = net(torch.empty(2, *shape))
        assert net.decoder(torch.empty(2, 20)).shape == (2, *shape)
    if "vae" in name:
        assert [tuple(o.shape) for o in out] == [(2, 20), (2, 20)]
    else:
        assert out.shape == (2, *shape)


@pytest.mark.parametrize("side", [1, 7, 11, 22])
def test_sizes_that_cannot_be_halved_are_named(side):
    with pytest.raises(UserError, match=f"conv_autoencoder cannot take images of {side}x{side}.*such as 8, 28, 32"):
        conv_autoencoder(Image((1, side, side)), latent=2, width=2, **DENSE)


def test_halvings():
    assert [halvings(side, side) for side in (8, 28, 32, 64, 96, 7, 30)] == [1, 2, 3, 4, 4, 0, 1]


def test_tasks_name_the_models_they_need():
    net = mlp(SMALL, hidden=[4], dropout=0.0, norm="none", **DENSE)
    for kind, match in ((Autoencoder, "expected model=autoencoder"), (Vae, "expected model=vae or conv_vae")):
        with pytest.raises(UserError, match=match):
            make(kind, net, SMALL)


# Closed forms


def test_kl_of_gaussians():
    mean, std = torch.tensor([[0.5, -1.0]]), torch.tensor([[0.3, 2.0]])
    q, p = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(q, p).sum(1)
    assert torch.allclose(kl_to_standard(mean, 2 * std.log()), expected)
    assert kl_to_standard(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


def test_likelihoods():
    x, out = torch.rand(3, 1, 4, 4), torch.randn(3, 1, 4, 4)
    bernoulli, gaussian = make_vae(), make_vae(likelihood="gaussian", sigma=0.5)
    expected = -F.binary_cross_entropy(torch.sigmoid(out), x, reduction="none").sum((1, 2, 3))
    assert torch.allclose(bernoulli.log_likelihood(x, out), expected, atol=1e-4)
    density = torch.distributions.Normal(out, 0.5).log_prob(x).sum((1, 2, 3))
    assert torch.allclose(gaussian.log_likelihood(x, out), density, atol=1e-4)


class Linear(nn.Module):
    """x = z + noise of standard deviation s, z ~ N(0, 1): all is known. q is the posterior, moved by `off`."""

    def __init__(self, s: float, off: float) -> None:
        super().__init__()
        self.s, self.off, self.latent, self.decoder = s, off, 1, lambda z: z.view(-1, 1, 1, 1)

    def forward(self, x):
        x = x.flatten(1)
        variance = self.s**2 / (1 + self.s**2)
        return x / (1 + self.s**2) + self.off, torch.full_like(x, log(variance))


@pytest.mark.parametrize("off", [0.0, 0.4])
def test_bounds_of_a_linear_model(off):
    """With the posterior for q both bounds are log p(x), whatever is drawn; else ELBO <= IWAE bound <= log p(x)."""
    task, net = make_vae(likelihood="gaussian", sigma=0.7, iwae_samples=64), Linear(0.7, off)
    x = torch.linspace(-2, 2, 200).view(-1, 1, 1, 1)
    exact = -0.5 * x.flatten().square() / (1 + 0.49) - 0.5 * log(2 * pi * (1 + 0.49))
    found = task._bounds(net, x, torch.Generator().manual_seed(0), 64)
    posterior = 0.49 / 1.49
    if off == 0:
        assert torch.allclose(found["iwae"], exact, atol=1e-4)
        assert found["elbo"].mean().item() == pytest.approx(exact.mean().item(), abs=0.15)  # one code each
    else:
        gap = 0.5 * off**2 / posterior  # KL(q || posterior)
        assert found["elbo"].mean().item() == pytest.approx(exact.mean().item() - gap, abs=0.15)
        assert found["elbo"].mean() < found["iwae"].mean() < exact.mean() + 0.02


def test_kl_weight_follows_the_clock():
    task, clock = make_vae(beta=4.0, warmup=2.0), Clock(0, 10, 5)
    weights = []
    for clock.step in (0, 4, 9, 30):
        weights.append(task.kl_weight(clock))
    assert weights == pytest.approx([0.4, 2.0, 4.0, 4.0])
    assert make_vae(beta=0.5).kl_weight(Clock(0, 1, 1)) == 0.5


# Pictures


def test_grids():
    tiles = torch.arange(6).view(6, 1, 1, 1).expand(6, 1, 2, 2) / 10
    assert grid(tiles, 3)[0, ::2, ::2].mul(10).round().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert grid(tiles[:4], 3)[0, ::2, ::2].mul(10).round().tolist() == [[0, 1, 2], [3, 0, 0]]
    sheet = beside(torch.zeros(50, 1, 2, 2), torch.ones(60, 1, 2, 2))
    assert sheet.shape == (1, 20, 20) and sheet[..., :10].max() == 0 and sheet[..., 10:].min() == 1
    column = beside(torch.arange(50).view(50, 1, 1, 1) / 100, torch.zeros(50, 1, 1, 1))
    assert column[0, :3, 0].mul(100).round().tolist() == [0, 1, 2], "column by column, as the book pastes them"
    assert between(torch.zeros(2, 1), torch.tensor([[1.0], [2.0]]), 3).flatten().tolist() == [0, 0.5, 1, 0, 1, 2]


def test_pixels_come_in_the_range_that_the_net_needs():
    pixels = torch.rand(4, 2, 3, 3)
    data = data_of((pixels - 0.25) / 0.5, Image((2, 3, 3)))
    plain = next(iter(rescaled(data.batches("val"), data, 0.0, 1.0)))[0]
    assert torch.equal(plain, data.x), "a table has no pixels"
    data.mean, data.std = [0.25, 0.25], [0.5, 0.5]
    assert torch.allclose(next(iter(rescaled(data.batches("val"), data, 0.0, 1.0)))[0], pixels, atol=1e-6)
    assert torch.allclose(next(iter(rescaled(data.batches("val"), data, -1.0, 1.0)))[0], 2 * pixels - 1, atol=1e-6)


def test_means_weigh_samples():
    assert means(iter([{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([6.0])}])) == {"a": 3.0}
    assert len(first_rows(iter([(torch.zeros(4, 1), None)] * 3), 6)) == 6


# Learning


@pytest.mark.parametrize("keys", [{}, {"loss": "mse"}, {"noise": 0.05}])
def test_an_autoencoder_memorises_a_batch(keys):
    x = pictures(SMALL)
    with seeded():
        net = autoencoder(SMALL, latent=8, hidden=[64], dropout=0.0, **DENSE)
    task = make(Autoencoder, net, SMALL, **keys)
    before = task.evaluate(data_of(x, SMALL), "val")["mse"]
    learn(task, (x, None), 300)
    assert task.evaluate(data_of(x, SMALL), "val")["mse"] < 0.1 * before
    assert (task.predict(x) - x).square().mean() < 0.1 * before
    assert task.preview(data_of(x, SMALL))["reconstructions"].shape[0] == 1


@pytest.mark.parametrize("keys", [{}, {"likelihood": "gaussian", "sigma": 0.2}, {"beta": 0.5, "warmup": 0.5}])
def test_a_vae_learns_two_pictures(keys):
    x = pictures(SMALL, 2).repeat(16, 1, 1, 1)
    task = make_vae(iwae_samples=20, **keys)
    data = data_of(x, SMALL, 32)
    before = task.evaluate(data, "val")["elbo"]
    learn(task, (x, None), 400)
    after = task.evaluate(data, "test")
    assert after["elbo"] > before + 10
    assert after["elbo"] == pytest.approx(-after["rec"] - after["kl"], rel=1e-4)
    assert after["elbo"] < after["iwae"] + 0.5
    assert (task.predict(x) - x).square().mean() < 0.02
    assert set(task.preview(data)) == {"reconstructions", "samples"}


@pytest.mark.parametrize("latent", [2, 3])
def test_reports_are_figures(latent, tmp_path):
    task = make_vae(latent=latent)
    figures = task.report(data_of(pictures(SMALL), SMALL))["figures"]
    assert ("latent_map" in figures) == ("latent_plane" in figures) == (latent == 2)
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")


# Resuming


@pytest.mark.parametrize("case", ["vae task.warmup=1.5 task.beta=2", "vae task.likelihood=gaussian trainer.ema=0.9",
                                  "denoising_autoencoder task.loss=mse"])  # fmt: skip
def test_settings_resume_to_the_bit(case, tmp_path):
    model, *keys = case.split()
    data_dir = runs.write_mnist(tmp_path / "data")
    config = compose(f"model={model}", f"data_dir={data_dir}", *runs.SMALL, *keys)
    train(tmp_path / "a", config, finish=True)
    for step in (1, 6):
        train(tmp_path / "b", config, resumed=step > 1, signals={step: runs.signal.SIGTERM})
    assert train(tmp_path / "b", config, resumed=True, finish=True).reason == "finished"
    assert_same(tmp_path / "a", tmp_path / "b")
