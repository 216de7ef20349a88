"""Generative tasks: closed forms of what they compute, each learns a toy, each resumes to the bit between turns."""

import re
from functools import partial
from math import log, pi
from signal import SIGTERM

import pytest
import runs
import torch
import torch.nn.functional as F
from runs import assert_same, compose, train
from torch import nn
from toys import DEVICE, Batches, learn, make_update, section, seeded

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.config.signatures import signature
from dlrun.errors import DataError, UserError
from dlrun.models.attention import SelfAttention
from dlrun.models.autoencoder import adversarial_autoencoder, autoencoder, conv_autoencoder, halvings, vae
from dlrun.models.gan import Pair, gan
from dlrun.models.mlp import mlp
from dlrun.output.figures import render
from dlrun.spec import Image, Table
from dlrun.tasks.generative.adversarial_autoencoder import AdversarialAutoencoder
from dlrun.tasks.generative.autoencoder import Autoencoder
from dlrun.tasks.generative.gan import LOSSES, Gan
from dlrun.tasks.generative.pca import components, project
from dlrun.tasks.generative.quality import Features, frechet, modes, moments, sliced_wasserstein
from dlrun.tasks.generative.vae import Vae, kl_to_standard
from dlrun.tasks.generative.wgan import Wgan
from dlrun.tasks.generative.wgan_gp import WganGp, gradient_norms
from dlrun.tasks.images import first_inputs, grid, interpolate, means, rescaled, side_by_side

pytestmark = pytest.mark.usefixtures("undrawn")

SMALL = Image((1, 8, 8), classes=4)
BOOK = Image((1, 28, 28))
DENSE = dict(activation="relu", init="keras")


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def random_images(spec: Image, num: int = 16) -> torch.Tensor:
    with seeded(1):
        return (torch.rand(num, *spec.shape) > 0.5).float() * 0.8 + 0.1


def make(
    kind: type, net: nn.Module, spec: object, *, lr: float = 0.01, ema: float = 0.0, adam: dict | None = None,
    load_classifier: object = None, **keys
):  # fmt: skip
    """A task with the keys of its YAML, except for those given."""
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()
    stated = {key: value for key, value in section("task", name).items() if key != "_target_"}
    handed = dict(
        net=net,
        spec=spec,
        device=DEVICE,
        load_classifier=load_classifier,
        update=partial(make_update, lr=lr, ema=ema, **adam or {}),
    )
    handed = {name: handed[name] for name in signature(section("task", name)["_target_"]).positional}
    return kind(**handed, **stated | keys)


def make_vae(spec: Image = SMALL, latent: int = 3, lr: float = 0.01, **keys) -> Vae:
    with seeded():
        net = vae(spec, latent=latent, hidden=[32], **DENSE)
    return make(Vae, net, spec, lr=lr, **keys)


def data_of(x: torch.Tensor, spec: object, size: int = 8) -> Batches:
    return Batches(x, torch.zeros(len(x), dtype=torch.int64), spec, size)


# Networks


def test_networks_have_the_books_parameters():
    net = autoencoder(BOOK, latent=20, hidden=[256, 128], dropout=0.0, **DENSE)
    assert (count(net.encoder), count(net.decoder)) == (236_436, 237_200)
    assert count(vae(BOOK, latent=20, hidden=[128], **DENSE)) == 209_464
    with torch.device("meta"):
        dcgan, notes = (
            build(section("model", "dcgan") | {"form": form})(Image((3, 64, 64))) for form in ("book", "small")
        )
    assert count(dcgan.generator) == 3_574_784 + 1_920 and count(dcgan.critic) == 6_557_697 + 3_968
    sizes = [tuple(layer.weight.shape) for layer in notes.modules() if hasattr(layer, "kernel_size")]
    assert sizes[:3] == [(512, 256, 3, 3), (256, 128, 5, 5), (128, 3, 4, 4)]
    assert sizes[3:] == [(64, 3, 5, 5), (128, 64, 5, 5), (256, 128, 5, 5)] and notes.critic[-2].in_features == 256


