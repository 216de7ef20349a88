"""The supervised task learns toys in seconds, and its metrics equal plain computations."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import CPU, Batches, kinds, learn, make_task, models, options, section, seeded, takes

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.errors import UserError
from dlrun.models.linear import linear
from dlrun.models.mlp import mlp
from dlrun.output.figures import render
from dlrun.output.plots import confusion_matrix
from dlrun.spec import Columns, Image, Series, Spec, Table, Tokens

SMALL = dict(activation="relu", dropout=0.0, norm="none", init="keras")
NARROW = {"width": 8, "hidden": [32], "head": [32], "growth": 4, "form": "cifar", "times": 1}  # where a model has it
DEEP = ("alexnet", "vgg11", "vgg16_imagenet")  # they refuse images of 16x16
CLASSES, TWO, REAL = Table(features=6, classes=7), Table(features=6, classes=2), Table(features=6, targets=2)
XOR = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]])


def batch(spec: Spec, samples: int = 14) -> tuple[torch.Tensor, torch.Tensor]:
    with seeded(1):
        shape = (samples, *spec.shape)
        x = torch.randint(1, spec.vocab, shape) if isinstance(spec, Tokens) else torch.randn(shape)
        if isinstance(spec, Columns):
            x[:, spec.numbers :] = torch.randint(1, 4, (samples, len(spec.levels))).float()
        return x, torch.randint(spec.classes, (samples,)) if spec.classes else torch.randn(samples, spec.targets)


def make_net(spec: Table | Image, hidden: tuple[int, ...] = (48,), **keys) -> nn.Module:
    with seeded():
        return mlp(spec, hidden=list(hidden), **SMALL | keys)


def measured(task, x, y) -> dict[str, float]:
    return task.evaluate(Batches(x, y, task.spec, 5), "val")


# Memorising


@pytest.mark.thorough(but=["spec0-cross_entropy", "spec3-bce", "spec6-mse", "spec8-huber"])
@pytest.mark.parametrize(
    ("spec", "loss"),
    [
        (CLASSES, "cross_entropy"), (CLASSES, "mse_one_hot"), (CLASSES, "hinge"),
        (TWO, "bce"), (TWO, "mse_one_hot"), (TWO, "hinge"),
        (REAL, "mse"), (REAL, "mae"), (REAL, "huber"),
    ],
)  # fmt: skip
def test_a_batch_is_memorised_with_every_loss(spec, loss):
    x, y = batch(spec)
    task = make_task(make_net(spec), spec, lr=0.01, task=dict(loss=loss))
    losses = learn(task, (x, y), 300)
    found = measured(task, x, y)
    assert found["loss"] < 0.05 * losses[0]
    assert found["acc"] == 1 if spec.classes else found["mae"] < 0.05


@pytest.mark.thorough(but=["sgd", "adam", "adamw", "rmsprop", "schedule_free", "muon"])
@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimizer_reduces_the_loss(optimizer):
    keys = {"gradient_descent": {"lr": 0.1}, "lion": {"lr": 0.001}}.get(optimizer, {})  # defaults are for long runs
    losses = learn(make_task(make_net(CLASSES), CLASSES, optimizer, **keys), batch(CLASSES), 60)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.thorough(but=["mlp", "lenet", "linear", "rnn", "tabular"])
@pytest.mark.parametrize("model", kinds(models()))
def test_every_kind_of_model_memorises_eight_samples(model):
    keys = section("model", model)
    keys = keys | {key: value for key, value in NARROW.items() if type(keys.get(key)) is type(value)}
    keys = keys | {key: 0.0 for key in keys if key in ("dropout", "input_dropout")}
    keys = keys | {key: 1.0 for key in keys if key == "logit_scale"}  # Adam takes long to scale logits
    size = 32 if model in DEEP else 16
    spec = Image((1, size, size), classes=4) if "Image" in takes(model) else Tokens(12, vocab=40, classes=4)
    spec = Series(12, 2, classes=4) if takes(model) == ["Series"] else spec
    spec = Columns(6, levels=(3, 20), classes=4) if "Columns" in takes(model) and "Image" not in takes(model) else spec
    with seeded():
        net = build(keys)(spec)
    x, y = batch(spec, 8)
    task = make_task(net, spec, lr=0.003)
    losses = learn(task, (x, y), 60)
    assert min(losses[-10:]) < 0.1 * losses[0]  # which of them, depends on the rounding of the machine
    assert measured(task, x, y)["acc"] == 1, "in evaluation mode too"


def test_a_linear_model_finds_the_line():
    """The book, chapter 2: it finds the configured line, up to the noise of the points, a tenth of a percent."""
    data, source = build(section("data", "linear")), section("data", "linear")["source"]
    data.load(CPU)
    net = linear(data.spec, init="zeros", bias=True)
    learn(make_task(net, data.spec, "sgd", lr=0.01), next(data.batches("train")), 300)
    assert net[1].weight.item() == pytest.approx(source["w"], abs=2e-3)
    assert net[1].bias.item() == pytest.approx(source["b"], abs=1e-2)


def test_xor_needs_a_hidden_layer():
    """The book, section 6.1: one layer cannot learn it, two can."""
    spec, y = Table(features=2, classes=2), torch.tensor([0, 1, 1, 0])
    one = make_task(linear(spec, init="zeros", bias=True), spec, lr=0.05)
    learn(one, (XOR, y), 200)
    assert measured(one, XOR, y)["acc"] < 1 and measured(one, XOR, y)["loss"] == pytest.approx(0.6931, abs=1e-3)
    two = make_task(make_net(spec, (8,), activation="tanh"), spec, lr=0.05)
    learn(two, (XOR, y), 200)
    assert measured(two, XOR, y) == {"loss": pytest.approx(0, abs=0.05), "acc": 1.0}


# The step


@pytest.mark.parametrize("grad_accum_steps", [2, 3, 5, 14, 99])
@pytest.mark.parametrize("spec", [CLASSES, TWO, REAL], ids=str)
def test_micro_batches_give_the_update_of_the_whole_batch(spec, grad_accum_steps):
    x, y = batch(spec)
    nets, shown = [], []
    for k in (1, grad_accum_steps):
        net = make_net(spec)
        task = make_task(net, spec, "sgd", task=dict(grad_accum_steps=k, l2=0.01))
        shown.append(task.step((x, y), Clock(0, 1, 1)))
        nets.append(net.state_dict())
    torch.testing.assert_close(nets[1], nets[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(shown[1], shown[0], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("grad_accum_steps", [1, 3])
def test_auxiliary_heads_count_by_their_weight(grad_accum_steps):
    """As in GoogLeNet: the step follows the gradient of all three losses; metrics are those of the main output."""
    keys = section("model", "googlenet") | dict(
        form="cifar", width=2, norm="none", dropout=0.0, auxiliary=0.4, init="keras"
    )
    spec = Image((1, 8, 8), classes=3)
    x, y = batch(spec)
    with seeded():
        net = build(keys)(spec)
    for head in (net.aux1, net.aux2):
        head.dropout.p = 0.0
    losses = [F.cross_entropy(out, y) for out in net(x)]
    weights = list(net.parameters())
    gradients = torch.autograd.grad(losses[0] + 0.4 * (losses[1] + losses[2]), weights)
    expected = [weight.detach() - 0.01 * gradient for weight, gradient in zip(weights, gradients, strict=True)]
    task = make_task(
        net, spec, "sgd", lr=0.01, momentum=0.0, nesterov=False, task=dict(grad_accum_steps=grad_accum_steps)
    )
    shown = task.step((x, y), Clock(0, 1, 1))
    torch.testing.assert_close(list(net.parameters()), expected, atol=1e-6, rtol=1e-5)
    assert shown["loss"].item() == pytest.approx(losses[0].item()) and shown["acc"].shape == (len(x),)
    assert measured(task, x, y)["acc"] == (net(x).argmax(1) == y).float().mean()


def test_the_average_is_exponential():
    task = make_task(make_net(CLASSES), CLASSES, lr=0.01, ema=0.75)
    weights = [task.net[1].weight.detach().clone()]
    for _ in range(2):
        learn(task, batch(CLASSES), 1)
        weights.append(task.net[1].weight.detach().clone())
    expected = 3 / 12 * (2 / 11 * weights[0] + 9 / 11 * weights[1]) + 9 / 12 * weights[2]  # the decays of the warm-up
    torch.testing.assert_close(task.update.ema[1].weight, expected)


def test_averaged_weights_are_evaluated():
    x, y = batch(CLASSES)
    task = make_task(make_net(CLASSES), CLASSES, lr=0.01, ema=0.9)
    learn(task, (x, y), 5)
    average = task.update.ema
    assert task.evaluated() is average and not average.training and task.net.training
    with torch.no_grad():
        torch.testing.assert_close(task.predict(x), average(x).softmax(1))
    assert not torch.equal(average[1].weight, task.net[1].weight)


@pytest.mark.parametrize(("batch_size", "grad_accum_steps"), [(13, 1), (1, 1), (14, 14), (7, 3)])
def test_batch_normalisation_of_a_lone_sample_is_refused(batch_size, grad_accum_steps):
    data = Batches(*batch(CLASSES), CLASSES, batch_size)
    task = make_task(make_net(CLASSES, norm="batch"), CLASSES, task=dict(grad_accum_steps=grad_accum_steps))
    words = f"data.batch_size={batch_size} with task.grad_accum_steps={grad_accum_steps} puts one of the"
    with pytest.raises(UserError, match=words):
        task.steps(data)


@pytest.mark.parametrize(
    ("batch_size", "grad_accum_steps", "norm"),
    [(13, 1, "layer"), (14, 1, "batch"), (14, 3, "batch"), (7, 2, "batch"), (5, 4, "none")],
)
def test_batch_normalisation_of_several_samples_is_accepted(batch_size, grad_accum_steps, norm):
    data = Batches(*batch(CLASSES), CLASSES, batch_size)
    task = make_task(make_net(CLASSES, norm=norm), CLASSES, task=dict(grad_accum_steps=grad_accum_steps))
    assert task.steps(data) == -(-14 // batch_size)
    for one in data.batches("train"):
        task.step(one, Clock(0, 1, 1))


def test_a_lone_image_has_statistics():
    spec = Image((1, 16, 16), classes=4)
    net = build(section("model", "resnet18") | {"width": 8})(spec)  # 2x2 maps at the end
    task = make_task(net, spec)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert task.steps(Batches(torch.zeros(3, 1, 16, 16), torch.zeros(3).long(), spec, 2)) == 2
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "asking changes nothing"


# Metrics


@pytest.mark.parametrize("spec", [CLASSES, TWO, REAL, Table(features=6, classes=3)], ids=str)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_evaluate_equals_a_plain_computation(spec, norm):
    x, y = batch(spec, 23)  # four batches of 5 and one of 3
    net = make_net(spec, norm=norm)
    task = make_task(net, spec)
    learn(task, (x, y), 3)
    found = measured(task, x, y)
    with torch.no_grad():
        out = net.eval()(x).double()
    if spec.classes == 2:
        p = torch.sigmoid(out[:, 0])
        expected = {"loss": F.binary_cross_entropy(p, y.double()), "acc": ((p > 0.5) == y).double().mean()}
    elif spec.classes:
        p = out.softmax(1)
        rank = (p > p.gather(1, y[:, None])).sum(1)  # the number of classes that are more likely than the true one
        expected = {"loss": -p[range(23), y].log().mean(), "acc": (rank == 0).double().mean()}
        if spec.classes > 5:
            expected["top5"] = (rank < 5).double().mean()
    else:
        error = out - y
        expected = {"loss": (error**2).mean(), "mae": error.abs().mean(), "mse": (error**2).mean()}
    assert found == {name: pytest.approx(value.item(), abs=1e-6) for name, value in expected.items()}
    assert found.keys() == task.scores.keys() and task.goal in found


def test_the_metrics_of_a_step_are_those_of_its_batch():
    x, y = batch(CLASSES)
    net = make_net(CLASSES)
    with torch.no_grad():
        out = net(x)
    metrics = make_task(net, CLASSES).step((x, y), Clock(0, 1, 1))
    assert not any(value.requires_grad for value in metrics.values())
    torch.testing.assert_close(metrics["loss"], F.cross_entropy(out, y))
    assert torch.equal(metrics["acc"], out.argmax(1) == y)


class Fixed(nn.Module):
    """A network whose output is its input, so that the test sets the predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.one


