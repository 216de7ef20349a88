"""Plots: names as they are written, round ticks, informative curves; a plot that fails ends no run."""

import warnings
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from dlrun.output import figures, plots, predictions
from dlrun.output.figures import drawable, key, new_figure, render, short
from dlrun.output.report import Report
from dlrun.output.run_folder import RunFolder
from dlrun.runs import compare
from dlrun.spec import Table
from dlrun.tasks.images import grid, image_figure
from dlrun.tasks.report import report_targets

NAMES = ("$a$ $b_$", r"x^$\frac$", "Élektro", "猫", "\udcff")


def texts(figure: object) -> list[str]:
    from matplotlib.text import Text

    figure.draw_without_rendering()
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def kept(make: object) -> tuple[list[str], object]:
    """The warnings while a figure is drawn, and its pixels."""
    found = []

    def made() -> object:
        found.append(make())
        return found[0]

    pixels = render(made)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return texts(found[0]), pixels


@pytest.fixture
def no_other_fonts(monkeypatch):
    monkeypatch.setattr(figures, "FONTS", 0)
    figures.font_with.cache_clear()
    yield
    figures.font_with.cache_clear()


@pytest.mark.filterwarnings("error")
def test_dollar_signs_in_names_are_drawn_as_they_are(no_other_fonts):
    message, pixels = kept(partial(plots.confusion_matrix, np.eye(5, dtype=int), NAMES))
    assert {"$a$ $b_$", r"x^$\frac$", "Élektro", "#3", "#4"} <= set(message) and pixels.std() > 10
    spec = Table(features=1, targets=1, unit=r"$\frac$ $")
    message, _ = kept(partial(predictions.residuals, np.ones((3, 1)), np.arange(3.0)[:, None], spec))
    assert any(r"[$\frac$ $]" in text for text in message)
    rows = [[{"epoch": e, "val/loss": 1 / e} for e in (1, 2, 3)]] * 2
    message, _ = kept(partial(compare.curves, rows, ["val/loss"], ["1  x=$a$ $", "2  x=\udcff"]))
    assert {"1  x=$a$ $", r"2  x=\udcff"} <= set(message)


@pytest.mark.filterwarnings("error")
def test_letters_without_a_font_are_drawn_as_numbers_with_a_key(no_other_fonts):
    assert drawable(NAMES)[:3] == list(NAMES[:3]) and drawable(NAMES)[3:] == ["#3", "#4"]
    assert key(NAMES) == "#3  猫\n#4  \\udcff" and key(NAMES[:3]) == ""
    assert drawable(["猫", "b"], ["x1", "x2"]) == ["x1", "b"] and drawable(["x" * 99]) == ["x" * 25 + "..."]

    def titled() -> object:
        figure, axes = new_figure()
        axes.set_title("猫")  # by code that forgets `drawable`
        return figure

    assert render(titled).std() > 0, "a box, and no warning"


def test_a_font_with_the_letters_is_chosen(monkeypatch):
    monkeypatch.setattr(figures, "font_with", lambda letter: "STIXGeneral" if letter == "猫" else figures.BASE)
    figure = plots.confusion_matrix(np.eye(2, dtype=int), ("猫", "b"))
    figures._set_fonts(figure)
    label = figure.axes[0].get_yticklabels()[0]
    assert label.get_text() == "猫" and label.get_fontfamily() == [figures.BASE, "STIXGeneral"]


def test_a_plot_that_cannot_be_drawn_does_not_end_the_run(tmp_path, capsys):
    def fails() -> object:
        raise ValueError("Expected end of text\nand more")

    run = RunFolder(tmp_path, {})
    report = Report({"bad": fails}, {"good": {"a": [1.0, 2.0, 3.0]}}, numbers={"mse": 0.5})
    assert run.write_report(report) == {"mse": 0.5}
    run.plots.videos["video"] = lambda: ([np.zeros((2, 2), object)], 30.0)
    run.write_plots(1, ("a", "\udcff"))
    run.close()
    message = capsys.readouterr().out
    assert "no plots/bad.png: Expected end of text\n" in message and "no plots/video.gif: " in message
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"good.png", "classes.txt"}
    assert (tmp_path / "plots" / "classes.txt").read_text() == "#1  \\udcff\n"


