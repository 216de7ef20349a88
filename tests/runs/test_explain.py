"""dl-runs explain: Grad-CAM, saliency and gates against closed forms; runs of images and of texts; refusals."""

import numpy as np
import pytest
import torch
from finished_runs import FAMILIES, untrained, write_texts
from PIL import Image as PILImage
from runs import command, write_mnist
from torch import nn
from toys import seeded

from dlrun.models.recurrence import gates
from dlrun.runs.cli import main
from dlrun.spec import Image
from dlrun.tasks.explain import grad_cam, kept_outputs, kernels_of, of_image, strongest
from dlrun.train.finished import FinishedRun


@pytest.fixture
def explain(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return command(monkeypatch, capsys, main, "dl-runs", "explain")


def drawn(paths: list[str]) -> list[str]:
    """The names of the images, each of which shows something."""
    for path in paths:
        with PILImage.open(path) as image:
            assert np.asarray(image.convert("L")).std() > 3, path
    return [path.rpartition("/")[2] for path in paths]


def test_the_class_activation_of_a_known_network_is_exact():
    """The output is the mean of one map: its gradient is constant, so Grad-CAM is that map."""
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
    x = torch.zeros(1, 1, 6, 6)
    x[0, 0, 2, 3] = 4.0
    with kept_outputs({"0": net[0]}) as maps:
        out = net(x)
        assert net(2 * x)[0, 0] == 2 * out[0, 0], "a second pass is not that of the first"
        (slopes,) = torch.autograd.grad(out[0, 0], maps["0"])
    cam = grad_cam(maps["0"].detach(), slopes, (6, 6))
    assert cam[2, 3] == 1 and cam.sum() == 1
    name, layer = next(strongest({"conv": maps["0"]}))
    assert name == "conv: 2 maps of 6 x 6" and layer[0, 2, 3] == 4 and not net[0]._forward_hooks
    figures = of_image(net, x, lambda x: net(x).detach().softmax(1), ["a", "b"])
    assert set(figures) == {"saliency", "feature_maps", "first_kernels"}


def test_titles_say_how_many_of_the_maps_and_kernels_are_drawn():
    """A kernel is above the map that it makes; kernels of three channels are in colour."""
    with seeded():
        net = nn.Sequential(nn.Conv2d(3, 70, 3), nn.ReLU(), nn.Conv2d(70, 4, 2), nn.Flatten(), nn.LazyLinear(2))
        x = torch.randn(1, 3, 8, 8)
        net(x)
    figures = of_image(net, x, lambda x: net(x).detach().softmax(1), ["a", "b"])
    rows = figures["feature_maps"].args[0]
    assert list(rows) == ["0: 8 of 70 kernels of 3 x 3", "0: 8 of 70 maps of 6 x 6", "2: 4 maps of 5 x 5"]
    kernels, maps = list(rows.values())[:2]
    assert kernels.shape == (8, 3, 3, 3) and kernels.min() == 0 and kernels.max() == 1
    best = int(net[0](x)[0].relu().mean((1, 2)).argmax())
    torch.testing.assert_close(torch.from_numpy(maps[0]), net[0](x)[0, best].detach())
    torch.testing.assert_close(torch.from_numpy(kernels[0]), kernels_of(net[0])[best])
    assert figures["first_kernels"].args[1] == "kernels of the first convolution, 64 of 70"
    assert len(figures["feature_maps"]().axes) == 24


@pytest.mark.parametrize(("kind", "count"), [(nn.LSTM, 3), (nn.GRU, 2)])
def test_gates_equal_those_of_torch(kind, count):
    """The gates give the next state, as torch computes it from the previous one."""
    with seeded():
        layer, x = kind(3, 4, batch_first=True), torch.randn(2, 5, 3)
    found = gates(layer, x)
    assert found.shape == (count, 2, 5, 4) and (found > 0).all() and (found < 1).all()
    h, c = layer(x[:, :4])[1] if kind is nn.LSTM else (layer(x[:, :4])[1], None)
    w_x, w_h, b_x, b_h = (getattr(layer, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    from_x, from_h = x[:, 4] @ w_x.T + b_x, h[0] @ w_h.T + b_h
    if kind is nn.LSTM:
        i, f, o = found[:, :, 4]
        candidate = (from_x + from_h)[:, 8:12].tanh()
        new = o * (f * c[0] + i * candidate).tanh()
    else:
        r, z = found[:, :, 4]
        new = (1 - z) * (from_x[:, 8:] + r * from_h[:, 8:]).tanh() + z * h[0]
    torch.testing.assert_close(new, layer(x)[0][:, 4])


@pytest.mark.thorough
def test_an_image_is_explained_for_a_convolutional_network(explain, tmp_path):
    root = write_mnist(tmp_path / "data")
    run = untrained(tmp_path / "run", ["model=lenet", "data=mnist", f"data_dir={root}"])
    code, lines, err = explain(run)
    expected = ["test_0_saliency.png", "test_0_feature_maps.png", "test_0_first_kernels.png"]
    assert (code, err) == (0, "") and drawn(lines) == expected
    picture = tmp_path / "seven.png"
    PILImage.fromarray(np.eye(50, dtype=np.uint8) * 200).save(picture)
    code, lines, err = explain(run, picture)
    assert code == 2 and "--fit resizes them" in err
    code, lines, err = explain(run, "--fit", picture, picture, "--out", "there")
    assert code == 0 and len(drawn(lines)) == 6 and lines[0] == "there/seven_saliency.png"
    assert lines[3] == "there/seven_2_saliency.png"


def test_a_text_is_explained_for_a_recurrent_network(explain, tmp_path):
    write_texts(tmp_path)
    words = [o.format(data=tmp_path) for o in FAMILIES["texts"]]
    run = untrained(tmp_path / "run", words)
    code, lines, err = explain(run, "a good film", "a bad film")
    assert (code, err) == (0, "") and drawn(lines) == ["a_good_film_gates.png", "a_bad_film_gates.png"]
    for k in range(2):  # the same text keeps its name, others get their own
        (tmp_path / "mine.txt").write_text("a weak film")
        code, lines, err = explain(run, *(["A good   film?", "a good film", "..."] if k else ["mine.txt"]))
        names = ["A_good_film_gates.png", "a_good_film_2_gates.png"] if k else ["mine_gates.png"]
        assert code == 0 and drawn(lines)[:2] == names
    other = untrained(tmp_path / "other", [*words, "model=bag_of_words"])
    code, lines, err = explain(other, "a good film")
    assert code == 2 and "nothing to draw of a good film: the run is of model=bag_of_words on data=" in err


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_the_figure_of_a_text_names_its_words_and_shows_them_whole(tmp_path, kind):
    """Of a run that is loaded from its folder alone."""
    write_texts(tmp_path)
    words = [o.format(data=tmp_path) for o in FAMILIES["texts"]]
    run = FinishedRun(untrained(tmp_path / "run", [*words, f"model={kind}", "data.length=8"]))
    figures = run.task.explain(run.data.encode(["a good lovely film zzz"]))
    figure = figures["gates"]()
    figure.canvas.draw()
    labels = figure.axes[-1].get_xticklabels()
    assert [label.get_text() for label in labels] == ["(start)", "a", "good", "lovely", "film", "?"]
    assert min(label.get_window_extent().y0 for label in labels) >= 0, "they are cut off"


def test_only_the_run_is_required(explain):
    code, _, err = explain()
    assert code == 2 and err.startswith("dl-runs: the following arguments are required: RUN\n")


def test_runs_without_a_class_are_refused(explain, tmp_path):
    run = untrained(tmp_path / "run", FAMILIES["targets"])
    code, _, err = explain(run)
    assert code == 2 and "expected a classifier of images, or a recurrent network of texts" in err
    assert not (run / "explained").exists()


def test_dense_networks_have_saliency_only():
    with seeded():
        net = nn.Sequential(nn.Flatten(), nn.Linear(4, 1))
    x = torch.ones(1, 1, 2, 2)
    figures = of_image(net, x, lambda x: torch.cat((1 - net(x).sigmoid(), net(x).sigmoid()), 1).detach(), ["no", "yes"])
    assert set(figures) == {"saliency"} and Image((1, 2, 2), classes=2).outputs == 1
