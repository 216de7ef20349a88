"""Conditional GANs, the inception score, a GAN of numbers, and dense GANs for images."""

from signal import SIGTERM

import numpy as np
import pytest
import torch
from runs import assert_same, compose, train
from test_generative import SMALL, data_of, make
from toys import DEVICE, section, seeded

from dlrun.clock import Clock
from dlrun.models.conditional_gan import conditional_gan
from dlrun.models.gan import gan
from dlrun.spec import Image, Table
from dlrun.tasks.generative.conditional_gan import ConditionalGan
from dlrun.tasks.generative.latent import class_arithmetic
from dlrun.tasks.generative.line import density, equilibrium, histograms
from dlrun.tasks.generative.quality import inception_score

DIGITS = ["model=conditional_gan", "data=digits", "model.hidden=[32]", "model.critic_hidden=[32]", "trainer.device=cpu"]


def conditional(spec: Image = SMALL) -> ConditionalGan:
    with seeded():
        net = conditional_gan(spec, noise=3, hidden=[16], critic_hidden=[16], norm="none", dropout=0.0, init="torch")
    return make(ConditionalGan, net, spec)


def test_the_end_of_a_code_is_the_class():
    net = conditional().net
    z = torch.zeros(2, net.latent)
    z[0, 3], z[1, 5] = 0.3, 2.0  # the position of the largest of the last four counts, not its value
    assert net.generator.classes_of(z).argmax(1).tolist() == [0, 2] and net.latent == 7
    assert net.generator(z).shape == (2, 1, 8, 8) and net(z).shape == (2,)
    first = net.generator.layers[0]
    with torch.no_grad():
        first.weight[:, 3:] = 0  # without the class, equal noise gives equal images
    assert torch.equal(*net.generator(z).split(1))
    other = torch.randn(1000, net.latent, generator=torch.Generator().manual_seed(0))
    assert torch.bincount(net.generator.classes_of(other).argmax(1), minlength=4).min() > 200


def test_generator_and_discriminator_receive_the_class():
    task = conditional()
    x, y = torch.zeros(4, 1, 8, 8), torch.tensor([3, 0, 1, 1])
    generator, critic, samples = task.players((x, y))
    z = torch.zeros(4, task.net.latent)
    hot = torch.nn.functional.one_hot(y, 4).float()
    assert torch.equal(generator(z), task.net.generator(torch.cat((z[:, :3], hot), 1))) and samples is x
    assert torch.equal(critic(x), task.net.critic(x, hot)) and not torch.equal(*critic(x)[:2].split(1))


def test_a_sheet_has_a_class_in_each_column():
    task = conditional()
    z, y = task.codes(10, 2)
    assert y.tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert torch.equal(task.net.generator.classes_of(z).argmax(1), y) and torch.equal(z[0, :3], z[3, :3])
    assert not torch.equal(z[0, :3], z[4, :3])


def test_inception_score_in_closed_form():
    """1 if all samples are alike; the number of classes if each prediction is certain and all are equally frequent."""
    sure = torch.eye(5).repeat(4, 1)
    assert inception_score(sure) == pytest.approx(5) and inception_score(sure[:1]) == pytest.approx(1)
    assert inception_score(torch.full((8, 5), 0.2)) == pytest.approx(1)
    p = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    mean = p.mean(0)
    by_hand = (p * (p / mean).log()).sum(1).mean().exp()
    assert inception_score(p) == pytest.approx(by_hand.item())


@pytest.mark.thorough
def test_a_conditional_gan_resumes_to_the_bit(tmp_path):
    config = compose(*DIGITS, "trainer.epochs=2")
    train(tmp_path / "a", config, finish=True)
    assert train(tmp_path / "b", config, signals={30: SIGTERM}).number == SIGTERM
    train(tmp_path / "b", config, resumed=True, finish=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "plots" / "samples.png").exists()


