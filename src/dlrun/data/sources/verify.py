"""Verify files by their checksums."""

from pathlib import Path

from dlrun.errors import DataError
from dlrun.paths import irregular


def verify(path: Path, checksum: str) -> None:
    """Raise DataError unless the file has the checksum, "md5:..." or "sha256:..." with 8 digits or more."""
    if why := irregular(path):
        raise DataError(f"{path} is {why}\n  expected the published file: delete it, so that it is fetched again")
    actual = file_hash(path, checksum)
    if not actual.startswith(checksum.lower()):
        raise DataError(
            f"{path} is damaged or not the published file\n"
            f"  checksum   {actual}\n  expected   {checksum}\n  delete it, so that it is fetched again"
        )


def file_hash(path: Path, checksum: str) -> str:
    """Return the file's hash in the form of `checksum`: "md5:..." or "sha256:..."."""
    import pooch

    kind, _, digits = checksum.partition(":")
    if kind.lower() not in ("md5", "sha256") or len(digits) < 8:
        raise DataError(f"checksum {checksum!r} for {path.name} is not of the form md5:... or sha256:...")
    kind = kind.lower()
    return f"{kind}:{pooch.file_hash(str(path), alg=kind)}"