@pytest.mark.parametrize("name", ["autoencoder", "denoising_autoencoder", "dropout_autoencoder", "conv_autoencoder",
                                  "adversarial_autoencoder", "vae", "conv_vae"])  # fmt: skip
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 8, 8)])
def test_networks_take_their_sizes_from_the_spec(name, shape):
    with torch.device("meta"):
        net = build(section("model", name))(Image(shape))
        out = net(torch.empty(2, *shape))
        inner = getattr(net, "autoencoder", net)
        assert inner.decoder(torch.empty(2, 20)).shape == (2, *shape)
    if "vae" in name:
        assert [tuple(o.shape) for o in out] == [(2, 20), (2, 20)]
    else:
        assert out.shape == (2, *shape)


@pytest.mark.parametrize("side", [1, 7, 11, 22])
def test_sizes_that_cannot_be_halved_are_refused(side):
    with pytest.raises(UserError, match=f"conv_autoencoder cannot take images of {side}x{side}.*such as 8, 28, 32"):
        conv_autoencoder(Image((1, side, side)), latent=2, width=2, **DENSE)


def test_halvings():
    assert [halvings(side, side) for side in (8, 28, 32, 64, 96, 7, 30)] == [1, 2, 3, 4, 4, 0, 1]


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
    """If q is the posterior, both bounds equal log p(x) for any sample; otherwise ELBO <= IWAE bound <= log p(x)."""
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
    task, clock = make_vae(beta=4.0, kl_warmup_epochs=2.0), Clock(0, 10, 5)
    weights = []
    for clock.step in (0, 4, 9, 30):
        weights.append(task.kl_weight(clock))
    assert weights == pytest.approx([0.4, 2.0, 4.0, 4.0])
    assert make_vae(beta=0.5).kl_weight(Clock(0, 1, 1)) == 0.5


def test_components_are_the_best_linear_code():
    """No linear code of this size has a smaller squared error than the singular vectors (Eckart and Young)."""
    with seeded():
        x = 0.5 + 0.03 * torch.randn(40, 1, 4, 4) * torch.arange(1, 17).view(1, 1, 4, 4) ** -0.5
    batches = lambda: iter([(piece, None) for piece in x.split(16)])  # noqa: E731
    found = components(batches(), 3)
    error = (project(x, *found) - x).square().sum().item()
    assert error == pytest.approx(torch.linalg.svdvals((x - x.mean(0)).flatten(1))[3:].square().sum().item(), rel=1e-3)
    assert (project(x, *components(batches(), 16)) - x).abs().max() < 1e-5


def test_components_of_large_images_come_from_the_gram_matrix(monkeypatch):
    with seeded():
        x = torch.rand(12, 1, 4, 4)
    batches = lambda: iter([(piece, None) for piece in x.split(5)])  # noqa: E731
    small = project(x, *components(batches(), 3))
    monkeypatch.setattr("dlrun.tasks.generative.pca.LARGE", 12)
    assert torch.allclose(project(x, *components(batches(), 3)), small, atol=1e-4)
    assert len(components(batches(), 20)[1]) == 11, "twelve images span eleven directions"
    assert torch.equal(project(x[:1], *components(iter([(x[:1], None)]), 3)), x[:1]), "one image is its own mean"


# Images


def test_grids():
    tiles = torch.arange(6).view(6, 1, 1, 1).expand(6, 1, 2, 2) / 10
    assert grid(tiles, 3)[0, ::3, ::3].mul(10).round().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert grid(tiles[:4], 3)[0, ::3, ::3].mul(10).round().tolist() == [[0, 1, 2], [3, 10, 10]], "the rest is white"
    assert grid(tiles, 3)[0, 2].min() == 1 and grid(tiles, 3).shape == (1, 5, 8), "gaps are white"
    sheet = side_by_side(torch.zeros(50, 1, 2, 2), torch.ones(60, 1, 2, 2))
    assert sheet.shape == (1, 29, 31) and sheet[0, 0, :14:3].max() == 0 and sheet[..., 14:].min() == 1
    column = side_by_side(torch.arange(50).view(50, 1, 1, 1) / 100, torch.zeros(50, 1, 1, 1))
    assert column[0, :6:2, 0].mul(100).round().tolist() == [0, 1, 2], "column by column, as the book pastes them"
    assert interpolate(torch.zeros(2, 1), torch.tensor([[1.0], [2.0]]), 3).flatten().tolist() == [0, 0.5, 1, 0, 1, 2]


