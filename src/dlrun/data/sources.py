"""Finding, fetching and verifying the files of data sets: resumable, locked, checked, unpacked safely.

A file appears under its own name only when it is whole and its checksum is right; until then it is NAME.part.
"""

import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from dlrun.errors import DataError
from dlrun.output.folders import sync_folder

TIMEOUT = 20  # seconds to wait for a connection, and between two packets
CHUNK = 1 << 18  # bytes
INSTEAD = "data=digits, data=moons, data=linear"


class _MirrorError(Exception):
    """Why this mirror gave nothing; the next one is tried."""


def find(path: str, data_dir: Path, key: str, expected: str) -> Path:
    """What lies there: at an absolute path, or under the data folder, or under the folder one is in.

    key, expected: of the config, and what it names, for the error's text.
    """
    wanted = os.path.expanduser(path)
    places = list(dict.fromkeys([data_dir / wanted, Path.cwd() / wanted]))
    found = next((place for place in places if os.path.exists(place)), None)
    if found is None:
        raise DataError(f"{key}={path}: there is no {' and no '.join(map(str, places))}\n  expected {expected}")
    return found


def fetch(
    urls: list[str],
    path: Path,
    checksum: str,
    *,
    download: bool = True,
    wanted: list[Path] = (),
    instead: str = INSTEAD,
) -> Path:
    """Give `path`, downloaded from the first of `urls` that serves it whole, if it is not there.

    checksum: "md5:..." or "sha256:...", or the first 8 digits or more of it. For the error's text: wanted, all files
    that a hand download must bring; instead, what works without.
    """
    if path.exists():
        verify(path, checksum)
        return path
    wanted = list(wanted) or [path]
    if not download:
        raise _missing(wanted, dict.fromkeys(urls, "not tried (download=false)"), instead)
    with lock(path):
        if not path.exists():  # else another process fetched it while this one waited
            _first_good(urls, path, checksum, wanted, instead)
    return path


