"""Where the labels of a folder of images come from: its class folders, the files' names, or a file that lists them."""

import os
import re
from functools import cached_property
from pathlib import Path

from dlrun.data.images.label_file import ListFormat, by_file, write_csv
from dlrun.data.images.lists import Classes, Listing, by_folders
from dlrun.errors import DataError, UserError, counted, some

DEFAULT = "images.csv"  # the book's list, which is used if it is there


class Labelling:
    """Lists the images of a root with their labels, as data.layout, data.label_file and data.label_pattern say.

    label_pattern: a regular expression that is searched for in each file's name; its group `label`, or its only group,
    is the label. form: of the label file. Raises UserError for keys that exclude each other.
    """

    def __init__(
        self, layout: str, label_file: str | None, label_pattern: str | None, form: ListFormat, writes: bool
    ) -> None:
        self.layout, self.label_file, self.label_pattern, self.form, self.writes = (
            layout, label_file, label_pattern, form, writes
        )  # fmt: skip
        if label_file and layout in ("folders", "flat") and not writes:
            raise UserError(
                f"data.label_file={label_file} data.layout={layout}: that layout reads no such file\n"
                "  expected data.layout=csv, or data.label_file=null"
            )
        if writes and label_file and not label_file.lower().endswith((".csv", ".tsv")):
            raise UserError(f"data.write_csv=true data.label_file={label_file}: expected a name that ends in .csv")
        if label_pattern and (layout != "auto" or label_file):
            raise UserError(
                f"data.label_pattern={label_pattern} with data.layout={layout} data.label_file={label_file}: expected "
                "one source of labels\n  set data.layout=auto data.label_file=null, or data.label_pattern=null"
            )
        self.group = self.regex and _group(self.regex)

    @cached_property
    def regex(self) -> re.Pattern[str] | None:
        try:
            return re.compile(self.label_pattern) if self.label_pattern else None
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(
                f"data.label_pattern={self.label_pattern}: this is no regular expression: {error}\n"
                r"  expected one such as '(?P<label>[a-z]+)_\d+'"
            ) from None

    def file(self, root: Path) -> Path:
        """The file that lists the images, whether it is there or not."""
        return root / Path(os.path.expanduser(self.label_file or DEFAULT))

    def listing(self, root: Path, classes: Classes) -> Listing:
        """List the images under `root` with their labels. Raises DataError or UserError."""
        file = self.file(root)
        if (self.label_file or self.layout == "csv") and not file.is_file() and not self.writes:
            raise DataError(
                f"data.label_file={self.label_file or DEFAULT}: there is no file {file}\n"
                "  expected rows of path and label; data.write_csv=true writes it from the class folders"
            )
        if file.is_file() and self.layout in ("auto", "csv") and not self.regex:
            return by_file(root, file, classes, self.form)
        listing = by_folders(root, classes, self.layout, self.labels if self.regex else None)
        if self.writes and not listing.classes:
            raise DataError(f"data.write_csv=true: {root} has no class folders to write labels from")
        return listing

    def write(self, root: Path, listing: Listing) -> None:
        """Write the file that lists the images, if that is asked for and it is not there."""
        if self.writes and not (file := self.file(root)).is_file():
            write_csv(file, listing)

    def labels(self, names: list[str]) -> list[str]:
        """The labels in the files' names. Raises DataError if a name has none."""
        found = [self.regex.search(name.rpartition("/")[2]) if self.regex else None for name in names]
        labels = [match.group(self.group or 0) if match else None for match in found]
        without = sorted(name for name, label in zip(names, labels, strict=True) if not label)
        if without:
            raise DataError(
                f"data.label_pattern={self.label_pattern} finds no label in {counted(len(without), 'name')} of "
                f"{len(names):,}: {some(without)}\n  expected a match in the name of every image, without its folders"
            )
        return [label or "" for label in labels]


def _group(regex: re.Pattern[str]) -> str | int:
    """The group of a pattern that is the label. Raises UserError if there is none, or no single one."""
    if "label" in regex.groupindex:
        return "label"
    if regex.groups != 1:
        raise UserError(
            f"data.label_pattern={regex.pattern}: it has {counted(regex.groups, 'group')}: which is the label?\n"
            r"  expected a group of that name, such as '(?P<label>[a-z]+)_\d+', or a single group"
        )
    return 1