def test_pixels_are_rescaled_to_the_range_of_the_network():
    pixels = torch.rand(4, 2, 3, 3)
    data = data_of((pixels - 0.25) / 0.5, Image((2, 3, 3)))
    plain = next(iter(rescaled(data.batches("val"), data, 0.0, 1.0)))[0]
    assert torch.equal(plain, data.x), "a table has no pixels"
    data.mean, data.std = [0.25, 0.25], [0.5, 0.5]
    assert torch.allclose(next(iter(rescaled(data.batches("val"), data, 0.0, 1.0)))[0], pixels, atol=1e-6)
    assert torch.allclose(next(iter(rescaled(data.batches("val"), data, -1.0, 1.0)))[0], 2 * pixels - 1, atol=1e-6)


def test_means_weigh_samples():
    assert means(iter([{"a": torch.tensor([1.0, 2.0])}, {"a": torch.tensor([6.0])}])) == {"a": 3.0}
    assert len(first_inputs(iter([(torch.zeros(4, 1), None)] * 3), 6)) == 6


# Learning


@pytest.mark.parametrize("keys", [{}, {"loss": "mse"}, {"noise": 0.05}])
def test_an_autoencoder_memorises_a_batch(keys):
    x = random_images(SMALL)
    with seeded():
        net = autoencoder(SMALL, latent=8, hidden=[64], dropout=0.0, **DENSE)
    task = make(Autoencoder, net, SMALL, **keys)
    before = task.evaluate(data_of(x, SMALL), "val")["mse"]
    learn(task, (x, None), 300)
    assert task.evaluate(data_of(x, SMALL), "val")["mse"] < 0.1 * before
    assert (task.predict(x) - x).square().mean() < 0.1 * before
    assert task.preview(data_of(x, SMALL))["reconstructions"].shape[0] == 1


@pytest.mark.thorough
@pytest.mark.parametrize("loss", ["bce", "mse"])
def test_an_adversarial_autoencoder_reconstructs_and_spreads_its_codes(loss):
    x = random_images(SMALL, 256)
    with seeded():
        net = adversarial_autoencoder(SMALL, latent=4, hidden=[64], critic_hidden=[32, 32], **DENSE)
        net.autoencoder.encoder[-1].bias.data += 5.0  # far from the prior
    task, data = make(AdversarialAutoencoder, net, SMALL, lr=0.003, ema=0.5, loss=loss), data_of(x, SMALL, 256)
    before = task.evaluate(data, "val")
    learn(task, (x, None), 300)
    after = task.evaluate(data, "val")
    assert set(after) == set(task.scores) and task.evaluated() is task.update.ema
    assert after["mse"] < 0.7 * before["mse"] and after["code_swd"] < 0.2 * before["code_swd"]
    assert (task.predict(x) - x).square().mean().item() == pytest.approx(after["mse"], rel=1e-3)
    assert task.predict(torch.zeros(3, 4)).shape == (3, 1, 8, 8)
    assert set(task.preview(data)) == {"reconstructions", "samples"}


@pytest.mark.parametrize("keys", [{}, {"likelihood": "gaussian", "sigma": 0.2}, {"beta": 0.5, "kl_warmup_epochs": 0.5}])
def test_a_vae_learns_two_images(keys):
    x = random_images(SMALL, 2).repeat(16, 1, 1, 1)
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


@pytest.mark.thorough(but=["Vae-3", "Autoencoder-2"])
@pytest.mark.parametrize("latent", [2, 3])
@pytest.mark.parametrize("kind", [Vae, Autoencoder, AdversarialAutoencoder])
def test_reports_are_figures(kind, latent):
    with seeded():
        more = dict(dropout=0.0) if kind is Autoencoder else dict(critic_hidden=[8]) if kind is not Vae else {}
        build = {Vae: vae, Autoencoder: autoencoder}.get(kind, adversarial_autoencoder)
        task = make(kind, build(SMALL, latent=latent, hidden=[8], **more, **DENSE), SMALL)
    report = task.report(data_of(random_images(SMALL), SMALL))
    figures = report.figures
    assert {"reconstructions", "interpolation"} <= figures.keys()
    assert ("latent_map" in figures) == ("latent_plane" in figures) == (latent == 2)
    assert ("pca_mse" in report.numbers) == ("pca_reconstructions" in figures) == (kind is Autoencoder)
    assert all(render(figure).std() > 1 for figure in figures.values())
    one = task.report(data_of(random_images(SMALL, 1), SMALL)).figures
    assert "interpolation" not in one and "reconstructions" in one, "one image has nothing between"