def verify(path: Path, checksum: str) -> None:
    found = _hash(path, checksum)
    if not found.startswith(checksum.lower()):
        raise DataError(
            f"{path} is damaged or not the published file\n"
            f"  checksum   {found}\n  expected   {checksum}\n  delete it, so that it is fetched again"
        )


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold `path` against other processes; makes its folder, and says so plainly where that cannot be written."""
    import tempfile

    from filelock import FileLock

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise _unwritable(path.parent, error) from None
    beside = path.with_name(path.name + ".lock")
    with FileLock(beside):
        yield
        # Only after success, when whoever gets a stale or a new lock finds the work done: removing is no race then.
        with suppress(OSError):
            beside.unlink()


def _first_good(urls: list[str], path: Path, checksum: str, wanted: list[Path], instead: str) -> None:
    from requests import RequestException
    from urllib3.exceptions import HTTPError

    part = path.with_name(path.name + ".part")
    reasons = {}
    for url in urls:
        try:
            _mirror(url, part, checksum)
            os.replace(part, path)
            sync_folder(path.parent)
            return
        except (_MirrorError, RequestException, HTTPError) as error:
            reasons[url] = _reason(error)
        except OSError as error:  # the disk's, not the mirror's: another mirror would not help
            raise _unwritable(path.parent, error) from None
    raise _missing(wanted, reasons, instead)


def _mirror(url: str, part: Path, checksum: str) -> None:
    resumed = _copy(url, part)
    if resumed and not _hash(part, checksum).startswith(checksum.lower()):
        part.unlink()  # what was there from before was no good; once more, from the start
        _copy(url, part)
    found = _hash(part, checksum)
    if not found.startswith(checksum.lower()):
        part.unlink()
        raise _MirrorError(f"sent something else: checksum {found}, expected {checksum}")


def _copy(url: str, part: Path) -> bool:
    """Bring `part` to its end; returns whether it went on from bytes that were there before."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    # identity: a .gz must arrive as the bytes that it is, since the checksum is of those
    headers = {"User-Agent": "dl-run", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if reply.status_code == 416 and have:  # nothing beyond what is here: whole already, or not this file
            return True
        if reply.status_code not in (200, 206):
            raise _MirrorError(f"HTTP {reply.status_code} {reply.reason}")
        if "text/html" in reply.headers.get("Content-Type", ""):
            raise _MirrorError("answered with a web page (text/html), not with the file")
        resumed = reply.status_code == 206
        _save(reply, part, have if resumed else 0)
    return resumed


def _save(reply: object, part: Path, have: int) -> None:
    from tqdm import tqdm

    length = reply.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    name = part.name.removesuffix(".part")
    with (
        open(part, "r+b" if have else "wb") as out,
        tqdm(desc=name, total=total, initial=have, unit="B", unit_scale=True, disable=None) as bar,  # a terminal only
    ):
        out.seek(have)
        for data in reply.raw.stream(CHUNK, decode_content=False):
            out.write(data)
            bar.update(len(data))
        out.flush()
        os.fsync(out.fileno())
        got = out.tell()
    if total is not None and got < total:
        raise _MirrorError(f"the connection ended after {got:,} of {total:,} bytes")


def unpack(archive: Path, target: Path) -> Path:
    """Unpack a .tar.* or .zip as the folder `target`, by one rename; the archive's one top folder becomes `target`."""
    with lock(target):
        if target.exists():
            return target
        scratch = target.with_name(f".{target.name}.part")
        shutil.rmtree(scratch, ignore_errors=True)  # what a killed process left
        try:
            _unpack_into(archive, scratch)
            inside = list(scratch.iterdir())
            os.rename(inside[0] if len(inside) == 1 and inside[0].is_dir() else scratch, target)
            sync_folder(target.parent)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return target


def _unpack_into(archive: Path, folder: Path) -> None:
    folder.mkdir()
    try:
        for name, is_folder, stream in _members(archive):
            path = folder / _inside(archive, name)
            (path if is_folder else path.parent).mkdir(parents=True, exist_ok=True)
            if not is_folder:
                with stream, open(path, "xb") as out:
                    shutil.copyfileobj(stream, out, CHUNK)
                    out.flush()
                    os.fsync(out.fileno())
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise DataError(f"{archive} is damaged: {error}\n  delete it, so that it is fetched again") from None
    except OSError as error:  # gzip.BadGzipFile is one, and so is a full disk
        raise DataError(f"{archive} could not be unpacked into {folder}: {error}") from None


def _members(archive: Path) -> Iterator[tuple[str, bool, IO[bytes] | None]]:
    """(name, is it a folder, its bytes) of each member; nothing but files and folders is let through."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as pack:
            for info in pack.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise _unsafe(archive, info.filename, "a link or a device")
                yield info.filename, info.is_dir(), None if info.is_dir() else pack.open(info)
        return
    with tarfile.open(archive, "r:*") as pack:
        for member in pack:
            if not (member.isreg() or member.isdir()):
                raise _unsafe(archive, member.name, "a link or a device")
            yield member.name, member.isdir(), pack.extractfile(member)


def _inside(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise _unsafe(archive, name, "a path outside the target folder")
    return path


def _hash(path: Path, checksum: str) -> str:
    import pooch

    kind, _, digits = checksum.partition(":")
    if kind.lower() not in ("md5", "sha256") or len(digits) < 8:
        raise DataError(f"checksum {checksum!r} for {path.name} is not of the form md5:... or sha256:...")
    kind = kind.lower()
    return f"{kind}:{pooch.file_hash(str(path), alg=kind)}"


def _reason(error: Exception) -> str:
    """The innermost cause, in one line: requests wraps three exceptions around 'Connection refused'."""
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    cause = getattr(cause, "reason", None) or cause
    return str(cause).rsplit("): ", 1)[-1].rsplit(">: ", 1)[-1] or type(error).__name__


def _missing(wanted: list[Path], reasons: dict[str, str], instead: str) -> DataError:
    folders = {path.parent: [other.name for other in wanted if other.parent == path.parent] for path in wanted}
    lines = [f"{wanted[0].name} is not there and was not downloaded"]
    lines += [f"  {url}\n    {reason}" for url, reason in reasons.items()]
    lines += [f"  by hand: put {', '.join(names)} into {folder}" for folder, names in folders.items()]
    lines += ["  where data is looked for: DL_RUN_DATA_DIR in the environment, or data_dir=FOLDER on the command line"]
    lines += [f"  without a download: {instead}"]
    return DataError("\n".join(lines))


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write to the data folder {folder}: {error.strerror or error}\n"
        "  expected a folder that this user may write to, with room on its disk\n"
        "  choose another with DL_RUN_DATA_DIR in the environment, or data_dir=FOLDER on the command line"
    )


def _unsafe(archive: Path, name: str, what: str) -> DataError:
    return DataError(f"{archive} is not safe to unpack: {name!r} is {what}\n  nothing of it was kept; delete it")
