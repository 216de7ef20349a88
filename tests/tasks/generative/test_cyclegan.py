"""CycleGAN: its data, its losses and measures in closed form; it learns a toy and resumes to the bit."""

from pathlib import Path
from signal import SIGTERM

import numpy as np
import pytest
import torch
from runs import SMALL as RUN
from runs import assert_same, compose, train, write_mnist
from test_generative import make
from torch import nn
from toys import Batches, learn, section, seeded

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.data.base import Arrays
from dlrun.errors import ConfigError, DataError, PairingError, UserError
from dlrun.models.cyclegan import Cycle, cyclegan
from dlrun.output.figures import render
from dlrun.spec import Image
from dlrun.tasks.generative.cyclegan import Cyclegan, colourfulness, correlation, domains, luminance

SPEC = Image((3, 8, 8), classes=2, labels=("grey", "red"))
NARROW = dict(width=4, critic_width=4, blocks=1, norm="instance", init="torch")
TINY = [key for key in RUN if not key.startswith(("model.", "data=", "data.source"))]
TINY += ["model=cyclegan", "data=coloured_digits", "data.source.samples=72", "data.source.test_samples=20"]
TINY += ["data.source.download=false", "model.width=2", "model.critic_width=2", "model.blocks=1"]


def make_cyclegan(spec: Image = SPEC, net: nn.Module | None = None, **keys) -> Cyclegan:
    with seeded():
        return make(Cyclegan, net or cyclegan(spec, **NARROW), spec, **keys)


class Times(nn.Module):
    """Multiplies by a number, which can be learned."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x


class Level(nn.Module):
    """The same score for every patch of every image: (B, C, H, W) -> (B, 2, 2)."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(level))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.level.expand(len(x), 2, 2)


