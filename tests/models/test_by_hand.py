"""Backpropagation, least squares and the perceptron by hand, as in the book, against torch and closed forms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from runs import compose
from toys import CPU, DEVICE, Batches, make_task, make_update, section, seeded

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.data.readers.tables import gates, sine
from dlrun.errors import UserError
from dlrun.models.handwritten import handwritten
from dlrun.models.linear import linear
from dlrun.models.polynomial import polynomial
from dlrun.spec import Table
from dlrun.tasks.least_squares import LeastSquares
from dlrun.tasks.one_hot import OneHot
from dlrun.train.session import Session

MOONS, PLANE = Table(features=2, classes=2), Table(features=1, targets=1)


def plain(net, x: torch.Tensor) -> torch.Tensor:
    """The same layers by torch's operations, which autograd differentiates."""
    for weight, bias in zip(net.weights, net.biases, strict=True):
        x = torch.sigmoid(x @ weight + bias)
    return x


@pytest.mark.parametrize("hidden", [[], [5], [25, 50, 25]])
def test_gradients_by_hand_equal_those_of_autograd(hidden):
    with seeded():
        net = handwritten(MOONS, hidden=hidden, learn_biases=True).double()
        x, y = torch.randn(9, 2).double(), torch.randint(2, (9,))
    gradients = []
    for forward in (net, lambda x: plain(net, x)):
        out = forward(x)
        gradients.append(torch.autograd.grad(F.mse_loss(out, F.one_hot(y, 2).double()), list(net.parameters())))
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-12, rtol=1e-9)
    assert all(gradient.abs().max() > 1e-6 for gradient in gradients[0])
    assert torch.equal(net(x), plain(net, x))


def test_the_network_of_the_book_keeps_its_biases():
    net = handwritten(MOONS, hidden=[25, 50, 25], learn_biases=False)
    assert sum(p.numel() for p in net.parameters()) == 2_702
    task = OneHot(net, MOONS, DEVICE, make_update, grad_accum_steps=1)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    task.step((torch.randn(4, 2), torch.tensor([0, 1, 1, 0])), Clock(0, 1, 1))
    changed = {
        name.partition(".")[0] for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"weights"}


def test_the_largest_output_is_the_class():
    net = handwritten(MOONS, hidden=[3], learn_biases=True)
    task = OneHot(net, MOONS, DEVICE, make_update, grad_accum_steps=1)
    x, y = torch.randn(7, 2), torch.randint(2, (7,))
    found, out = task.evaluate(Batches(x, y, MOONS, 3), "val"), net(x)
    assert found["acc"] == pytest.approx((out.argmax(1) == y).double().mean().item())
    assert found["loss"] == pytest.approx(F.mse_loss(out, F.one_hot(y, 2).float()).item(), abs=1e-6)
    torch.testing.assert_close(task.predict(x), out / out.sum(1, keepdim=True))


@pytest.mark.parametrize(("degree", "bias"), [(1, True), (4, True), (7, False)])
def test_least_squares_equals_numpys_solution(degree, bias):
    random = np.random.RandomState(0)
    x = random.uniform(-2, 2, (30, 1)).astype(np.float32)
    y = np.sin(2 * x) + 0.1
    with seeded():
        net = polynomial(PLANE, degree=degree, scale=2.0, bias=bias)
    task = LeastSquares(net, PLANE, DEVICE, make_update)
    shown = task.step((torch.from_numpy(x), torch.from_numpy(y)), Clock(0, 1, 1))
    powers = np.concatenate([x.astype(np.float64) ** k for k in range(0 if bias else 1, degree + 1)], 1)
    fitted = powers @ np.linalg.lstsq(powers, y, rcond=None)[0]
    np.testing.assert_allclose(net(torch.from_numpy(x)).detach().numpy(), fitted, atol=2e-5)
    assert shown["loss"].item() == pytest.approx(((fitted - y) ** 2).mean(), rel=1e-3)
    assert bias or net(torch.zeros(1, 1)).item() == 0


