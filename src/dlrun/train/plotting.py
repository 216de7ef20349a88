"""The plots of a run, during the run or later from its folder."""

from functools import partial
from pathlib import Path

from dlrun.data.base import Data
from dlrun.errors import UserError
from dlrun.models.options import options_of
from dlrun.output import plots
from dlrun.output.folders import require_plain
from dlrun.output.rows import parse_row
from dlrun.output.run_folder import RunFolder
from dlrun.paths import read_whole
from dlrun.tasks.base import Task
from dlrun.train.finished import FinishedRun
from dlrun.train.state import metric_order


def plot(run: RunFolder, task: Task, data: Data, metric: str | None, best_epoch: int | None, global_step: int) -> None:
    """Draw the figures of the reports and the metrics' curves. metric: the one that chooses the best epoch."""
    spec, axis = data.spec, run.axis.replace("step", "epoch")
    for name in plots.worth_drawing(run.rows, run.windows, metric_order(task, metric)):
        goal = getattr(spec, "goal", None) if name == task.goal else None
        stopped = run.facts.get("stopped_by") == "patience"
        run.plots.figures[name] = partial(plots.curves, run.rows, name, best_epoch, run.windows, axis, goal, stopped)
    if norms := plots.gradient_norms(run.windows):
        run.plots.figures["gradient_norms"] = partial(plots.norm_curves, norms)
    run.write_plots(global_step, getattr(spec, "labels", ()))


def plot_finished(folder: Path) -> list[str]:
    """Draw the plots of a finished run from its folder and its data; return their names.

    Raises UserError unless the run is finished and holds no links, and DataError if its data has changed or is gone.
    """
    require_plain(folder)
    finished = FinishedRun(folder)
    data, task, summary = finished.load_data(), finished.task, finished.summary
    axis = "samples" if task.epoch_samples(data) else "step"
    run = RunFolder(folder, {**summary}, axis)
    lines = read_whole(run.metrics_path).splitlines() if run.metrics_path.exists() else []
    run.read_back(len(lines))
    run.write_report(task.report(data))
    for report in (options_of(task.net).report, getattr(data, "report", None)):
        if report:
            run.write_report(report())
    best = summary.get("best") or {}
    last = parse_row(lines[-1]) if lines else {}
    metric = str(best.get("metric", "")).removeprefix("val/") or None
    plot(run, task, data, metric, best.get("epoch"), int(last.get(axis) or 0))
    run.close()
    names = sorted(path.name for path in (folder / "plots").glob("*"))
    if not names:
        raise UserError(
            f"{folder}: there is nothing to draw\n  expected a run with more than one epoch, or a test split"
        )
    return names