def test_a_large_matrix_is_written_to_its_own_file(tmp_path):
    run = RunFolder(tmp_path, {})
    large, small = np.arange(3600).reshape(60, 60), np.eye(2, dtype=int)
    assert run.write_report(Report(numbers={"confusion_matrix": large, "other": small})) == {
        "confusion_matrix": "confusion_matrix.npz",
        "other": [[1, 0], [0, 1]],
    }
    run.close()
    with np.load(tmp_path / "confusion_matrix.npz") as found:
        assert (found["confusion_matrix"] == large).all()


def test_curves_without_information_are_not_drawn():
    rows = [{"epoch": e, "train/passes": 10.0, "train/a": e, "val/return": e, "val/return_std": e} for e in (1, 2)]
    assert plots.worth_drawing(rows, [], ["return", "length"]) == ["return", "a"], "the goal first, no constants"
    assert plots.worth_drawing(rows[:1], [], ["return"]) == [], "an epoch is a dot"
    windows = [{"epoch": e / 4, "step": e, "step/a": e} for e in (1, 2, 3)]
    assert plots.worth_drawing(rows[:1], windows, []) == ["a"]


def test_few_points_have_markers_and_the_best_is_a_star():
    rows = [{"epoch": e, "train/loss": 1.0 / e, "val/loss": 2.0 / e} for e in (1, 2)]
    drawn = {line.get_label(): line for line in plots.curves(rows, "loss", 2).axes[0].lines}
    assert set(drawn) == {"train", "val", "best epoch (2)"}
    assert drawn["train"].get_linestyle() == drawn["val"].get_linestyle() == "None" and drawn["val"].get_marker() == "o"
    star = drawn["best epoch (2)"]
    assert star.get_marker() == "*" and (star.get_xdata()[0], star.get_ydata()[0]) == (2, 1.0)
    windows = [{"epoch": e / 4, "step/loss": 1.0} for e in range(1, 9)]
    lines = plots.curves([*rows, rows[1] | {"epoch": 3}], "loss", 2, windows).axes[0].lines
    styles = {line.get_label(): (line.get_linestyle(), line.get_alpha()) for line in lines}
    assert len({styles[name] for name in ("train, within epochs", "train", "best epoch (2)")}) == 3


def test_early_stopping_is_marked_where_it_stopped():
    rows = [{"epoch": e, "val/loss": 1.0 + (e - 3) ** 2} for e in range(1, 8)]
    for stopped in (False, True):
        lines = plots.curves(rows, "loss", 3, stopped=stopped).axes[0].lines
        found = [line.get_xdata()[0] for line in lines if line.get_label() == "stopped (epoch 7)"]
        assert found == ([7] if stopped else [])


def test_ticks_are_round_and_short():
    assert [short(v) for v in (0.0, 0.25, 9000, 150000, 1.5e6, 2e9, 1e-7)] == [
        "0", "0.25", "9000", "150k", "1.5M", "2G", "1e-07",
    ]  # fmt: skip
    y = np.linspace(5e4, 5e5, 40)[:, None]
    left, right = predictions.residuals(y, y[::-1], Table(features=3, targets=1, unit="$")).axes
    for axis in (left.xaxis, left.yaxis, right.xaxis):
        labels = axis.get_major_formatter().format_ticks(axis.get_majorticklocs())
        assert 3 <= len(labels) <= 8 and all(len(label) <= 5 for label in labels), labels
        assert all(label.lstrip("-") == "0" or label.endswith("00k") for label in labels), labels
    figure = plots.curves([{"epoch": e, "val/a": 0.56 + e / 50} for e in (1, 2, 3)], "a", None)
    labels = figure.axes[0].yaxis.get_major_formatter().format_ticks(figure.axes[0].yaxis.get_majorticklocs())
    assert len({len(label) for label in labels}) == 1, "as many decimals on an axis"


