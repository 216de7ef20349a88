"""mode=find_lr: the learning-rate range test (Smith 2017, "Cyclical learning rates for training neural networks", 3.3).

A new network learns for some steps while the learning rate rises exponentially. The loss falls, stays, and rises. The
suggestion is the rate at which the smoothed loss falls fastest, a cautious value well below the rate where it rises.
"""

import csv
import io
from functools import partial
from math import isfinite, log
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from dlrun.errors import Diverged, UserError
from dlrun.output import figures
from dlrun.output.console import number
from dlrun.output.failures import writing_to
from dlrun.output.folders import new_folder
from dlrun.output.json_line import ENDING
from dlrun.output.text_chart import chart
from dlrun.output.written import write_whole
from dlrun.train.session import Session
from dlrun.train.trial import batches, require_samples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOW, HIGH, STEPS = 1e-6, 10.0, 200
SMOOTHING = 0.9  # of the exponential mean over the losses
RISEN = 4  # times the lowest smoothed loss: the test ends


class RangeTest(NamedTuple):
    """Rates and the loss at each, raw and smoothed."""

    rates: list[float]
    losses: list[float]
    smoothed: list[float]


def find_lr(config: dict, names: dict[str, str], chosen: list[str]) -> str:
    """Run the test and write lr.csv and lr.png into a new folder. Returns the text to print.

    Raises UserError if the task does not minimise one loss.
    """
    steps = config["trainer"]["max_steps"] or STEPS
    if steps < 20:
        raise UserError(f"trainer.max_steps={steps}: too few for mode=find_lr\n  expected 20 or more, such as {STEPS}")
    if config["run_dir"]:
        raise UserError(
            f"run_dir={config['run_dir']}: mode=find_lr makes no run\n  expected output_dir=..., for its folder"
        )
    config["optimizer"]["lr"] = HIGH
    config["schedule"] = {"_target_": "dlrun.optim.schedules.range_test", "low": LOW / HIGH}
    session = Session(config, names, [key for key in chosen if key != "optimizer.lr"])
    require_samples(session, "find_lr")
    if list(session.task.named_updates()) != ["update"]:
        raise UserError(
            f"mode=find_lr: task={names.get('task')} has several losses\n  expected a task that minimises one"
        )
    test = range_test(session, steps)
    best = suggestion(test)
    folder = new_folder(Path(config["output_dir"]).expanduser(), f"find_lr_{names['model']}_{names['data']}")
    ENDING.folder = folder
    with writing_to(folder):
        write_whole(folder / "lr.csv", _as_csv(test))
        Image.fromarray(figures.render(partial(lr_figure, test, best))).save(folder / "lr.png")
    curve = [(log(rate, 10), loss) for rate, loss in zip(test.rates, test.smoothed, strict=True)]
    has_fallen = min(test.smoothed) < test.smoothed[0]
    advice = f"optimizer.lr={best:.1g}" if has_fallen else "none: the loss never fell"
    lowest = test.rates[test.smoothed.index(min(test.smoothed))]
    ENDING.measured = {"optimizer.lr": float(f"{best:.1g}") if has_fallen else None, "lowest_loss_at": lowest}
    return "\n".join(
        [
            f"learning-rate range test: {len(test.rates)} steps of {names['model']} on {names['data']}",
            "loss, smoothed, over log10 of optimizer.lr:",
            *chart([curve], 78, 12, colour=False),
            "",
            f"steepest fall  {number(best)}",
            f"lowest loss    {number(lowest)}",
            f"suggestion     {advice}",
            f"{folder / 'lr.png'}",
        ]
    )


def range_test(session: Session, steps: int) -> RangeTest:
    """Take steps at rising rates until the loss has risen, is not finite, or the steps are used up."""
    test, mean = RangeTest([], [], []), 0.0
    for batch, clock in batches(session, steps):
        try:
            metrics = session.task.step(batch, clock)
        except Diverged:
            break
        loss = metrics["loss"].float().mean().item() if metrics else float("nan")
        if not isfinite(loss):
            break
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        test.rates.append(session.task.update.lr)
        test.losses.append(loss)
        test.smoothed.append(mean / (1 - SMOOTHING ** len(test.rates)))  # without the zero that the mean began with
        if test.smoothed[-1] > RISEN * min(test.smoothed):
            break
    if len(test.rates) < 10:
        raise UserError(
            f"mode=find_lr: the loss was not finite after {len(test.rates)} steps, at optimizer.lr={LOW:g}\n"
            "  expected a loss that can be computed at first: check the data and the task"
        )
    return test


def suggestion(test: RangeTest) -> float:
    """The rate at which the smoothed loss falls fastest per factor on the rate, before its lowest point.

    A slope is over a tenth of the steps. The first tenth, of which the smoothing has not seen enough, does not count.
    """
    width = max(1, len(test.rates) // 10)
    last = max(test.smoothed.index(min(test.smoothed)) - width, 0)
    starts = range(min(width, last), last + 1)
    falls = [test.smoothed[i + width] - test.smoothed[i] for i in starts]
    return test.rates[starts[falls.index(min(falls))] + width // 2]


def lr_figure(test: RangeTest, best: float) -> "Figure":
    """The loss over the rate, on a logarithmic axis, with the suggestion."""
    figure, axes = figures.new_figure()
    axes.plot(test.rates, test.losses, color=figures.GREY, linewidth=0.8, label="loss")
    axes.plot(test.rates, test.smoothed, color=figures.TRAIN, label="smoothed")
    axes.axvline(best, color=figures.VAL, linestyle="--", label=f"steepest fall: {best:.1g}")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
    low, high = min(test.smoothed), max(test.smoothed[: max(2, test.smoothed.index(min(test.smoothed)))])
    axes.set_ylim(low - 0.1 * (high - low), high + 0.3 * (high - low))
    axes.set_xlabel("learning rate")
    axes.legend()
    return figure


def _as_csv(test: RangeTest) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["lr", "loss", "smoothed"])
    writer.writerows(zip(*test, strict=True))
    return text.getvalue()
