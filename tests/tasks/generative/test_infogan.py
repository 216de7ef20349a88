"""InfoGAN: its codes, the bound in closed form, clusters matched with classes; a toy, and resuming to the bit."""

from itertools import permutations
from math import log
from signal import SIGTERM

import numpy as np
import pytest
import torch
from runs import SMALL as RUN
from runs import assert_same, compose, train, write_mnist
from test_generative import SMALL, data_of, make, random_images
from toys import Batches, learn, seeded

from dlrun.errors import ConfigError, PairingError, UserError
from dlrun.models.infogan import infogan, uniform
from dlrun.output.figures import render
from dlrun.spec import Image
from dlrun.tasks.generative.infogan import Infogan
from dlrun.tasks.generative.matching import clustering_accuracy, matched, purity

NARROW = dict(noise=3, categories=4, codes=2, units=16, width=4, norm="batch", critic_norm="none", init="torch")
TINY = [key for key in RUN if not key.startswith("model.")] + [
    "model=infogan",
    "model.width=2",
    "model.noise=4",
    "model.units=16",
]


def make_infogan(spec: Image = SMALL, net: dict | None = None, **keys) -> Infogan:
    with seeded():
        return make(Infogan, infogan(spec, **NARROW | (net or {})), spec, **keys)


def codes(count: int, latent: int = 9) -> torch.Tensor:
    return torch.randn(count, latent, generator=torch.Generator().manual_seed(0))


def test_a_code_is_noise_then_numbers_then_a_category():
    net = make_infogan().net
    z = codes(20_000)
    c = uniform(z[:, 3:5])
    assert net.latent == 9 and c.abs().max() < 1
    assert torch.allclose(c.square().mean(0), torch.full((2,), 1 / 3), atol=0.01), "uniform in (-1, 1)"
    assert torch.equal(c[:50].sort(0).indices, z[:50, 3:5].sort(0).indices)
    first = net.generator.layers[0]
    with torch.no_grad():
        first.weight[:, :5] = 0  # only the category is left
    z = z[:64]
    images, category = net.eval().generator(z), z[:, -4:].argmax(1)
    assert images.shape == (64, 1, 8, 8)
    assert all(torch.equal(images[i], images[j]) == (category[i] == category[j]) for i in range(8) for j in range(8))


def test_score_and_guesses_share_all_convolutions():
    """The critic's outputs are a score, a logit for each category, and two numbers for each continuous code."""
    net = make_infogan().net
    assert net(codes(5)).shape == (5, 1 + 4 + 2 * 2)
    assert not [layer for head in (net.critic.score, net.critic.guesses) for layer in head.modules() if
                isinstance(layer, torch.nn.Conv2d)]  # fmt: skip
    assert make_infogan(net=dict(codes=0)).net(codes(5, 7)).shape == (5, 5)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_bound_is_the_log_probability_of_the_codes(number):
    task = make_infogan(net=dict(codes=number), info_weight=0.5, code_weight=3.0)
    z, out = codes(50, 7 + number), 2 * torch.randn(50, 5 + 2 * number, generator=torch.Generator().manual_seed(1))
    terms, metrics = task.code_losses(out, z)
    category = torch.distributions.Categorical(logits=out[:, 1:5]).log_prob(z[:, -4:].argmax(1))
    deviation = out[:, 5 + number :].clamp(-5, 2).exp()
    numbers = torch.distributions.Normal(out[:, 5 : 5 + number], deviation).log_prob(uniform(z[:, 3:-4]))
    assert terms[0].item() == pytest.approx(-0.5 * category.mean().item(), rel=1e-4)
    assert terms[1].item() == pytest.approx(-3 * numbers.sum(1).mean().item(), rel=1e-4, abs=1e-6)
    bound = category.mean() + log(4) + numbers.sum(1).mean() + number * log(2)
    assert metrics["mutual_information"].item() == pytest.approx(bound.item(), rel=1e-4)


def test_the_critic_learns_to_guess_and_the_generator_to_be_guessed():
    """With n_critic=2: in the first step the critic and Q learn, in the second the generator too."""
    from dlrun.clock import Clock

    task, clock = make_infogan(n_critic=2), Clock(0, 1, 4)
    x = 2 * random_images(SMALL) - 1
    parts = {"generator": task.net.generator, "trunk": task.net.critic.trunk, "guesses": task.net.critic.guesses}
    for clock.step in (0, 1):
        before = {name: [p.clone() for p in net.parameters()] for name, net in parts.items()}
        metrics = task.step((x, None), clock)
        moved = {name: any(not torch.equal(a, b) for a, b in zip(before[name], net.parameters(), strict=True))
                 for name, net in parts.items()}  # fmt: skip
        assert moved == {"generator": clock.step == 1, "trunk": True, "guesses": True}
        assert "mutual_information" in metrics and ("loss" in metrics) == (clock.step == 1)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3), (2, 2), (1, 4), (6, 6)])
def test_clusters_are_matched_as_well_as_any_permutation_does(shape):
    rng = np.random.RandomState(sum(shape))
    for _ in range(20):
        counts = rng.randint(0, 9, shape)
        found = matched(counts)
        used = [label for label in found if label >= 0]
        assert len(found) == shape[0] and len(used) == len(set(used)) == min(shape)
        size = max(shape)
        padded = np.zeros((size, size), int)
        padded[: shape[0], : shape[1]] = counts
        best = max(padded[np.arange(size), order].sum() for order in map(list, permutations(range(size))))
        right = sum(counts[i, label] for i, label in enumerate(found) if label >= 0)
        assert right == best
        assert clustering_accuracy(counts) == pytest.approx(best / max(1, counts.sum()))
        assert purity(counts) >= clustering_accuracy(counts)


