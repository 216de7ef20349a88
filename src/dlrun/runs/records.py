"""Predictions as records, and records as lines of CSV, lines in a file, images as PNGs."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.errors import UserError, counted
from dlrun.output.written import whole
from dlrun.spec import Env, Function, Labelled

if TYPE_CHECKING:
    from torch import Tensor

    from dlrun.train.finished import FinishedRun


def write_images(
    names: list[str], predicted: "Tensor", folder: Path, taken: dict[str, int], more: dict
) -> Iterator[dict]:
    """Write images (B, C, H, W) in [0, 1] as PNGs, each whole or not at all, and yield their records."""
    from PIL.Image import fromarray

    pixels = (predicted.clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    _make(folder)
    for name, image in zip(names, pixels, strict=True):
        path = folder / f"{free(Path(name).stem, taken)}.png"
        with whole(path) as temporary:
            fromarray(image[..., 0] if image.shape[2] == 1 else image).save(temporary, "PNG")
        yield {"input": name, "image": str(path), **more}


def write_figures(figures: dict[str, Callable], folder: Path, stem: str = "") -> Iterator[str]:
    """Write <stem>_<name>.png for each figure, whole or not at all, and yield the paths."""
    from PIL.Image import fromarray

    from dlrun.output.figures import render

    _make(folder)
    for name, make in figures.items():
        path = folder / f"{stem}{'_' if stem else ''}{name}.png"
        with whole(path) as temporary:
            fromarray(render(make)).save(temporary, "PNG", dpi=(110, 110))
        yield str(path)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}\n  expected a writable folder") from None


def free(stem: str, taken: dict[str, int]) -> str:
    """Return a name that no other image has, since images of several folders may share a name.

    taken: how often each name was used; case-folded, because X.png and x.png are one file on some systems.
    """
    name, key = stem, stem.casefold()
    while name.casefold() in taken:
        taken[key] += 1
        name = f"{stem}_{taken[key]}"
    taken[name.casefold()] = 1
    return name


def flat(record: dict) -> dict:
    """Return a record without nesting: each probability has its own column."""
    row = {key: value for key, value in record.items() if not isinstance(value, dict | list)}
    for key, value in record.items():
        if isinstance(value, dict):
            row |= {f"p({name})": each for name, each in value.items()}
        elif isinstance(value, list):
            row |= {f"{key}_{i + 1}": each for i, each in enumerate(value)}
    return row


def beside(columns: list[str], keys: list[str]) -> tuple[list[str], list[str]]:
    """Return which columns of a table are kept, and names for a prediction's keys that differ from theirs.

    The last columns of a file that was written here are earlier predictions: they are not kept.
    """
    for columns_kept in (columns[: -len(keys)], columns):
        names: list[str] = []
        for key in keys:
            while key in columns_kept or key in names:
                key = f"predicted {key}"
            names.append(key)
        if names == columns[len(columns_kept) :]:
            break
    return columns_kept, names


def as_csv(records: Iterable[dict], separator: str = ",", has_head: bool = True) -> Iterator[str]:
    """Yield CSV lines, first the names of the columns. Raises UserError for records of other columns than the first."""
    head: list[str] = []
    columns: set[str] = set()
    for record in map(flat, records):
        if not head:
            head, columns = list(record), set(record)
            if has_head:
                yield _csv_line(head, separator)
        if record.keys() != columns:
            other = sorted(record.keys() ^ columns)[0]
            raise UserError(
                f"not all files have the same columns: only some would have {other!r} in the CSV\n"
                "  expected files of the same columns: predict from each with an --out of its own"
            )
        yield _csv_line([record[key] for key in head], separator)


def _csv_line(cells: list, separator: str) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="", delimiter=separator).writerow(cells)
    return text.getvalue()


def write_lines(lines: Iterable[str], path: Path, has_head: bool, encoding: str = "utf-8") -> str:
    """Write all lines to a file, whole or not at all. has_head: the first line is not a prediction."""
    count = 0 - has_head
    with whole(path) as temporary, open(temporary, "w", encoding=encoding, errors="backslashreplace") as file:
        for count, line in enumerate(lines, 1 - has_head):  # noqa: B007
            file.write(line + "\n")
    return f"{counted(count, 'prediction')} in {path}"


def outputs(run: "FinishedRun", predicted: "Tensor") -> Iterator[dict]:
    """Yield a record per sample: the likeliest class with all probabilities, real outputs, or a row of a table."""
    import numpy as np

    spec, values = run.data.spec, predicted.numpy()
    if values.dtype == np.float32:
        shown = [[float(str(value)) for value in row] for row in values]  # the shortest text of the float32
    else:
        shown = values.tolist()
    if "inputs" not in run.task.accepts:
        names = getattr(spec, "names", ()) or [f"x{i + 1}" for i in range(values.shape[1])]
        yield from (dict(zip(names, row, strict=True)) for row in shown)
    elif not isinstance(spec, Env | Function) and spec.classes:
        labels = class_names(spec)
        for row, best in zip(shown, run.task.decide(predicted).tolist(), strict=True):
            yield {
                "label": labels[best],
                "probability": row[best],
                "probabilities": dict(zip(labels, row, strict=True)),
            }
    else:
        unit = {"unit": text} if (text := getattr(spec, "unit", "")) else {}
        targets = getattr(spec, "target_names", ())
        if len(targets) > 1:
            yield from (dict(zip((f"output {name}" for name in targets), row, strict=True)) | unit for row in shown)
            return
        yield from ({"output": row[0] if len(row) == 1 else row} | unit for row in shown)


def class_names(spec: Labelled) -> list[str]:
    """Return the classes' names, or their numbers if they have no names."""
    return list(spec.labels) if len(set(spec.labels)) == spec.classes else list(map(str, range(spec.classes or 0)))
