"""Functions as data, points that descend on them, and their plots, against the book's figures and closed forms."""

import csv
import json
import signal
from dataclasses import replace
from math import log, log2

import numpy as np
import pytest
import torch
from runs import assert_same, compose, rows, train
from toys import CPU, DEVICE, make_update, section

from dlrun.config.build import build
from dlrun.data.readers.functions import FORMULAS, line, named
from dlrun.data.readers.tables import linear
from dlrun.errors import UserError
from dlrun.models.recurrence import lstm_step
from dlrun.output.figures import render
from dlrun.output.surfaces import _reach, contours, curve, surface
from dlrun.system.distributed import Distributed
from dlrun.tasks.minimise import central_differences

TEN = torch.linspace(-6, 6, 10)[:, None]
PRINTED = {  # the book, sections 6.4.1 to 6.4.4: ten points from -6 to 6
    "sigmoid": [0.00247264, 0.00931597, 0.03444517, 0.11920291, 0.33924365, 0.6607564, 0.8807971, 0.96555483,
                0.99068403, 0.9975274],
    "leaky_relu": [-0.6, -0.46666667, -0.33333334, -0.2, -0.06666666, 0.666667, 2, 3.333333, 4.666667, 6],
    "relu": [0, 0, 0, 0, 0, 0.666667, 2, 3.333333, 4.666667, 6],
}  # fmt: skip


def finished(tmp_path, *overrides: str) -> dict:
    """The test results in the summary of a whole run."""
    train(tmp_path, compose("model=point", "trainer.device=cpu", *overrides), finish=True)
    return json.loads((tmp_path / "summary.json").read_text())["test"]


def test_every_function_has_a_name():
    """The config is checked against a signature that is read from the source."""
    for name in FORMULAS:
        compose("model=point", f"data.source.name={name}")
    with pytest.raises(UserError, match="data.source.name=himelblau: expected one of himmelblau, bowl, saddle, "):
        compose("model=point", "data.source.name=himelblau")
    with pytest.raises(UserError, match="task.method=newton: expected one of gradient, numeric, random, none"):
        compose("model=point", "task.method=newton")


