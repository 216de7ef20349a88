"""Draw a data set before a run: a table's columns against each other, or images as the network is given them."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.config.build import build
from dlrun.data.base import Data, SampleData, has_samples
from dlrun.errors import UserError, counted, nearest
from dlrun.runs.records import class_names
from dlrun.spec import Columns, Image, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 5  # most that are drawn unless the user names them
IMAGES, ACROSS = 40, 8  # of a sheet, and of a row


def draw(name: str, config: dict, wanted: list[str], out: Path) -> Iterator[str]:
    """Write a PNG about a data set and yield its path. wanted: columns of a table; []: the target and the first ones.

    Raises UserError for data that is neither a table nor images.
    """
    import torch

    from dlrun.output.failures import within_memory
    from dlrun.runs.records import write_figures

    with within_memory():
        data: Data = build(config)
        spec = data.spec
        if not isinstance(spec, Table | Columns | Image) or not has_samples(data):
            raise UserError(f"data={name} is {spec}\n  expected a table or images to draw")
        if wanted and isinstance(spec, Image):
            raise UserError(f"--columns {','.join(wanted)}: the data is {spec}\n  expected a table")
        data.load(torch.device("cpu"))
        figure = image_sheet(data, spec) if isinstance(spec, Image) else column_pairs(data, spec, wanted)
        yield from write_figures({out.stem: figure}, out.parent)


def image_sheet(data: SampleData, spec: Image) -> "Callable[[], Figure]":
    """The first training batch, with augmentation, its pixels back in [0, 1]."""
    from dlrun.output.data_plots import samples
    from dlrun.tasks.images import rescaled

    x, y = next(rescaled(data.batches("train"), data, 0.0, 1.0))
    labels = class_names(spec) if spec.classes else []
    titles = [labels[int(k)] for k in y[:IMAGES]] if labels else [""] * len(x)
    return partial(samples, x[:IMAGES].numpy(), titles[: len(x)], ACROSS)


def column_pairs(data: SampleData, spec: Table | Columns, wanted: list[str]) -> "Callable[[], Figure]":
    """Columns of numbers of the train split, in their own units, the targets first."""
    import numpy as np
    import torch

    from dlrun.data.table.table_file import TableFile
    from dlrun.output.data_plots import pairs

    batches = list(data.batches("train"))
    x, y = (torch.cat([batch[k] for batch in batches]) for k in (0, 1))
    if isinstance(spec, Columns) and isinstance(data, TableFile):
        rows = data.decode(x)
        columns = {name: np.array([float(row[name]) for row in rows]) for name in spec.names[: spec.numbers]}
    else:
        names = spec.names or [f"x{k + 1}" for k in range(spec.features)]
        scaling = getattr(data, "scaling", None)
        values = x * torch.tensor(scaling["std"]) + torch.tensor(scaling["mean"]) if scaling else x
        columns = {name: values[:, k].numpy() for k, name in enumerate(names)}
    if not spec.classes:
        targets = getattr(spec, "target_names", ()) or [f"y{k + 1}" for k in range(spec.targets)]
        columns = {name: y[:, k].numpy() for k, name in enumerate(targets)} | columns
    for name in wanted:
        if name not in columns:
            known = ", ".join(columns)
            raise UserError(
                f"--columns: there is no column {name!r} of numbers{nearest(name, columns)}\n  expected: {known}"
            )
    chosen = {name: columns[name] for name in wanted or list(columns)[:COLUMNS]}
    if not chosen:
        raise UserError(f"the table has {counted(0, 'column')} of numbers\n  expected some to draw")
    labels = tuple(class_names(spec)) if spec.classes else ()
    return partial(pairs, chosen, y.numpy() if labels else None, labels)