@pytest.mark.thorough
def test_a_conditional_gan_learns_each_class():
    """Two classes, one black and one white: each is generated on request."""
    spec = Image((1, 4, 4), classes=2)
    with seeded():
        net = conditional_gan(spec, noise=2, hidden=[16], critic_hidden=[16], norm="none", dropout=0.0, init="torch")
        y = torch.randint(2, (64,))
        x = (y * 1.6 - 0.8)[:, None, None, None] + 0.05 * torch.randn(64, 1, 4, 4)
        task = make(ConditionalGan, net, spec, lr=0.003, adam={"betas": (0.5, 0.9)})
        for step in range(400):
            task.step((x, y), _clock(step))
    z, asked = task.codes(40, 7)
    means = net.generator(z).mean((1, 2, 3))
    assert means[asked == 1].mean() > 0.4 and means[asked == 0].mean() < -0.4


def _clock(step: int) -> Clock:
    clock = Clock(0, 1, 1000)
    clock.step = step
    return clock


def test_codes_are_moved_from_class_to_class():
    """If codes are images: an image minus the mean of its class plus that of another class."""
    x, y = torch.tensor([[1.0, 0], [3, 0], [0, 10], [0, 14]]).view(4, 1, 1, 2), torch.tensor([0, 0, 1, 1])
    moved = class_arithmetic(lambda x: x.flatten(1), lambda z: z.view(-1, 1, 1, 2), iter([(x, y)]), 2)
    assert moved.flatten(1).tolist() == [[1, 0], [-1, 12], [2, -2], [0, 10]]
    assert class_arithmetic(lambda x: x.flatten(1), lambda z: z, iter([(x, y)]), 3) is None


def test_dense_gans_make_images():
    keys = {k: v for k, v in section("model", "gan").items() if k != "_target_"} | dict(form="dense", hidden=[8])
    pair = gan(Image((3, 5, 6)), **keys)
    images = pair.generator(torch.zeros(2, 64))
    assert images.shape == (2, 3, 5, 6) and images.abs().max() <= 1 and pair.critic(images).shape == (2,)


def test_a_gan_of_numbers_is_drawn_with_the_best_discriminator():
    """A perfect generator and a blind critic: both curves are 0.5."""
    numbers = np.random.RandomState(0).normal(2, 0.5, 20000)
    at = np.array([1.0, 2.0, 2.5])
    exact = np.exp(-(((at - 2) / 0.5) ** 2) / 2) / (0.5 * (2 * np.pi) ** 0.5)
    np.testing.assert_allclose(density(numbers, at), exact, rtol=0.06)
    real, fake = torch.zeros(100, 1), torch.ones(100, 1)
    real[0], fake[0] = 1.0, 0.0
    picture = histograms(torch.cat((real, fake)), torch.cat((fake, real)))
    assert picture.shape == (3, 96, 192) and torch.equal(picture[0], picture[1])
    spec = Table(1, targets=1)
    data = data_of(torch.randn(64, 1), spec)
    figure = equilibrium(lambda z: z[:, :1], lambda x: torch.zeros(len(x)), 2, data, DEVICE)
    lines = {line.get_label(): line.get_ydata() for axes in figure.axes for line in axes.get_lines()}
    seen = ~np.isnan(lines["the best one"])
    assert np.allclose(lines["discriminator"][seen], 0.5) and np.abs(lines["the best one"][seen] - 0.5).mean() < 0.2


def test_dense_networks_keep_their_parameter_names():
    """Checkpoints of runs on tables still fit."""
    keys = {k: v for k, v in section("model", "gan").items() if k != "_target_"}
    pair = gan(Table(2, classes=8), **keys | dict(hidden=[4, 4]))
    names = [f"{k}.{name}" for k in (0, 2, 4) for name in ("weight", "bias")]
    assert list(pair.state_dict()) == [f"{part}.{name}" for part in ("generator", "critic") for name in names]
