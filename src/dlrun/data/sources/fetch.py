"""Download and verify the files of data sets. Downloads are locked and can be resumed.

A file gets its name only when it is complete and its checksum is right; until then it is NAME.part.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dlrun.data.sources.lock import lock, unwritable
from dlrun.data.sources.verify import file_hash, verify
from dlrun.errors import DataError
from dlrun.output.written import sync_folder

if TYPE_CHECKING:
    from requests import Response

TIMEOUT = 20  # seconds to wait for a connection and between two packets
CHUNK = 1 << 18  # bytes
INSTEAD = "data=digits, data=moons, data=linear"


class _MirrorError(Exception):
    """The reason why a mirror failed; the next mirror is tried."""


def fetch(
    urls: list[str],
    path: Path,
    checksum: str,
    *,
    download: bool = True,
    wanted: Sequence[Path] = (),
    instead: str = INSTEAD,
) -> Path:
    """Return `path`; if it does not exist, download it from the first of `urls` that serves it completely.

    checksum: "md5:..." or "sha256:..." with 8 digits or more. wanted, instead: for the error's text, all files to
    download by hand and options that need no download. Raises DataError if no URL works or the checksum differs.
    """
    if path.exists():
        verify(path, checksum)
        return path
    wanted = list(wanted) or [path]
    if not download:
        raise _missing(wanted, dict.fromkeys(urls, "not tried (download=false)"), instead)
    with lock(path):
        if not path.exists():  # otherwise another process downloaded it while this one waited
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
        except OSError as error:  # a disk error, with which another mirror would not help
            raise unwritable(path.parent, error) from None
    raise _missing(wanted, reasons, instead)


def _mirror(url: str, part: Path, checksum: str) -> None:
    resumed = _copy(url, part)
    if resumed and not file_hash(part, checksum).startswith(checksum.lower()):
        part.unlink()  # the bytes of an earlier download were wrong: start again
        _copy(url, part)
    actual = file_hash(part, checksum)
    if not actual.startswith(checksum.lower()):
        part.unlink()
        raise _MirrorError(f"sent another file: checksum {actual}, expected {checksum}")


def _copy(url: str, part: Path) -> bool:
    """Download the rest of `part`. Return whether it continued an earlier download."""
    import requests

    have = part.stat().st_size if part.exists() else 0
    # identity: a .gz must not be unpacked on the way, because the checksum is that of the packed file
    headers = {"User-Agent": "dl-run", "Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as reply:
        if reply.status_code == 416 and have:  # no more bytes: the file is complete, or it is another one
            return True
        if reply.status_code not in (200, 206):
            raise _MirrorError(f"HTTP {reply.status_code} {reply.reason}")
        if "text/html" in reply.headers.get("Content-Type", ""):
            raise _MirrorError("sent a web page (text/html) instead of the file")
        resumed = reply.status_code == 206
        _save(reply, part, have if resumed else 0)
    return resumed


def _save(reply: "Response", part: Path, have: int) -> None:
    """Write the reply to `part` from byte `have` on, with a progress bar."""
    from tqdm import tqdm

    length = reply.headers.get("Content-Length", "")
    total = have + int(length) if length.isdigit() else None
    name = part.name.removesuffix(".part")
    with (
        open(part, "r+b" if have else "wb") as out,
        tqdm(
            desc=name, total=total, initial=have, unit="B", unit_scale=True, disable=None
        ) as bar,  # on a terminal only
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
    """Return the innermost cause in one line: requests wraps three exceptions around 'Connection refused'."""
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    cause = getattr(cause, "reason", None) or cause
    return str(cause).rsplit("): ", 1)[-1].rsplit(">: ", 1)[-1] or type(error).__name__


def _missing(wanted: list[Path], reasons: dict[str, str], instead: str) -> DataError:
    folders = {path.parent: [other.name for other in wanted if other.parent == path.parent] for path in wanted}
    lines = [f"{wanted[0].name} does not exist and was not downloaded"]
    lines += [f"  {url}\n    {reason}" for url, reason in reasons.items()]
    lines += [f"  by hand: put {', '.join(names)} into {folder}" for folder, names in folders.items()]
    lines += ["  to set the data folder: DL_RUN_DATA_DIR in the environment, or data_dir=FOLDER on the command line"]
    lines += [f"  without a download: {instead}"]
    return DataError("\n".join(lines))
