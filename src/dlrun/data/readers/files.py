"""The files of a published data set: where they lie and what their checksums are."""

from pathlib import Path

from dlrun.errors import DataError


def first_file(places: list[Path], name: str) -> Path | None:
    """`name` without .gz where it lies unpacked (read ten times as fast), else as it is."""
    paths = [place / file for place in places for file in (name.removesuffix(".gz"), name)]
    return next((path for path in paths if path.is_file()), None)


def checksum_of(checksums: dict[str, str], name: str) -> str:
    if name not in checksums:
        raise DataError(f"data.source.checksums has no {name!r}; it has {', '.join(checksums) or 'nothing'}")
    return checksums[name]
