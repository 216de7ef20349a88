"""Finding, fetching and verifying the files of data sets: resumable, locked, checked, unpacked safely.

A file appears under its own name only when it is whole and its checksum is right; until then it is NAME.part.
"""

import os
from pathlib import Path

from dlrun.data.sources.lock import lock, unwritable
from dlrun.data.sources.verify import file_hash, verify
from dlrun.errors import DataError
from dlrun.output.folders import sync_folder

TIMEOUT = 20  # seconds to wait for a connection, and between two packets
CHUNK = 1 << 18  # bytes
INSTEAD = "data=digits, data=moons, data=linear"


class _MirrorError(Exception):
    """Why this mirror gave nothing; the next one is tried."""


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
            raise unwritable(path.parent, error) from None
    raise _missing(wanted, reasons, instead)


def _mirror(url: str, part: Path, checksum: str) -> None:
    resumed = _copy(url, part)
    if resumed and not file_hash(part, checksum).startswith(checksum.lower()):
        part.unlink()  # what was there from before was no good; once more, from the start
        _copy(url, part)
    found = file_hash(part, checksum)
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