def test_large_splits_are_drawn_in_part(monkeypatch):
    """Evenly spaced samples, whatever the batches; the error in the title is that of all."""
    monkeypatch.setattr(predictions, "POINTS", 100)
    y = torch.arange(1000.0)[:, None]

    class Rows:
        def size(self, split):
            return len(y)

        def batches(self, split):
            return ((rows, rows) for rows in y.split(37))

    figures = report_targets(lambda x: 2 * x, Rows(), Table(features=2, targets=1)).figures
    drawn = figures["residuals"].args
    assert drawn[0].ravel().tolist() == list(range(0, 1000, 10)) and (drawn[1] == 2 * drawn[0]).all()
    figure = figures["residuals"]()
    assert "mean absolute error 499.5" in texts(figure) and "samples, one in 10" in texts(figure)


def test_sheets_have_gaps_and_headings():
    sheet = grid(np_tiles(4, 32), 2)
    assert sheet.shape == (1, 66, 66) and sheet[0, 32:34].min() == 1 == sheet[0, :, 32:34].min()
    assert grid(np_tiles(3, 32), 2)[0, 34:, 34:].min() == 1, "what is missing is paper"
    figure = image_figure(sheet, "masks, test", ("image", "true"), {"cat": (1.0, 0.0, 0.0)})
    assert {"masks, test", "image", "true", "cat"} <= set(texts(figure))


def np_tiles(count: int, side: int) -> object:
    import torch

    return torch.zeros(count, 1, side, side)


def test_a_strip_of_images_names_its_epochs(tmp_path):
    import torch

    from dlrun.output import video

    for epoch in (1, 2):
        video.save_frame(video.frame_path(tmp_path / "images", "samples", epoch), torch.zeros(1, 8, 8))
    strip = video.assemble(tmp_path / "images", tmp_path / "plots")["samples"]
    with Image.open(strip) as image:
        assert image.size == (2 * 210 + 10, 200 + 20 + 10), "small images are enlarged, with room between"


def test_true_and_false_positive_rates_equal_scikit_learns():
    """ROC and precision-recall curves, with equal probabilities among the rows."""
    from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

    from dlrun.tasks.metrics.curves import rates

    random = np.random.RandomState(0)
    y, p = random.randint(0, 2, 200), random.randint(0, 20, 200) / 20
    false, true, precision = rates(p, y)
    wanted = roc_curve(y, p, drop_intermediate=False)
    assert np.allclose(false, wanted[0]) and np.allclose(true, wanted[1])
    assert (np.diff(false) * (true[1:] + true[:-1]) / 2).sum() == pytest.approx(roc_auc_score(y, p))
    assert (np.diff(true) * precision[1:]).sum() == pytest.approx(average_precision_score(y, p))


def test_the_boundary_of_scores_has_no_scale_of_probabilities_and_an_empty_one_says_so():
    x, y = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32), np.arange(20) % 2
    spec = Table(features=2, classes=2)
    steps = lambda points: np.stack((points[:, 0] < 0, points[:, 0] >= 0), 1).astype(np.float32)  # noqa: E731
    flat = lambda points: np.full((len(points), 2), 0.5, np.float32)  # noqa: E731
    scores = predictions.decision_boundary((x, y), steps, spec, ["a", "b"], has_probabilities=False)
    assert len(scores.axes) == 1 and set(np.unique(scores.axes[0].images[0].get_array())) == {0, 1}
    drawn = predictions.decision_boundary((x, y), steps, spec, ["a", "b"])
    assert drawn.axes[1].get_ylabel() == "probability of b" and drawn.axes[0].get_title() == ""
    title = predictions.decision_boundary((x, y), flat, spec, ["a", "b"]).axes[0].get_title()
    assert title == "0.500 everywhere: the network tells no point from another"