def test_a_perfect_clustering_with_other_numbers():
    counts = np.array([[0, 0, 5], [7, 0, 0], [0, 2, 0]])
    assert matched(counts) == [2, 0, 1] and clustering_accuracy(counts) == purity(counts) == 1
    assert clustering_accuracy(np.array([[4, 4], [2, 0]])) == pytest.approx(0.6)  # 4 and 2 of 10
    assert purity(np.array([[4, 4], [2, 0]])) == pytest.approx(0.6)


def test_sheets_have_a_category_in_each_row():
    task = make_infogan(num_samples=12)
    z = task.codes(3, 2)
    assert z[:, -4:].argmax(1).tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
    assert torch.equal(z[:3, :5], z[3:6, :5]) and not torch.equal(z[0, :3], z[1, :3])
    z = task.codes(5, 2, 1)
    assert torch.equal(z[0, :3], z[19, :3]) and not z[:, 3].any(), "all else is equal"
    swept = uniform(z[:5, 4])
    assert torch.allclose(swept, torch.linspace(-0.95, 0.95, 5), atol=1e-5)
    x = 2 * random_images(SMALL) - 1
    data = Batches(x, torch.arange(len(x)) % 4, SMALL, 8)
    sheets = task.preview(data)
    assert {name: tuple(sheet.shape) for name, sheet in sheets.items()} == {
        "samples": (1, 35, 26), "code_1": (1, 35, 89), "code_2": (1, 35, 89)
    }  # fmt: skip
    report = task.report(data)
    assert sorted(report.figures) == ["clusters", "code_1", "code_2", "confusion_matrix", "samples"]
    assert all(render(figure).std() > 1 for figure in report.figures.values())
    assert sorted(report.numbers["class_of_category"]) == [0, 1, 2, 3]
    scores = task.evaluate(data, "val")
    assert scores.keys() == task.scores.keys() and 0 < scores["clustering_acc"] <= scores["purity"] <= 1


def test_images_without_classes_have_no_clusters_to_match():
    spec = Image((1, 8, 8))
    task, data = make_infogan(spec), data_of(2 * random_images(spec) - 1, spec)
    assert task.evaluate(data, "val").keys() == task.scores.keys() == {"swd"}
    report = task.report(data)
    assert sorted(report.figures) == ["clusters", "code_1", "code_2", "samples"] and not report.numbers


@pytest.mark.parametrize("weight", [1.0, 0.0])
def test_images_tell_their_codes_only_if_that_is_asked_for(weight):
    task = make_infogan(
        net=dict(critic_norm="batch"), info_weight=weight, code_weight=weight, lr=0.002, adam={"betas": (0.5, 0.9)}
    )
    learn(task, (2 * random_images(SMALL, 32) - 1, None), 100)
    z = codes(500)
    with torch.no_grad():
        out = task.net.eval()(z)
    told = (out[:, 1:5].argmax(1) == z[:, -4:].argmax(1)).float().mean()
    error = (out[:, 5:7] - uniform(z[:, 3:5])).square().mean()  # 1 / 3 if nothing is known
    bound = task.code_losses(out, z)[1]["mutual_information"]
    assert (told > 0.85 and error < 0.1 and bound > 2) if weight else (told < 0.5 and error > 0.2 and bound < 0)


@pytest.mark.thorough
@pytest.mark.parametrize("keys", ["model.codes=2", "model.codes=0 task.n_critic=2 trainer.ema=0 task.loss=hinge"])
def test_an_infogan_resumes_to_the_bit(keys, tmp_path):
    config = compose(f"data_dir={write_mnist(tmp_path / 'data')}", *TINY, *keys.split())
    train(tmp_path / "a", config, finish=True)
    for step in (1, 4, 6):
        assert train(tmp_path / "b", config, resumed=step > 1, signals={step: SIGTERM}).number == SIGTERM
    train(tmp_path / "b", config, resumed=True, finish=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    drawn = {path.stem for path in (tmp_path / "a" / "plots").glob("*.png")}
    assert {"clusters", "confusion_matrix", "samples"} <= drawn and ("code_2" in drawn) == (keys == "model.codes=2")


@pytest.mark.parametrize(("keys", "text"), [
    ("model.categories=1", r"model.categories=1: expected an integer in \[2, 1000\]"),
    ("model.codes=-1", r"model.codes=-1: expected an integer in \[0, 100\]"),
    ("model.noise=0", "model.noise=0: expected an integer >= 1"),
    ("task.info_weight=-1", "task.info_weight=-1: expected a number >= 0"),
    ("task.loss=wasserstein", "task.loss=wasserstein: expected one of nonsaturating"),
])  # fmt: skip
def test_impossible_settings_are_refused(keys, text):
    with pytest.raises(ConfigError, match=text):
        compose("model=infogan", "data_dir=/nowhere", keys)


def test_data_without_images_and_odd_sizes_are_refused_before_they_are_read(tmp_path):
    with pytest.raises(PairingError, match="model=infogan cannot learn from data=moons"):
        compose("model=infogan", "data=moons")
    with pytest.raises(PairingError, match="task=infogan cannot train model=gan"):
        compose("model=gan", "data=mnist", "task=infogan")
    with pytest.raises(UserError, match="gan cannot make images of 30x30"):
        train(tmp_path / "run", compose("data_dir=/nowhere", *TINY, "data.spec.shape=[1,30,30]"))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
