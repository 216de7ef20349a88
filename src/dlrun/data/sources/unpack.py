"""Unpack archives safely: no links, no paths outside the target folder, one rename at the end."""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from dlrun.data.sources.fetch import CHUNK
from dlrun.data.sources.lock import lock
from dlrun.errors import DataError
from dlrun.output.written import sync_folder


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a .tar.* or .zip into the folder `target`. If the archive has a single top folder, it becomes `target`.

    Raises DataError if the archive is damaged or unsafe.
    """
    with lock(target):
        if target.exists():
            return target
        scratch = target.with_name(f".{target.name}.part")
        shutil.rmtree(scratch, ignore_errors=True)  # left by a killed process
        try:
            _unpack_into(archive, scratch)
            top = list(scratch.iterdir())
            os.rename(top[0] if len(top) == 1 and top[0].is_dir() else scratch, target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _unpack_into(archive: Path, folder: Path) -> None:
    folder.mkdir()
    try:
        for name, stream in _members(archive):
            path = folder / _inside(archive, name)
            (path if stream is None else path.parent).mkdir(parents=True, exist_ok=True)
            if stream is not None:
                with stream, open(path, "xb") as out:
                    shutil.copyfileobj(stream, out, CHUNK)
                    out.flush()
                    os.fsync(out.fileno())
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive} is damaged: {error}\n  delete it, so that it is fetched again") from None
    except OSError as error:  # such as gzip.BadGzipFile or a full disk
        raise DataError(f"{archive} could not be unpacked into {folder}: {error}") from None


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Yield (name, bytes; None for a folder) of each member. Raises DataError for anything but files and folders."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack:
            for info in pack.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _unsafe(archive, info.filename, "a link or a device")
                yield info.filename, None if info.is_dir() else pack.open(info)
        return
    with tarfile.open(archive, "r:*") as pack:
        for member in pack:
            if not (member.isreg() or member.isdir()):
                raise _unsafe(archive, member.name, "a link or a device")
            yield member.name, pack.extractfile(member)


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise _unsafe(archive, name, "a path outside the target folder")
    return path


def _unsafe(archive: Path, name: str, problem: str) -> DataError:
    return DataError(f"{archive} is not safe to unpack: {name!r} is {problem}\n  nothing was unpacked; delete it")