def test_the_report_equals_one_by_hand():
    true, predicted = [0, 0, 0, 1, 1, 2, 2, 2, 2], [0, 0, 1, 1, 1, 0, 2, 1, 1]
    spec = Table(features=4, classes=4, labels=("ant", "bee", "cat", "dog"))
    task = make_task(Fixed(), spec)
    out = 3 * F.one_hot(torch.tensor(predicted), 4).float()
    report = task.report(Batches(out, torch.tensor(true), spec, 4))
    assert report.numbers["confusion_matrix"].tolist() == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 2, 1, 0], [0, 0, 0, 0]]
    assert report.numbers["acc_per_class"] == {"ant": pytest.approx(2 / 3), "bee": 1, "cat": 0.25, "dog": None}
    assert list(report.figures) == ["confusion_matrix", "calibration"]


def test_two_classes_are_reported():
    spec = Table(features=1, classes=2)
    task = make_task(Fixed(), spec)
    report = task.report(
        Batches(torch.tensor([[2.0], [-1.0], [0.5], [-3.0], [-0.1]]), torch.tensor([1, 1, 0, 0, 0]), spec, 2)
    )
    assert report.numbers["confusion_matrix"].tolist() == [[2, 1], [1, 1]]
    assert report.numbers["acc_per_class"] == {"0": pytest.approx(2 / 3), "1": 0.5}