# Adversarial: networks

POINTS = Table(features=2, classes=2)
NETS = dict(
    latent=4, hidden=[32, 32], form="paper", width=4, norm="batch", critic_norm="none", attention=False, init="torch"
)


LARGE = [(1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 48, 64)]
OF_PAIRS = [(form, shape) for form in ("paper", "book", "small") for shape in LARGE]


@pytest.mark.parametrize(("form", "shape"), [*OF_PAIRS, ("paper", (1, 8, 8)), ("book", (1, 8, 8))])
def test_pairs_take_their_sizes_from_the_spec(form, shape):
    with torch.device("meta"):
        net = gan(Image(shape), **NETS | dict(form=form, critic_norm="batch"))
        assert net.generator(torch.empty(2, 4)).shape == (2, *shape)
        assert net.critic(torch.empty(2, *shape)).shape == (2,)
        points = gan(POINTS, **NETS | dict(hidden=[]))
        assert points(torch.empty(5, 4)).shape == (5,)


def test_self_attention_is_torchs_and_starts_as_the_identity():
    layer, x = SelfAttention(16), torch.randn(2, 16, 3, 5)
    assert torch.equal(layer(x), x)
    torch.nn.init.constant_(layer.scale, 0.5)
    q, k, v = (each(x).flatten(2).transpose(1, 2) for each in (layer.query, layer.key, layer.value))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2).reshape(x.shape)
    torch.testing.assert_close(layer(x), x + 0.5 * expected)


@pytest.mark.parametrize("form", ["paper", "book"])
def test_both_nets_attend_to_maps_of_half_the_side(form):
    net, sides = gan(Image((1, 28, 28)), **NETS | dict(form=form, attention=True)), []
    for module in net.modules():
        if isinstance(module, SelfAttention):
            module.register_forward_hook(lambda module, inputs, out: sides.append(out.shape))
    assert net(torch.randn(2, 4)).shape == (2,)
    assert sides == [(2, 4, 14, 14)] * 2
    for form in ("small", "dense"):
        with pytest.raises(UserError, match=f"model.attention=true with model.form={form}: expected images"):
            gan(Image((1, 28, 28)), **NETS | dict(form=form, attention=True))


def test_a_gradient_penalty_goes_through_attention():
    """Which needs second derivatives."""
    net = gan(Image((1, 8, 8)), **NETS | dict(attention=True, norm="none"))
    task = make(WganGp, net, Image((1, 8, 8)))
    assert task.step((torch.rand(4, 1, 8, 8), torch.zeros(4)), Clock(0, 1, 1))["penalty"].isfinite()


def test_a_pair_names_the_sizes_it_makes_and_warns_of_batch_norm():
    with pytest.raises(UserError, match="form=small cannot make images of 8x8.*expected sides such as 28, 32, 64"):
        gan(Image((1, 8, 8)), **NETS | dict(form="small"))
    with pytest.raises(UserError, match="gan cannot make images of 11x11.*sides such as 8, 16, 28, 32"):
        gan(Image((1, 11, 11)), **NETS)
    with pytest.warns(UserWarning, match="model.critic_norm=batch: a sample's score depends on its whole batch"):
        make(WganGp, gan(Image((1, 28, 28)), **NETS | dict(critic_norm="batch")), SMALL)


# Adversarial: closed forms


def test_losses_where_the_discriminator_cannot_tell():
    zero = torch.zeros(5)
    critic, generator = LOSSES["nonsaturating"]
    assert critic(zero, zero).item() == pytest.approx(2 * log(2))  # the book, section 13.5: -L = 2 log 2
    assert generator(zero).item() == pytest.approx(log(2))
    critic, generator = LOSSES["least_squares"]
    assert critic(zero + 0.5, zero + 0.5).item() == 0.25 and generator(zero + 1).item() == 0
    critic, generator = LOSSES["hinge"]
    assert (
        critic(zero, zero).item() == 2 and critic(zero + 1, zero - 3).item() == 0 and generator(zero + 2).item() == -2
    )