def test_least_squares_needs_all_samples():
    config, names = compose("model=polynomial", "data.batch_size=79", "trainer.device=cpu")
    with pytest.raises(UserError, match="data.batch_size=79: least squares needs all 80 train samples at once"):
        Session(config, names)


def test_powers_that_are_not_finite_are_refused():
    task = LeastSquares(polynomial(PLANE, degree=9, scale=1e-300, bias=True), PLANE, DEVICE, make_update)
    with pytest.raises(UserError, match=r"the powers of x / 1e-300 up to degree 9 are not finite\n.* near .* 3"):
        task.step((torch.tensor([[3.0], [1.0]]), torch.zeros(2, 1)), Clock(0, 1, 1))


def test_a_step_follows_the_perceptron_rule():
    """For a sample on the wrong side w <- w + lr y x, b <- b + lr y; no step for one on the right side."""
    net = linear(MOONS, init="zeros", bias=True)
    task = make_task(net, MOONS, "gradient_descent", lr=0.1, task={"loss": "perceptron"})
    x = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    task.step((x[:1], torch.tensor([1])), Clock(0, 1, 1))  # all weights are 0, so the answer is the first class
    torch.testing.assert_close(net[1].weight.detach(), torch.tensor([[0.1, 0.2]]))
    task.step((x[:1], torch.tensor([1])), Clock(0, 1, 1))
    torch.testing.assert_close(net[1].weight.detach(), torch.tensor([[0.1, 0.2]]))
    task.step((x[1:], torch.tensor([0])), Clock(0, 1, 1))
    torch.testing.assert_close(net[1].weight.detach(), torch.tensor([[-0.2, 0.3]]))
    assert net[1].bias.item() == 0


@pytest.mark.parametrize(("gate", "table"), [("and", "0001"), ("or", "0111"), ("xor", "0110")])
def test_gates_have_their_truth_tables(gate, table):
    arrays = gates(gate=gate, samples=40, noise=0.1, random_state=0)
    assert "".join(map(str, arrays.y_test)) == table and arrays.x_test.tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    corners = arrays.x_train.round().astype(int)
    assert (arrays.y_train == np.array([int(output) for output in table])[2 * corners[:, 0] + corners[:, 1]]).all()
    assert np.bincount(2 * corners[:, 0] + corners[:, 1]).tolist() == [10] * 4


def test_sine_data_follows_its_formula():
    keys = dict(samples=500, test_samples=9, frequency=1.5, low=-1.0, high=2.0, random_state=0)
    arrays = sine(noise=0.0, **keys)
    np.testing.assert_allclose(arrays.y_train, np.sin(1.5 * arrays.x_train), atol=1e-6)
    noise = sine(noise=0.5, **keys).y_train - arrays.y_train
    assert noise.std() == pytest.approx(0.5, abs=0.05) and -1 <= arrays.x_train.min() < arrays.x_train.max() < 2
    with pytest.raises(UserError, match=r"data.source.low=2.0 data.source.high=2.0: expected low < high"):
        sine(noise=0.0, **keys | {"low": 2.0})


def test_ranges_of_penalised_weights_are_reported():
    """Table 9.1 of the book: smallest, largest and mean weight; the largest matrix is drawn."""
    config, names = compose("data=moons", "model.hidden=[4,6]", "task.l2=0.1", "task.penalise=['3.weight','5.weight']")
    session = Session(config, names)
    report = session.task.report(session.data)
    weight = session.task.net[3].weight
    assert report.numbers["penalised_weights"].keys() == {"3.weight", "5.weight"}
    assert report.numbers["penalised_weights"]["3.weight"] == {
        "least": pytest.approx(weight.min().item()),
        "greatest": pytest.approx(weight.max().item()),
        "mean": pytest.approx(weight.mean().item()),
    }
    assert report.figures["weights"].args[0] == "3.weight"


def test_without_a_val_split_all_samples_train():
    data = build(section("data", "moons") | {"val_fraction": 0})
    data.load(CPU)
    assert [data.size(split) for split in ("train", "val", "test", "all")] == [750, 750, 250, 1000]
    assert sum(len(x) for x, _ in data.batches("all")) == 1000