# Figures


PLANE = ["confusion_matrix", "decision_boundary"]


@pytest.mark.thorough(
    but=[
        "Table(features=2, classes=4)-['confusion_matrix', 'decision_boundary', 'calibration']",
        "Table(features=1, targets=1)-['residuals', 'fitted_line']",
    ]
)
@pytest.mark.parametrize(
    ("spec", "figures"),
    [
        (Table(features=2, classes=2, names=("left", "right")), [*PLANE, "calibration", "roc_and_precision"]),
        (Table(features=2, classes=4), [*PLANE, "calibration"]),
        (Table(features=1, targets=1, unit="m"), ["residuals", "fitted_line"]),
        (Table(features=1, targets=3), ["residuals", "fitted_line"]),
        (Table(features=3, targets=2), ["residuals"]),
        (Image((1, 8, 8), classes=30), ["confusion_matrix", "calibration"]),
    ],
    ids=str,
)
def test_figures_can_be_drawn(spec, figures):
    x, y = batch(spec, 40)
    report = make_task(make_net(spec), spec).report(Batches(x, y, spec, 16))
    assert list(report.figures) == figures
    for name, figure in report.figures.items():
        assert render(figure).std() > 10, name


@pytest.mark.parametrize(("classes", "side"), [(500, 500), (1201, 401)])
def test_a_matrix_of_many_classes_is_drawn_with_the_cells_that_can_be_seen(classes, side):
    matrix = 2 * np.eye(classes, dtype=int)
    matrix[0, -1] = 2
    axes = confusion_matrix(matrix, tuple(map(str, range(classes)))).axes[0]
    found, right = axes.images[0].get_array(), 2 * -(-classes // side)
    assert found.shape == (side, side) and np.count_nonzero(found) == side + 1
    assert (found[0, 0], found[0, -1], found[1, 1]) == pytest.approx((right / (right + 2), 2 / (right + 2), 1.0))
    assert axes.get_xlim() == (-0.5, classes - 0.5)


def test_curves_can_be_drawn(tmp_path):
    from dlrun.output.plots import curves

    row = {"epoch": 1, "train/loss": 2.0, "val/loss": math.nan}
    for rows in ([], [row], [row, {"epoch": 2, "train/loss": 1e-4, "val/loss": 0.5}]):
        curves(rows, "loss", 1 if rows else None).savefig(tmp_path / "loss.png")
    axes = curves([{"epoch": k, "val/acc": 1.0} for k in range(1, 501)], "acc", 3).axes[0]
    assert axes.get_ylim()[1] <= 1.005 and all(np.mod(axes.get_xticks(), 1) == 0)
    assert (
        curves([row | {"epoch": k, "train/loss": 10.0**-k} for k in range(4)], "loss", None).axes[0].get_yscale()
        == "log"
    )