@pytest.mark.parametrize("name", FORMULAS)
def test_values_slopes_and_minima(name):
    function = named(name=name)
    low, high = torch.tensor(function.low).double(), torch.tensor(function.high).double()
    shares = torch.rand(40, function.features, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    points = (low + (0.02 + 0.96 * shares) * (high - low)).requires_grad_()
    values = function.at(points)
    (slopes,) = torch.autograd.grad(values.sum(), points)
    assert values.shape == (40,) and values.isfinite().all()
    torch.testing.assert_close(slopes, central_differences(function, points.detach()), atol=1e-5, rtol=1e-5)
    for place in function.minima:
        least = function.at(torch.tensor(place, dtype=torch.float64))
        assert (values > least - 1e-9).all() and least < values.min() + 0.3 * (values.max() - values.min())


@pytest.mark.parametrize("name", PRINTED)
def test_activations_have_the_books_values(name):
    torch.testing.assert_close(named(name=name).at(TEN), torch.tensor(PRINTED[name]), atol=1e-6, rtol=1e-6)


def test_slopes_of_losses_follow_the_books_formulas():
    """Sections 7.3 to 7.6: with target 1, o - t; o (1 - o) (o - t); p - 1."""
    z = torch.linspace(-3, 3, 7)[:, None].double().requires_grad_()
    p = torch.sigmoid(z.detach())
    wanted = {"squared_error": z.detach() - 1, "sigmoid_squared_error": p * (1 - p) * (p - 1), "cross_entropy": p - 1}
    for name, slopes in wanted.items():
        torch.testing.assert_close(torch.autograd.grad(named(name=name).at(z).sum(), z)[0], slopes)


def test_entropy_and_divergence():
    """Section 6.6: 2 bits, 1.356 bits, 0; the divergence is not symmetric."""
    points = torch.tensor([[0.25] * 4, [0.1, 0.1, 0.1, 0.7], [0.0, 0.0, 0.0, 1.0]])
    expected = [2.0, -0.3 * log2(0.1) - 0.7 * log2(0.7), 0.0]
    torch.testing.assert_close(named(name="entropy").at(points), torch.tensor(expected))
    half = torch.tensor([[0.5]])
    assert named(name="forward_kl").at(half).item() == pytest.approx(0.2 * log(0.4) + 0.8 * log(1.6))
    assert named(name="reverse_kl").at(half).item() == pytest.approx(0.5 * log(2.5) + 0.5 * log(0.625))


def test_the_loss_of_a_line_is_the_mean_over_its_points():
    source = section("data", "line_loss")["source"]
    keys = {key: value for key, value in source.items() if key != "_target_"}
    function, (x, y, *_) = line(**keys), linear(test_samples=1, **keys)
    points = torch.tensor([[1.0, 2.0], [1.477, 0.089]])
    expected = [float(((w * x + b - y) ** 2).mean()) for w, b in points.tolist()]
    torch.testing.assert_close(function.at(points), torch.tensor(expected))
    assert function.minima[0] == pytest.approx(np.polyfit(x[:, 0], y[:, 0], 1), abs=1e-6)
    with pytest.raises(UserError, match="many lines go through one point"):
        line(**keys | {"samples": 1})


def test_distances_of_two_lines():
    """Section 13.7: without overlap, JS is log 2 and its gradient 0; the earth mover's distance has a gradient."""
    theta = torch.tensor([[-0.5], [0.0], [0.25]]).double().requires_grad_()
    js, em = (named(name=f"{kind}_of_lines").at(theta) for kind in ("js", "em"))
    assert js.tolist() == pytest.approx([log(2), 0, log(2)], abs=1e-7) and em.tolist() == [0.5, 0, 0.25]
    assert not torch.autograd.grad(js.sum(), theta)[0].any()
    assert torch.autograd.grad(em.sum(), theta)[0].flatten().tolist()[::2] == [-1, 1]
    p, q = np.zeros(4), np.zeros(4)
    p[0], q[2] = 1, 1  # by the definition, on a grid
    middle = (p + q) / 2
    divergence = sum(0.5 * float(a @ np.log(np.where(a > 0, a / np.maximum(middle, 1e-9), 1))) for a in (p, q))
    assert divergence == pytest.approx(log(2))


def test_the_lstm_cell_is_the_recurrence():
    """Table 11.1: keep, both, clear, overwrite, with gates of 0 or 1."""
    corners = torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]])
    found = named(name="lstm_cell").at(corners)
    assert found.tolist() == [1, 1.5, 0, 0.5]
    gate = torch.where(corners > 0.5, 100.0, -100.0)
    from_x = torch.stack([gate[:, 0], gate[:, 1], torch.full((4,), float(np.arctanh(0.5))), torch.zeros(4)], 1)
    _, c = lstm_step(from_x, torch.zeros(4, 4), torch.zeros(4, 1), torch.ones(4, 1))
    torch.testing.assert_close(c.squeeze(1), found)


def test_losses_of_scaled_inputs_are_those_of_samples():
    """Section 10.8: up to a factor, the mean squared error over a grid of inputs."""
    grid = torch.linspace(1, 10, 1001).double()
    points = torch.tensor([[1.5, 0.7], [-1.0, 2.0], [1.0, 1.25]]).double()
    d1, d2 = (points - 1).unbind(1)
    for name, scale in (("even_inputs", 1), ("uneven_inputs", 100)):
        square, product = grid.square().mean(), grid.mean() ** 2
        mean = d1**2 * square + 2 * scale * d1 * d2 * product + scale**2 * d2**2 * square
        ratio = named(name=name).at(points) / mean
        torch.testing.assert_close(ratio, ratio[:1].expand(3), rtol=3e-3, atol=0)
    torch.testing.assert_close(named(name="normalised_inputs").at(points), 0.5 * (d1**2 + d2**2))