def test_loss_of_the_best_discriminator_is_the_js_divergence():
    """D* = p / (p + q), as a logit log p - log q: -loss = 2 JS - 2 log 2 (the book, section 13.5)."""
    p, q = torch.tensor([0.5, 0.4, 0.1]), torch.tensor([0.2, 0.2, 0.6])
    logits, m = (p / q).log(), (p + q) / 2
    value = -(p * F.softplus(-logits)).sum() - (q * F.softplus(logits)).sum()
    js = 0.5 * (p * (p / m).log()).sum() + 0.5 * (q * (q / m).log()).sum()
    assert value.item() == pytest.approx(2 * js.item() - 2 * log(2), abs=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 4, 4)])
def test_penalty_of_a_linear_critic(shape):
    """Its slope is w everywhere, so the penalty is (|w| - 1)^2, and its gradient reaches the weights."""
    with seeded():
        critic = nn.Sequential(nn.Flatten(), nn.Linear(torch.Size(shape).numel(), 1), nn.Flatten(0))
        real, fake = torch.randn(6, *shape), torch.randn(6, *shape)
    norms = gradient_norms(critic, real, fake, torch.rand(6))
    w = critic[1].weight
    assert norms.shape == (6,) and torch.allclose(norms, w.norm().expand(6))
    (norms - 1).square().mean().backward()
    assert torch.allclose(w.grad, 2 * (w.norm() - 1) * w / w.norm(), atol=1e-6)


def test_penalty_is_taken_between_each_pair():
    """The slope of a critic x^2 / 2 is the point itself: t real + (1 - t) fake, one t per sample."""
    real, fake, t = torch.tensor([[1.0], [2.0]]), torch.tensor([[5.0], [4.0]]), torch.tensor([0.25, 1.0])
    assert gradient_norms(lambda x: x.square().sum(1) / 2, real, fake, t).tolist() == [4.0, 2.0]


def test_sliced_wasserstein_of_a_shift():
    with seeded():
        x, shift = torch.randn(50, 3), torch.tensor([3.0, 0.0, 4.0])
    assert sliced_wasserstein(x, x[torch.randperm(50)]).item() == pytest.approx(0, abs=1e-6)
    assert sliced_wasserstein(x, x + shift).item() == pytest.approx(5 / 3**0.5, rel=0.1)


def test_frechet_distance_of_gaussians():
    """For commuting covariances it is |m - n|^2 + sum (s - t)^2 of the standard deviations."""
    with seeded():
        x = torch.linalg.qr(torch.randn(4000, 3, dtype=torch.float64) - 0.0)[0]
        x = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky((x - x.mean(0)).T.cov())).T  # white to the bit
    a, b = moments(x * torch.tensor([1.0, 2.0, 3.0])), moments(x * torch.tensor([2.0, 2.0, 0.5]) + 1)
    assert frechet(*a, *b) == pytest.approx(3 + 1 + 2.5**2, rel=1e-6)
    assert frechet(*a, *a) == pytest.approx(0, abs=1e-6)
    turn = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64))[0]
    rotated = [moments(m @ turn) for m in (x * torch.tensor([1.0, 2.0, 3.0]), x * torch.tensor([2.0, 2.0, 0.5]) + 1)]
    assert frechet(*rotated[0], *rotated[1]) == pytest.approx(10.25, rel=1e-6)
    with pytest.raises(UserError, match="expected two images or more in val and test"):
        moments(torch.zeros(1, 3))


def test_features_are_what_goes_into_the_last_dense_layer():
    net = mlp(SMALL, hidden=[6, 5], dropout=0.0, norm="none", **DENSE)
    x = random_images(SMALL)
    inner = net[:-1]((x - 0.25) / 0.5)
    assert torch.allclose(Features(net, [0.25], [0.5], "runs/a")(x), inner, atol=1e-6)
    assert not net[-1]._forward_pre_hooks
    with pytest.raises(UserError, match="task.quality=runs/a: that network has no dense layer"):
        Features(nn.Conv2d(1, 1, 1), [0.0], [1.0], "runs/a")


def test_modes_are_counted():
    centres, spread = torch.tensor([[0.0, 0], [10, 0], [0, 10]]), torch.tensor([1.0, 1.0, 1.0])
    samples = torch.tensor([[0.0, 0]] * 6 + [[10, 2.9]] * 3 + [[0, 6.9]] * 3)  # good, good, too far
    assert modes(centres, spread, samples) == {"modes": 2.0, "good": 0.75}
    assert modes(centres, spread, samples[:1].repeat(9, 1)) == {"modes": 1.0, "good": 1.0}


