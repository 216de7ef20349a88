"""Read and write lists of images with their labels: CSV, TSV and JSON files with a column of paths and one of labels.

Source: the book, section 15.1 (`images.csv`: rows of path and label, no header; split by the order of its rows).
"""

import os
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from dlrun.data.csv_rows import LABELS, PATHS, Column, columns_of, place, read_rows
from dlrun.data.images.lists import Classes, Listing, labelled
from dlrun.data.json_rows import is_json
from dlrun.data.walk import IMAGE_SUFFIXES
from dlrun.errors import DataError, counted, some


class ListFormat(NamedTuple):
    """The form of a list of images: its columns (None: by known names), the folder of the paths, their suffix."""

    path_column: str | None = None
    label_column: str | None = None
    folder: str = ""
    suffix: str = ""


def by_file(root: Path, file: Path, classes: Classes, form: ListFormat) -> Listing:
    """List images from a CSV, TSV or JSON with a column of paths and one of labels.

    Paths are relative to `root`, or begin with its name (as in the book), or are absolute.
    """
    rows = read_rows(file)
    wanted = [
        Column("data.path_column", form.path_column, PATHS),
        Column("data.label_column", form.label_column, LABELS),
    ]
    pairs = columns_of(file, rows, wanted, bool(rows) and _has_header(file, root, rows[0][1], form)) if rows else []
    if not pairs:
        raise DataError(f"{file} names no images\n  expected rows of path and label, such as cats/1.jpg,cats")
    for line, (_, label) in pairs:
        if not label.strip():
            raise DataError(f"{file}, {place(file, line)}: it has no label\n  expected a label for every image")
    resolved = [resolve(root, path, form) for _, (path, _) in pairs]
    missing = [path for (_, (path, _)), name in zip(pairs, resolved, strict=True) if name is None]
    if missing:
        where = root / form.folder if form.folder else root
        raise DataError(
            f"{file} names {counted(len(missing), 'image')} that cannot be found: {some(missing)}\n"
            f"  expected paths relative to {where}, or absolute paths; data.folder and data.suffix complete them"
        )
    names = [name for name in resolved if name is not None]
    first: dict[str, int] = {}
    for (line, (path, _)), name in zip(pairs, names, strict=True):
        if name in first:
            raise DataError(
                f"{file} names {path} twice, in {place(file, first[name])} and {place(file, line)}\n"
                "  expected each image once: it could be in two splits, or of two classes"
            )
        first[name] = line
    return labelled(root, names, [label.strip() for _, (_, label) in pairs], classes, False)


def listed_paths(file: Path, form: ListFormat) -> list[tuple[int, str]]:
    """Return (line, path) of the images in a list, whether it has labels or not."""
    rows = read_rows(file)
    if not rows or not _has_header(file, file.parent, rows[0][1], form):
        return [(line, cells[0]) for line, cells in rows]
    wanted = [Column("data.path_column", form.path_column, PATHS)]
    return [(line, path) for line, (path,) in columns_of(file, rows, wanted, True)]


def _has_header(file: Path, root: Path, cells: list[str], form: ListFormat) -> bool:
    """Whether the first row of a list names the columns: in JSON; if they are chosen; or if it names no image."""
    if is_json(file) or form.path_column is not None or form.label_column is not None:
        return True
    return not cells[0].lower().endswith(IMAGE_SUFFIXES) and resolve(root, cells[0], form) is None


def resolve(root: Path, path: str, form: ListFormat) -> str | None:
    """Return a list's path as a path under `root`, or an absolute one; None if there is no such file."""
    for name in (path, path.strip()):
        whole = name if name.lower().endswith(form.suffix.lower()) else name + form.suffix
        if resolved := _resolve(root, f"{form.folder}/{whole}" if form.folder else whole):
            return resolved
    return None


def _resolve(root: Path, name: str) -> str | None:
    """Return a list's path as a path under `root`, or an absolute one; None if there is no such file."""
    for path in (name, name.replace("\\", "/")):
        parts = PurePosixPath(path).parts
        for candidate in (path, str(PurePosixPath(*parts[1:])) if parts[:1] == (root.name,) else path):
            if os.path.isfile(root / candidate):  # a name may be too long for Path.is_file
                return os.path.normpath(candidate).replace(os.sep, "/")
    return None


def write_csv(file: Path, listing: Listing) -> None:
    """Write the book's images.csv: rows of path and class number, in the order of the split."""
    rows = "".join(
        f"{_quoted(name)},{label}\n" for name, label in zip(listing.names, listing.labels.tolist(), strict=True)
    )
    part = file.with_name(f"{file.name}.{os.getpid()}.part")  # several processes may write the same file at once
    try:
        part.write_text(rows, encoding="utf-8")
        os.replace(part, file)
    except (OSError, UnicodeEncodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "an image's name is not UTF-8"
        raise DataError(
            f"cannot write data.label_file={file}: {why}\n  choose another path, or set data.write_csv=false"
        ) from None
    finally:
        with suppress(OSError):
            part.unlink()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"' if set(name) & set(',"\n\r') else name
