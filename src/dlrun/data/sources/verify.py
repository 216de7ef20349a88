"""Checksums of files."""

from pathlib import Path

from dlrun.errors import DataError
from dlrun.paths import irregular


def verify(path: Path, checksum: str) -> None:
    if why := irregular(path):
        raise DataError(f"{path} is {why}\n  expected the published file: delete it, so that it is fetched again")
    found = file_hash(path, checksum)
    if not found.startswith(checksum.lower()):
        raise DataError(
            f"{path} is damaged or not the published file\n"
            f"  checksum   {found}\n  expected   {checksum}\n  delete it, so that it is fetched again"
        )


def file_hash(path: Path, checksum: str) -> str:
    import pooch

    kind, _, digits = checksum.partition(":")
    if kind.lower() not in ("md5", "sha256") or len(digits) < 8:
        raise DataError(f"checksum {checksum!r} for {path.name} is not of the form md5:... or sha256:...")
    kind = kind.lower()
    return f"{kind}:{pooch.file_hash(str(path), alg=kind)}"