def test_batch_normalisation_learns_the_printed_scale():
    """The companion code of section 10.8, by torch; and by the function of (gamma, beta) that it is."""
    torch.manual_seed(0)
    x = 1 + 0.5 * torch.randn(200, 3, 40, 40)
    layer = torch.nn.BatchNorm2d(3, eps=1e-3)
    optimizer, point = torch.optim.SGD(layer.parameters(), 0.01), torch.tensor([[1.0, 0.0]], requires_grad=True)
    for _ in range(10):
        optimizer.zero_grad()
        (layer(x).square().mean() - 1).backward()
        optimizer.step()
        (slopes,) = torch.autograd.grad(named(name="batch_norm_toy").at(point).sum(), point)
        point = (point - 0.01 * slopes).detach().requires_grad_()
    assert point[0, 0].item() == pytest.approx(0.9355, abs=1e-4) and point[0, 1] == 0
    assert layer.weight.tolist() == pytest.approx([0.9355] * 3, abs=2e-4)


@pytest.mark.thorough
def test_four_starting_points_reach_four_minima(tmp_path):
    """Table 7.1 of the book, and all files of a run."""
    test = finished(tmp_path, "model.starts=[[4,0],[1,0],[-4,0],[-2,2]]")
    ends = [point["end"] for point in test["points"]]
    expected = [(3.584428, -1.848127), (3, 2), (-3.779310, -3.283186), (-2.805118, 3.131313)]
    np.testing.assert_allclose(ends, expected, atol=1e-4)
    assert all(point["f"] < 1e-12 for point in test["points"]) and test["test/f"] < 1e-12
    table = list(csv.DictReader((tmp_path / "path.csv").read_text().splitlines()))
    assert len(table) == 4 * 201 and [float(table[0][key]) for key in ("x", "y", "f")] == [4, 0, 34]
    x, y, f = (float(table[4][key]) for key in ("x", "y", "f"))
    assert (x, y) == pytest.approx((4 - 0.01 * (2 * 5 * 8 + 2 * -3), -0.01 * (2 * 5)), abs=1e-5) and f < 34
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {"contours", "surface", "descent", "f"}


def test_points_move_by_themselves(tmp_path, undrawn):
    together = finished(tmp_path / "a", "model.starts=[[4,0],[1,0]]", "optimizer=adam", "optimizer.lr=0.1")
    alone = finished(tmp_path / "b", "model.starts=[[1,0]]", "optimizer=adam", "optimizer.lr=0.1")
    assert alone["points"][0]["end"] == pytest.approx(together["points"][1]["end"], abs=1e-5)
    assert (alone["test/x"], alone["test/y"]) == tuple(alone["points"][0]["end"])


def test_central_differences_end_where_gradients_do(tmp_path, undrawn):
    ends = [
        finished(tmp_path / method, f"task.method={method}", "trainer.epochs=2")["points"][0]["end"]
        for method in ("gradient", "numeric")
    ]
    assert ends[0] == pytest.approx(ends[1], abs=1e-4)


def test_random_search_keeps_the_lowest(tmp_path, undrawn):
    test = finished(tmp_path, "task.method=random", "data=line_loss")
    values = [float(row["f"]) for row in csv.DictReader((tmp_path / "path.csv").read_text().splitlines())]
    assert len(values) == 501 and all(b <= a for a, b in zip(values, values[1:], strict=False))
    assert test["test/f"] == pytest.approx(values[-1], rel=1e-4) and 1e-4 < values[-1] < 5


def test_fixed_points_are_only_drawn(tmp_path):
    test = finished(tmp_path, "data.source.name=parabola", "model.starts=[[4],[2]]", "task.method=none", "data.steps=1")
    assert [point["gradient"] for point in test["points"]] == [[10], [6]], "the book, section 1.5.3"
    assert [point["end"] for point in test["points"]] == [[4], [2]] and test["gradient_error"] < 1e-6
    assert {path.stem for path in (tmp_path / "plots").iterdir()} == {"curve"}