# Adversarial: learning


def make_pair(kind: type, spec: object = POINTS, **keys) -> object:
    with seeded():
        net = gan(spec, **NETS)
    return make(kind, net, spec, adam=dict(betas=[0.5, 0.9]), **keys)


def blobs() -> Batches:
    with seeded(2):
        y = torch.arange(256) % 2
        x = torch.stack((4.0 * y - 2, torch.zeros(256)), 1) + 0.3 * torch.randn(256, 2)
    return Batches(x, y, POINTS, 256)


@pytest.mark.thorough(but=["WganGp-keys4"])
@pytest.mark.parametrize(("kind", "keys"), [
    (Gan, dict()), (Gan, dict(loss="least_squares")), (Gan, dict(loss="hinge")), (Wgan, dict(clip=0.1, n_critic=2)),
    (WganGp, dict(n_critic=2, gp_weight=1.0)),
])  # fmt: skip
def test_every_gan_finds_a_blob(kind, keys):
    task, data = make_pair(kind, lr=0.002, ema=0.9, **keys), blobs()
    data.x[:, 0] += 5 - 4 * data.y  # one on the other, away from the origin
    before = task.evaluate(data, "val")
    learn(task, (data.x, data.y), 400)
    after = task.evaluate(data, "val")
    assert after["swd"] < 0.4 * before["swd"]
    assert set(after) == set(task.scores) and task.net.training
    assert task.preview(data)["samples"].shape == (3, 96, 96)
    assert list(task.report(data).figures) == ["samples"]


@pytest.mark.thorough
def test_wgan_gp_covers_two_blobs():
    task, data = make_pair(WganGp, lr=0.005, ema=0.9, n_critic=3), blobs()
    learn(task, (data.x, data.y), 600)
    after = task.evaluate(data, "val")
    assert after["modes"] == 2 and after["good"] > 0.7


