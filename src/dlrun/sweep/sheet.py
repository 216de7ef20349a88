"""The images of a sweep's jobs on one sheet: a row for each setting, and once what all have, such as originals."""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

from dlrun.output.panels import ROWS, image_rows
from dlrun.output.written import whole
from dlrun.sweep.goals import settings
from dlrun.sweep.state import State, own_overrides, shared

if TYPE_CHECKING:
    import numpy as np

FILE = "rows.png"
MOST = 24  # settings


def write_sheet(state: State) -> None:
    """Write the sheet if two settings or more have finished jobs with rows of images: the first seed of each."""
    finished = [job for job in state.jobs if job.status == "finished"]
    firsts = [setting.first for setting in settings(finished)][:MOST]
    if not any((state.run_folder(job) / ROWS).exists() for job in firsts):
        return
    common = shared(firsts)
    found = {own_overrides(job, common): read_rows(state.run_folder(job) / ROWS) for job in firsts}
    if sum(map(bool, found.values())) < 2:
        return
    from PIL.Image import fromarray

    from dlrun.output.figures import render

    rows = joined({name: rows for name, rows in found.items() if rows})
    with whole(state.folder / FILE) as temporary:
        fromarray(render(lambda: image_rows(rows))).save(temporary, "PNG", dpi=(110, 110))


def read_rows(path: Path) -> "dict[str, np.ndarray]":
    """The rows of a run by label; none if it has none, or the file is not what a run writes."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as file:
            rows = {label: file[label] for label in file.files}
    except (OSError, ValueError, BadZipFile, zlib.error, EOFError, KeyError):
        return {}
    is_strip = [
        row.dtype == np.uint8 and row.ndim == 3 and row.shape[2] in (1, 3) and row.size for row in rows.values()
    ]
    return rows if all(is_strip) else {}


def joined(found: "Mapping[str, Mapping[str, np.ndarray]]") -> "dict[str, np.ndarray]":
    """The rows of all jobs by label: those that are the same in all of them once, the others below each other.

    found: the rows by job and label, in the order in which they are drawn.
    """
    import numpy as np

    first, *others = found.values()
    same = {
        label
        for label, row in first.items()
        if all(label in rows and np.array_equal(row, rows[label]) for rows in others)
    }
    own = list(dict.fromkeys(label for rows in found.values() for label in rows if label not in same))
    labels = list(first)
    above = next((k for k, label in enumerate(labels) if label not in same), len(labels))
    rows = {label: first[label] for label in labels[:above]}
    for label in own:
        for job, its in found.items():
            if label in its:
                rows[job if len(own) == 1 and job else f"{label}  {job}".rstrip()] = its[label]
    return rows | {label: first[label] for label in labels[above:] if label in same}
