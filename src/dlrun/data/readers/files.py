"""Find the files of a published data set, and look up their checksums."""

from pathlib import Path

from dlrun.errors import DataError


def first_file(folders: list[Path], name: str) -> Path | None:
    """Find `name` in the folders, preferring the file without .gz, which is read ten times as fast. None if missing."""
    paths = [folder / file for folder in folders for file in (name.removesuffix(".gz"), name)]
    return next((path for path in paths if path.is_file()), None)


def checksum_of(checksums: dict[str, str], name: str) -> str:
    """Return the checksum of a file. Raises DataError if the config has none."""
    if name not in checksums:
        raise DataError(f"data.source.checksums has no {name!r}; it has {', '.join(checksums) or 'nothing'}")
    return checksums[name]