def squares(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A bright square at a random place: grey in domain 0, red in domain 1."""
    random = torch.Generator().manual_seed(seed)
    x, y = torch.full((count, 3, 8, 8), -1.0), torch.arange(count) % 2
    for image, label in zip(x, y, strict=True):
        row, column = torch.randint(0, 5, (2,), generator=random).tolist()
        image[: 1 if label else 3, row : row + 4, column : column + 4] = 1.0
    return x, y


# The data


def read(root: Path, **keys) -> Arrays:
    source = section("data", "coloured_digits")["source"]
    return build(source | {"data_dir": str(root), "download": False, "samples": 72, "test_samples": 20} | keys)()


def test_digits_are_grey_or_of_one_colour_and_no_digit_is_both(tmp_path):
    arrays = read(write_mnist(tmp_path))
    seen = set()
    for x, y, count in ((arrays.x_train, arrays.y_train, 72), (arrays.x_test, arrays.y_test, 20)):
        assert x.shape == (count, 3, 28, 28) and x.dtype == np.uint8 and np.bincount(y).tolist() == [count // 2] * 2
        grey, painted = x[y == 0], x[y == 1]
        assert (grey[:, 0] == grey[:, 1]).all() and (grey[:, 0] == grey[:, 2]).all()
        shape = painted.max(1, keepdims=True)
        assert (painted.min((1, 2, 3)) == 0).all(), "a bright colour has a channel without light"
        share = (painted.sum((2, 3)) / shape.sum((2, 3)))[:, :, None, None]
        assert np.abs(painted - share * shape).max() < 1.5, "each digit is its grey one times a colour"
        seen |= {image.tobytes() for image in (*grey[:, 0], *shape[:, 0])}
    assert len(seen) == 92, "no digit twice"
    hues = painted.sum((2, 3)).argmax(1)
    assert set(hues.tolist()) == {0, 1, 2}, "colours differ"


def test_the_images_are_a_function_of_the_random_state(tmp_path):
    root = write_mnist(tmp_path)
    one, same, other = read(root), read(root), read(root, random_state=1)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))
    assert not np.array_equal(one.x_train, other.x_train)
    with pytest.raises(DataError, match="data.source.samples=73: expected at most 72, the digits that there are"):
        read(root, samples=73)


# The step


def test_losses_in_closed_form():
    """Generators that undo each other have no cycle loss; a critic of level c costs its generator (c - 1)^2."""
    net = Cycle(nn.ModuleList([Times(2.0), Times(0.5)]), nn.ModuleList([Level(0.3), Level(-0.2)]))
    task = make_cyclegan(net=net, identity_weight=0.5, cycle_weight=10.0)
    x, y = squares(10)
    found = task.step((x, y), Clock(0, 1, 1))
    assert found["cycle_loss"].item() == pytest.approx(0, abs=1e-6)
    assert found["adversarial_loss"].item() == pytest.approx(0.7**2 + 1.2**2)
    assert found["identity_loss"].item() == pytest.approx(1 + 0.5)  # |2x - x| and |x / 2 - x| for |x| = 1
    assert found["loss"].item() == pytest.approx(0.7**2 + 1.2**2 + 10 * 0.5 * 1.5)
    real, fake = 0.7**2 + 1.2**2, 0.3**2 + 0.2**2
    assert found["critic_loss"].item() == pytest.approx(0.5 * real + 0.5 * fake)
    net = Cycle(nn.ModuleList([Times(1.0), Times(0.5)]), nn.ModuleList([Level(1.0), Level(1.0)]))
    found = make_cyclegan(net=net, cycle_weight=4.0).step((x, y), Clock(0, 1, 1))
    assert found["loss"].item() == pytest.approx(4 * (0.5 + 0.5)) and "identity_loss" not in found


def test_the_domains_of_a_batch_are_its_classes():
    x, y = squares(5)
    parts = domains((x, y))
    assert [(here, there, len(part)) for here, there, part in parts] == [(0, 1, 3), (1, 0, 2)]
    assert torch.equal(parts[1][2], x[y == 1])
    assert [here for here, _, _ in domains((x[y == 1], y[y == 1]))] == [1]


@pytest.mark.parametrize("only", [None, 0, 1])
def test_all_networks_learn_even_from_a_batch_of_one_domain(only):
    """Processes that share a batch must step together, whatever their parts of it hold."""
    task = make_cyclegan()
    x, y = squares(8)
    rows = slice(None) if only is None else y == only
    before = {name: p.clone() for name, p in task.net.named_parameters()}
    found = task.step((x[rows], y[rows]), Clock(0, 1, 1))
    still = [name for name, p in task.net.named_parameters() if torch.equal(p, before[name])]
    assert not [name for name in still if ".weight" in name], still
    assert all(value.isfinite() for value in found.values())
    assert all(p.grad is None and p.requires_grad for p in task.net.parameters())


def test_translations_keep_the_size_of_images():
    for shape in ((1, 28, 28), (3, 32, 64), (3, 8, 12)):
        net = cyclegan(Image(shape, classes=2), **NARROW)
        x = torch.randn(2, *shape)
        assert all(to(x).shape == x.shape and to(x).abs().max() <= 1 for to in net.generator)
        assert net(x).dim() == 4 and net(x).shape[:2] == (2, 2)


# Measures


def test_measures_in_closed_form():
    x, _ = squares(4)
    red = torch.tensor([1.0, -1, -1]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    assert colourfulness(red).item() == 1 and colourfulness(x[:1]).item() == 0
    assert colourfulness(x[1:2]).item() == pytest.approx(16 / 64), "a quarter of the pixels is red"
    rows = torch.tensor([[1.0, 2, 4], [1, 2, 4], [3, 3, 3]])
    others = torch.tensor([[3.0, 5, 9], [-1, -2, -4], [1, 2, 3]])
    assert correlation(rows, others).tolist() == pytest.approx([1, -1, 0], abs=1e-6)
    assert luminance(torch.ones(1, 3, 2, 2)).flatten().tolist() == pytest.approx([1] * 4)
    assert luminance(torch.full((1, 2, 1, 1), 3.0)).item() == pytest.approx(3)


def test_generators_that_change_nothing_are_measured_so():
    net = Cycle(nn.ModuleList([Times(1.0), Times(1.0)]), nn.ModuleList([Level(0.0), Level(0.0)]))
    task, data = make_cyclegan(net=net), Batches(*squares(40), SPEC, 7)
    found = task.evaluate(data, "val")
    assert found.keys() == task.scores.keys()
    assert found["cycle_mae"] == 0 and found["luminance_corr"] == pytest.approx(1, abs=1e-5)
    assert found["colour_gap"] == pytest.approx(0.25) and found["swd"] > 0.1
    grey, painted = task.measured(data, "val")
    assert (grey["colour"], grey["colour_of_translations"]) == pytest.approx((0, 0.25))
    assert (painted["colour"], painted["colour_of_translations"]) == pytest.approx((0.25, 0))


def test_images_that_are_grey_have_no_colour_to_measure():
    spec = Image((1, 8, 8), classes=2)
    x, y = squares(12)
    task, data = make_cyclegan(spec), Batches(x[:, :1].contiguous(), y, spec, 5)
    assert task.evaluate(data, "val").keys() == task.scores.keys() == {"swd", "cycle_mae", "luminance_corr"}


def test_sheets_and_predictions():
    task, data = make_cyclegan(num_samples=5), Batches(*squares(20), SPEC, 8)
    sheets = task.preview(data)
    assert {name: tuple(sheet.shape) for name, sheet in sheets.items()} == dict.fromkeys(
        ("from_0", "from_1"), (3, 26, 44)
    )
    first = (data.x[data.y == 1][0] + 1) / 2
    assert torch.equal(sheets["from_1"][:, :8, :8], first), "the first row holds the images"
    report = task.report(data)
    assert sorted(report.figures) == ["from_0", "from_1"] and report.numbers["domains"].keys() == {"grey", "red"}
    assert all(render(figure).std() > 1 for figure in report.figures.values())
    images = (data.x[:3] + 1) / 2
    both = task.predict(images)
    assert both.shape == (3, 3, 8, 16) and both.min() >= 0 and both.max() <= 1
    translated = (task.evaluated()[1](data.x[:3]) + 1) / 2
    assert torch.allclose(both[..., 8:], translated, atol=1e-6)


# Whole runs


@pytest.mark.thorough
def test_grey_squares_become_red_and_red_ones_grey():
    """Nothing keeps them at their places: any one-to-one map of the domains has no cycle loss."""
    keys = NARROW | dict(width=8, critic_width=8)
    with seeded():
        net = cyclegan(SPEC, **keys)
    task = make_cyclegan(net=net, lr=0.001, adam={"betas": (0.5, 0.999)})
    data = Batches(*squares(40, seed=1), SPEC, 40)
    before = task.evaluate(data, "val")
    learn(task, squares(32), 200)
    after = task.evaluate(data, "val")
    assert after["colour_gap"] < 0.06 < before["colour_gap"], (before, after)
    assert after["cycle_mae"] < 0.08 < 0.3 < before["cycle_mae"] and after["swd"] < 0.7 * before["swd"]


@pytest.mark.thorough
def test_a_cyclegan_resumes_to_the_bit(tmp_path):
    config = compose(f"data_dir={write_mnist(tmp_path / 'data')}", *TINY, "trainer.ema=0.9", "task.identity_weight=0.5")
    train(tmp_path / "a", config, finish=True)
    for step in (1, 4, 6):
        assert train(tmp_path / "b", config, resumed=step > 1, signals={step: SIGTERM}).number == SIGTERM
    train(tmp_path / "b", config, resumed=True, finish=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    assert {"from_0", "from_1"} <= {path.stem for path in (tmp_path / "a" / "plots").glob("*.png")}


def test_a_split_without_a_domain_is_refused(tmp_path):
    config = compose(f"data_dir={write_mnist(tmp_path / 'data')}", *TINY, "data.source.test_samples=1")
    with pytest.raises(UserError, match="the test split has 1 image of grey and 0 of coloured\n  expected some of"):
        train(tmp_path / "run", config)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(("keys", "text"), [
    ("model.blocks=0", r"model.blocks=0: expected an integer in \[1, 1000\]"),
    ("model.width=0", "model.width=0: expected an integer >= 1"),
    ("task.cycle_weight=-1", "task.cycle_weight=-1: expected a number >= 0"),
    ("task.num_samples=0", "task.num_samples=0: expected an integer >= 1"),
    ("data.source.samples=0", "data.source.samples=0: expected an integer >= 1"),
])  # fmt: skip
def test_impossible_settings_are_refused(keys, text):
    with pytest.raises(ConfigError, match=text):
        compose("model=cyclegan", "data_dir=/nowhere", keys)


def test_other_data_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(PairingError, match="model=cyclegan cannot learn from data=moons"):
        compose("model=cyclegan", "data=moons")
    with pytest.raises(PairingError, match="model=cyclegan cannot learn from data=anime_faces"):
        compose("model=cyclegan", "data=anime_faces")
    with pytest.raises(PairingError, match="task=cyclegan cannot train model=gan"):
        compose("model=gan", "data=coloured_digits", "task=cyclegan")
    for keys, text in (
        (["data=mnist"], "two domains, which are the classes of the images, and there are 10"),
        (["data.spec.shape=[3,30,30]"], "cyclegan cannot take images of 30x30.*such as 28, 32 or 64"),
        (["data.spec.shape=[3,4,4]"], "cyclegan cannot take images of 4x4"),
    ):
        own = [key for key in TINY if "mnist" not in str(keys) or not key.startswith("data")]
        with pytest.raises(UserError, match=text):
            train(tmp_path / "run", compose(*own, "data_dir=/nowhere", *keys))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
