"""Files of data sets: fetched whole or not at all, and never written outside the target."""

import errno
import hashlib
import http.server
import io
import os
import re
import stat
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from dlrun.data.readers import images
from dlrun.data.sources.fetch import fetch
from dlrun.data.sources.unpack import unpack
from dlrun.errors import DataError

BODY = bytes(np.random.RandomState(0).bytes(300_000))
SUM = "sha256:" + hashlib.sha256(BODY).hexdigest()


class Handler(http.server.BaseHTTPRequestHandler):
    """/good honours Range, /plain ignores it, /html and /liar answer otherwise, /cut ends early, the rest is 404."""

    def do_GET(self):
        kind, span = self.path.split("/")[1], self.headers.get("Range")
        self.server.seen.append((kind, span))
        files = {"good": BODY, "plain": BODY, "slow": BODY, "cut": BODY, "html": b"<html>", "liar": b"x" * 99}
        if kind not in files:
            return self.send_error(404)
        start = int(re.search(r"\d+", span)[0]) if span and kind == "good" else 0
        if start >= len(files[kind]):
            return self.send_error(416)
        if kind == "slow":
            time.sleep(0.3)
        body = files[kind][start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "text/html" if kind == "html" else "application/gzip")
        self.send_header("Content-Encoding", "gzip")  # some buckets declare this for a .gz: it must not be unpacked
        self.end_headers()
        self.wfile.write(body[: 100_000 if kind == "cut" else None])

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def get(server, tmp_path, monkeypatch):
    """get("404", "good") fetches the body from these mirrors, in this order; get.seen lists the requests."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server.seen = []

    def get(*kinds, checksum=SUM, **options):
        return fetch([f"{server.url}/{kind}/a.gz" for kind in kinds], tmp_path / "d" / "a.gz", checksum, **options)

    get.seen, get.folder, get.part = server.seen, tmp_path / "d", tmp_path / "d" / "a.gz.part"
    get.folder.mkdir()
    return get


@pytest.mark.parametrize("bad", ["404", "html", "liar", "cut"])
def test_a_bad_mirror_is_skipped(get, bad):
    assert get(bad, "good").read_bytes() == BODY
    assert [kind for kind, _ in get.seen] == [bad, "good"]
    assert [path.name for path in get.folder.iterdir()] == ["a.gz"]  # no .part, no .lock


def test_a_download_that_one_mirror_cut_short_is_completed_from_the_next(get):
    get("cut", "good")
    assert get.seen[1] == ("good", "bytes=100000-")


def test_a_second_call_downloads_nothing(get):
    for _ in range(2):
        get("good", checksum="md5:" + hashlib.md5(BODY).hexdigest())
    assert len(get.seen) == 1


@pytest.mark.parametrize(
    ("there", "kind", "requests"),
    [
        (BODY[:200_000], "good", ["bytes=200000-"]),
        (BODY[:200_000], "plain", ["bytes=200000-"]),  # the server sends the whole file again
        (BODY, "good", ["bytes=300000-"]),  # as after a kill just before the rename
        (b"y" * 5000, "good", ["bytes=5000-", None]),  # not the beginning of this file: start again
        (b"y" * 400_000, "good", ["bytes=400000-", None]),
    ],
)
def test_a_partial_download_is_resumed(get, there, kind, requests):
    get.part.write_bytes(there)
    assert get(kind).read_bytes() == BODY
    assert get.seen == [(kind, span) for span in requests]


def test_a_web_page_in_place_of_the_file_leaves_the_partial_download(get):
    get.part.write_bytes(BODY[:200_000])
    get("html", "good")
    assert get.seen[1] == ("good", "bytes=200000-")


def test_a_file_is_fetched_on_a_disk_that_cannot_sync_folders(get, monkeypatch):
    """As on some network disks: the download is there, and complete."""
    sync = os.fsync

    def files_only(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        sync(handle)

    monkeypatch.setattr(os, "fsync", files_only)
    assert get("good").read_bytes() == BODY


def test_two_at_once_download_once(get):
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: get("slow"), range(2)))
    assert paths[0].read_bytes() == BODY and len(get.seen) == 1


def test_the_error_names_address_file_and_reasons(get):
    with pytest.raises(DataError) as caught:
        get("404", "html", "liar", "cut", wanted=[get.folder / "a.gz", get.folder / "b.gz"])
    text = str(caught.value)
    for part in ("/404/a.gz", "HTTP 404", "/html/a.gz", "web page", "/liar/a.gz", "checksum sha256:", SUM, "/cut/a.gz"):
        assert part in text
    assert f"put a.gz, b.gz into {get.folder}" in text
    assert "DL_RUN_DATA_DIR" in text and "data_dir=" in text
    assert "data=digits, data=moons, data=linear" in text


def test_without_a_network_the_reason_is_short(tmp_path):
    with pytest.raises(DataError, match=r"does not exist(.|\n)*127.0.0.1:9/a.gz\n    .*Connection refused\n"):
        fetch(["http://127.0.0.1:9/a.gz"], tmp_path / "a.gz", SUM)


def test_download_false_opens_no_connection(get):
    with pytest.raises(DataError, match=r"download=false(.|\n)*data=digits"):
        get("good", download=False)
    assert get.seen == []


def test_a_damaged_local_file_is_named(get):
    (get.folder / "a.gz").write_bytes(b"old")
    with pytest.raises(DataError, match=r"a\.gz is damaged(.|\n)*expected +sha256(.|\n)*delete it"):
        get("good")


def test_an_unknown_kind_of_checksum_is_refused(get):
    with pytest.raises(DataError, match="'abc'.*md5"):
        get("good", checksum="abc")


def test_an_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write to the data folder .*file/x(.|\n)*DL_RUN_DATA_DIR"):
        fetch(["http://127.0.0.1:9/a"], tmp_path / "file" / "x" / "a", SUM)


# ---- unpacking


def tar(path, *members):
    with tarfile.open(path, "w:gz") as pack:
        for name, kind, content in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                info.size = len(content)
                pack.addfile(info, io.BytesIO(content))
            else:
                info.linkname = content
                pack.addfile(info)
    return path


def test_archives_are_unpacked_into_their_folder(tmp_path):
    archive = tar(tmp_path / "a.tar.gz", ("top", tarfile.DIRTYPE, ""), ("top/x/y", tarfile.REGTYPE, b"hello"))
    (tmp_path / ".t.part").mkdir()  # left by a killed process
    assert unpack(archive, tmp_path / "t") == tmp_path / "t"
    assert (tmp_path / "t" / "x" / "y").read_bytes() == b"hello"
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        pack.writestr("x", "1")
        pack.writestr("y/z", "2")
    assert (unpack(tmp_path / "a.zip", tmp_path / "z") / "y" / "z").read_text() == "2"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "a.zip", "t", "z"]


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", tarfile.REGTYPE, b"x"),
        ("t/../../evil", tarfile.REGTYPE, b"x"),
        ("/tmp/dl-run-evil", tarfile.REGTYPE, b"x"),
        ("..\\evil", tarfile.REGTYPE, b"x"),
        ("evil", tarfile.SYMTYPE, "/etc/passwd"),
        ("evil", tarfile.LNKTYPE, "t/good"),
        ("evil", tarfile.CHRTYPE, ""),
        ("evil", tarfile.FIFOTYPE, ""),
    ],
)
def test_unsafe_archives_leave_nothing(tmp_path, member):
    archive = tar(tmp_path / "a.tar.gz", ("t/good", tarfile.REGTYPE, b"x"), member)
    with pytest.raises(DataError, match="not safe to unpack"):
        unpack(archive, tmp_path / "deep" / "t")
    assert not [path for path in tmp_path.rglob("*") if path.name not in ("a.tar.gz", "deep", "t.lock")]
    assert not Path("/tmp/dl-run-evil").exists()


def test_zips_with_links_and_truncated_archives_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as pack:
        link = zipfile.ZipInfo("evil")
        link.external_attr = 0o120777 << 16
        pack.writestr(link, "/etc/passwd")
    with pytest.raises(DataError, match="a link or a device"):
        unpack(tmp_path / "a.zip", tmp_path / "t")
    archive = tar(tmp_path / "a.tar.gz", ("t/x", tarfile.REGTYPE, BODY))
    archive.write_bytes(archive.read_bytes()[:100_000])
    with pytest.raises(DataError, match=r"a\.tar\.gz is damaged"):
        unpack(archive, tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_reader_fetches_what_is_missing(get, server, tmp_path):
    checksums = {f"{p}-{k}-ubyte.gz": SUM for p in ("train", "t10k") for k in ("images-idx3", "labels-idx1")}
    asked = {"data_dir": str(tmp_path), "download": True, "folder": "MNIST/raw", "mirrors": [f"{server.url}/good/"]}
    with pytest.raises(DataError, match="is damaged"):  # the body is no IDX: it only has to arrive
        images.idx(**asked, checksums=checksums)
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(checksums)
    with pytest.raises(DataError, match="checksums has no 'train-images-idx3-ubyte.gz'; it has nothing"):
        images.idx(**asked | {"folder": "other"}, checksums={})


def test_missing_data_without_download_is_reported(refused, tmp_path):
    text = refused("data=mnist", "data_dir=empty", "data.source.download=false")
    assert "train-images-idx3-ubyte.gz" in text and "MNIST/raw" in text