@pytest.mark.parametrize("kind", [Gan, Wgan, WganGp])
def test_critic_steps_follow_the_clock(kind):
    """With n_critic=3 the generator learns in steps 2, 5, ..., in any order of calls; the critic in every step."""
    task, clock, x = make_pair(kind, n_critic=3), Clock(0, 1, 9), blobs().x
    for clock.step in (2, 0, 1, 5, 4, 7, 8):
        generator, critic = ([p.clone() for p in net.parameters()] for net in (task.net.generator, task.net.critic))
        metrics, is_turn = task.step((x, None), clock), clock.step % 3 == 2
        assert "critic_loss" in metrics and ("loss" in metrics) == is_turn
        assert ("gradient_norm" in metrics) == (kind is WganGp or kind is Wgan and is_turn)
        moved = [any(not torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
                 for before, net in ((generator, task.net.generator), (critic, task.net.critic))]  # fmt: skip
        assert moved == [is_turn, True]
        assert all(p.grad is None and p.requires_grad for p in task.net.parameters()), "nothing is left for the next"


def test_clipped_weights_stay_clipped():
    task = make_pair(Wgan, clip=0.02, lr=0.1)
    learn(task, (blobs().x, None), 3)
    assert max(p.abs().max() for p in task.net.critic.parameters()) <= 0.02


def test_the_averaged_generator_is_evaluated():
    task = make_pair(Gan, ema=0.9)
    assert task.evaluated() is task.update.ema and task.critic_update.ema is None
    assert isinstance(task.net, Pair) and task.evaluated() is not task.net.generator
    learn(task, (blobs().x, None), 3)
    z = torch.randn(5, 4)
    assert torch.equal(task.predict(z), task.update.ema(z))
    assert not torch.allclose(task.predict(z), task.net.generator(z))


def test_the_best_state_is_the_whole_pair_with_the_averaged_generator():
    task = make_pair(Gan, ema=0.9)
    learn(task, (blobs().x, None), 3)
    state, own = task.best_state(), task.net.state_dict()
    assert state.keys() == own.keys()
    for name, value in task.update.ema.state_dict().items():
        assert torch.equal(state[f"generator.{name}"], value)
    assert not all(torch.equal(state[name], own[name]) for name in own if name.startswith("generator."))
    assert all(torch.equal(state[name], own[name]) for name in own if name.startswith("critic."))
    other = make_pair(Gan, ema=0.9)
    other.load_best_state(state)
    z = torch.randn(5, 4)
    assert torch.equal(other.predict(z), task.predict(z))


def test_images_of_a_pair():
    task = make_pair(Gan, SMALL)
    data = data_of(2 * random_images(SMALL) - 1, SMALL)
    assert task.preview(data)["samples"].shape == (1, 89, 89)  # ten times 8 pixels and nine gaps
    assert task.predict(torch.randn(3, 4)).min() >= 0, "pixels in [0, 1]"
    figures = task.report(data).figures
    assert sorted(figures) == ["interpolation", "samples"]
    assert all(render(figure).std() > 1 for figure in figures.values())


# Generated points


def test_gaussians_are_where_the_config_puts_them():
    for name, number in (("gaussians", 8), ("gaussians25", 25)):
        arrays = build(section("data", name)["source"])()
        means = [arrays.x_train[arrays.y_train == k].mean(0) for k in range(number)]
        assert len(arrays.x_train) == 20_000 and arrays.y_train.max() == number - 1
        if number == 8:
            assert all(abs((m**2).sum() ** 0.5 - 2) < 0.02 for m in means)
        else:
            assert sorted({round(float(m[0])) for m in means}) == [-2, -1, 0, 1, 2]
    with pytest.raises(DataError, match="data.source.modes=8 with layout=grid: expected a square number"):
        build(section("data", "gaussians")["source"] | {"layout": "grid"})()


def test_the_swiss_roll_grows_with_the_angle():
    source = section("data", "swiss_roll")["source"] | {"std": 0.0}
    arrays = build(source)()
    radius = (arrays.x_train**2).sum(1) ** 0.5
    assert abs(radius / arrays.y_train[:, 0] - 2 / (4.5 * pi)).max() < 1e-5


# Resuming


@pytest.mark.thorough(but=["vae task.kl_warmup_epochs=1.5 task.beta=2"])
@pytest.mark.parametrize("case", ["vae task.kl_warmup_epochs=1.5 task.beta=2",
                                  "vae task.likelihood=gaussian trainer.ema=0.9",
                                  "denoising_autoencoder task.loss=mse", "wgan_gp task.n_critic=3 model.width=4",
                                  "gan task.loss=hinge task.n_critic=2 model.width=4 trainer.ema=0"])  # fmt: skip
def test_settings_resume_to_the_bit(case, tmp_path):
    model, *keys = case.split()
    data_dir = runs.write_mnist(tmp_path / "data")
    small = [key for key in runs.SMALL if not key.startswith("model.")]
    config = compose(f"model={model}", f"data_dir={data_dir}", *small, *keys)
    train(tmp_path / "a", config)
    for step in (1, 4, 6):
        train(tmp_path / "b", config, resumed=step > 1, signals={step: SIGTERM})
    assert train(tmp_path / "b", config, resumed=True, finish=True).reason == "finished"
    assert_same(tmp_path / "a", tmp_path / "b")


@pytest.mark.thorough(but=["3"])
@pytest.mark.parametrize("stop", [2, 3])
def test_a_skipped_step_stays_skipped_after_resuming(stop, tmp_path):
    """The generator's step changes the running statistics of the critic, too. Stopped before or at the bad batch."""
    small = [key for key in runs.SMALL if not key.startswith("model.")] + ["trainer.on_nan=skip", "model.width=2"]
    config = compose("model=dcgan", "model.form=paper", f"data_dir={runs.write_mnist(tmp_path / 'data')}", *small)
    train(tmp_path / "a", config, nan_at=(3,))
    train(tmp_path / "b", config, signals={stop: SIGTERM}, nan_at=(3,))
    train(tmp_path / "b", config, resumed=True, nan_at=(3,))
    assert_same(tmp_path / "a", tmp_path / "b")
    assert all(value.isfinite().all() for value in runs.state(tmp_path / "b")["components"]["net"].values())


def test_modes_without_a_point_are_reported(tmp_path):
    config = compose(
        "model=gan", "data=gaussians", "data.source.samples=10", "trainer.max_steps=2", "trainer.device=cpu"
    )
    with pytest.raises(UserError, match="modes have no point among the 9 of the train split\n  expected some of each"):
        train(tmp_path / "run", config)
