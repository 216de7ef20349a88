"""Permutation importance of a table's columns: how much worse a run gets when a column's values are shuffled.

The values of one column are exchanged among the rows of the test split, with all numbers and codes that they became, so
that the column carries no information but keeps its distribution (Breiman 2001, section 10).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from dlrun.config.saved import own_config, require_finished
from dlrun.config.values import mismatch
from dlrun.errors import UserError
from dlrun.output.as_json import as_json as json_line
from dlrun.output.console import number, table
from dlrun.output.folders import require_plain
from dlrun.output.written import write_whole
from dlrun.runs.columns import IMPORTANCE
from dlrun.spec import Columns, Table
from dlrun.types import Few

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from dlrun.data.base import SampleData
    from dlrun.tasks.base import Task

Scores = dict[str, list[float]]


class Rows:
    """The rows of a split, as a task evaluates them."""

    def __init__(self, x: "Tensor", y: "Tensor", batch_size: int) -> None:
        self.x, self.y, self.batch_size = x, y, batch_size

    def size(self, split: str) -> int:
        return len(self.x)

    def batches(self, split: str) -> "Iterator[tuple[Tensor, Tensor]]":
        return zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True)


def importance(folder: Path, repeats: int, as_json: bool) -> Iterator[str]:
    """Yield lines to print; write importance.json and plots/importance.png.

    Raises UserError unless the run learned from rows of a table.
    """
    if expected := mismatch(repeats, Few):
        raise UserError(f"--repeats {repeats}: expected {expected}")
    require_finished(folder)
    own_config(folder, evaluates=True)  # report its errors before torch is imported
    require_plain(folder)
    from dlrun.output.failures import within_memory, writing_to
    from dlrun.train.finished import FinishedRun

    with within_memory():
        run = FinishedRun(folder)
        spec = run.data.spec
        if not isinstance(spec, Table | Columns) or not spec.outputs or run.task.goal is None:
            raise UserError(f"{folder}: the run learned from {spec}\n  expected a run on rows of a table with targets")
        run.load_data()
        scored = scores(run.task, run.sample_data, columns_of(run.sample_data, spec), repeats)
    goal = run.task.goal
    sign = -1 if run.task.scores[goal] == "max" else 1
    worse = {name: [sign * (value - scored[""][0]) for value in values] for name, values in scored.items() if name}
    ranked = sorted(worse, key=lambda name: -np.mean(worse[name]))
    content = {
        "metric": f"test/{goal}",
        "value": scored[""][0],
        "repeats": repeats,
        "worse_by": {name: {"mean": float(np.mean(worse[name])), "std": float(np.std(worse[name]))} for name in ranked},
    }
    with writing_to(folder):
        write_whole(folder / IMPORTANCE, json_line(content, indent=2) + "\n")
        _draw(folder / "plots", goal, {name: worse[name] for name in ranked[:30]})
    if as_json:
        yield json_line({"run": str(folder), **content})
        return
    unit = f" {spec.unit}" if getattr(spec, "unit", "") and not spec.classes else ""
    yield f"{folder}: test {goal} {number(scored[''][0])}{unit}; how much worse it gets when a column is shuffled"
    rows = [[name, number(float(np.mean(worse[name]))), number(float(np.std(worse[name])))] for name in ranked]
    yield table([["column", goal, "+/-"], *rows])
    yield f"written: {folder / IMPORTANCE}, {folder / 'plots' / 'importance.png'}"


def columns_of(data: "SampleData", spec: Table | Columns) -> dict[str, list[int]]:
    """The positions in an encoded row that belong to each column of the table."""
    if not isinstance(spec, Columns):
        return {name: [i] for i, name in enumerate(spec.names or [f"x{i + 1}" for i in range(spec.features)])}
    encoding = data.fitted()
    positions: dict[str, list[int]] = {}
    for i, entry in enumerate([*encoding["numbers"], *encoding["categories"]]):
        positions.setdefault(entry["column"], []).append(i)
    return {name: positions[name] for name in encoding["columns"]}


def scores(task: "Task", data: "SampleData", columns: dict[str, list[int]], repeats: int) -> Scores:
    """The goal's metric on the test split: unshuffled (under ""), and with each column shuffled `repeats` times."""
    import torch

    from dlrun.seeds import generator

    x, y = (torch.cat(column) for column in zip(*data.batches("test"), strict=True))
    goal = str(task.goal)

    def score(rows: "Tensor") -> float:
        return task.evaluate(Rows(rows, y, data.eval_batch_size), "test")[goal]

    orders = [torch.randperm(len(x), generator=generator("cpu", 0, i)).to(x.device) for i in range(repeats)]
    values = {"": [score(x)]}
    for name, positions in columns.items():
        values[name] = []
        for order in orders:
            shuffled = x.clone()
            shuffled[:, positions] = x[order][:, positions]
            values[name].append(score(shuffled))
    return values


def _draw(folder: Path, goal: str, worse: Scores) -> None:
    from PIL import Image

    from dlrun.output.figures import render

    folder.mkdir(exist_ok=True)
    Image.fromarray(render(partial(_bars, goal, worse))).save(folder / "importance.png")


def _bars(goal: str, worse: Scores) -> "Figure":
    from dlrun.output.figures import GREY, TRAIN, drawable, new_figure

    names = list(worse)[::-1]
    figure, axes = new_figure(6.4, max(2.4, 0.26 * len(names) + 1.2))
    labels = drawable(names, [f"column {i + 1}" for i in range(len(names))])
    means, deviations = ([f(worse[name]) for name in names] for f in (np.mean, np.std))
    axes.barh(labels, means, xerr=deviations, color=TRAIN, ecolor=GREY)
    axes.set(xlabel=f"test {goal} gets worse by", title="permutation importance of the columns")
    axes.grid(axis="x")
    return figure