@pytest.mark.parametrize("method", ["gradient", "random"])
def test_resuming_is_exact(method, tmp_path, undrawn):
    config = compose("model=point", "trainer.device=cpu", "trainer.epochs=3", f"task.method={method}", "optimizer=adam")
    train(tmp_path / "a", config, finish=True)
    assert train(tmp_path / "b", config, signals={27: signal.SIGTERM}).number == signal.SIGTERM
    train(tmp_path / "b", config, resumed=True, finish=True)
    assert_same(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "path.csv").read_text() == (tmp_path / "b" / "path.csv").read_text()
    assert len(rows(tmp_path / "b")) == 4  # three epochs and one window of steps


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("model.starts=[]", r"model.starts has no point, and the function is one of x, y"),
        ("model.starts=[[1]]", r"model.starts has the point \[1\]"),
        ("data.spec.low=[1]", r"data.spec.low has 1 entries \[1\], and the function is one of x, y"),
        ("data.spec.low=[7,7]", r"data.spec.low=\[7, 7\] data.spec.high=\[6.0, 6.0\]: expected low < high"),
        ("data.spec.names=[f,y]", r"data.spec.names=\['f', 'y'\]: expected different names"),
    ],
)
def test_impossible_settings_are_refused(wrong, text, tmp_path):
    from dlrun.train.session import Session

    with pytest.raises(UserError, match=text):
        Session(*compose("model=point", "trainer.device=cpu", wrong))


def test_several_processes_are_refused():
    config, _ = compose("model=point", "trainer.device=cpu")
    spec, device = build(config["data"]).spec, replace(DEVICE, dist=Distributed(0, 2))
    with pytest.raises(UserError, match="task=minimise moves its points in one process"):
        build(config["task"])(net=build(config["model"])(spec), spec=spec, device=device, update=make_update)


def test_drawings_show_the_function():
    """A steeper function fills more of the image: plots are not empty and depend on the function."""
    still = np.zeros((1, 1, 1))
    pictures = [render(lambda name=name: curve(named(name=name), still)) for name in ("sigmoid", "tanh")]
    assert pictures[0].shape == pictures[1].shape and (pictures[0] != pictures[1]).any()
    assert render(lambda: surface(named(name="saddle"), np.zeros((1, 1, 2)))).std() > 10


def test_the_data_of_a_function_is_recognised_on_resuming():
    data = build(section("data", "function"))
    data.load(CPU)
    other = build(section("data", "function") | {"source": section("data", "function")["source"] | {"name": "bowl"}})
    assert data.digest() == other.digest() and data.sums() != other.sums()


def test_a_kink_is_named_and_no_error_of_the_gradient(tmp_path):
    """Autograd has one of the slopes there, differences their mean."""
    keys = ["data.source.name=hinge", "model.starts=[[1],[0]]", "task.method=none", "data.steps=1"]
    test = finished(tmp_path, *keys)
    assert [point.get("kinks") for point in test["points"]] == [["h"], None] and test["gradient_error"] < 1e-9
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["table"] == [["h", "f", "f'"], ["1", "0", "kink"], ["0", "1", "-1"]]
    assert summary["goal"] is None, "a drawing is not better than another one"
    assert "h  f    f'\n----------\n1  0  kink\n0  1    -1\n" in (tmp_path / "run.log").read_text()


def test_the_points_of_a_path_are_within_the_drawing():
    function = named(name="bowl")
    paths = np.array([[[0.0, 0.0]], [[1.0, 7.0]], [[0.0, 1e9]], [[-6.0, float("nan")]]])
    low, high = _reach(function, paths)
    assert low == [pytest.approx(-6.5), -5] and high == [5, 15], "at most by the range's own width"
    assert render(lambda: contours(function, paths[:2])).std() > 10
    alone = contours(named(name="lstm_cell"), np.array([[[1.0, 1.0], [0.0, 1.0]]]))
    assert [text.get_text() for text in alone.axes[0].texts] == ["1.5", "1"]
    assert not alone.axes[0].get_legend() and alone.legends, "it lies beside the points"
