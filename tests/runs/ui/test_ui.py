"""`dl-runs ui`: who may read what, and the data of the page are those of the files."""

import json
import os
import re
import shutil
import socket
from pathlib import Path

import pytest
from run_files import write_run
from werkzeug.test import Client

import dlrun.runs.ui
from dlrun.errors import UserError
from dlrun.runs.listing import facts
from dlrun.runs.ui import catalog, server
from dlrun.runs.ui.app import App
from dlrun.runs.ui.catalog import Catalog
from dlrun.sweep.job import Job
from dlrun.sweep.state import State

HOST = {"base_url": "http://127.0.0.1:6007"}
STATIC = Path(dlrun.runs.ui.__file__).parent / "static"
HOSTILE = "<img src=x onerror=alert(1)>"


def write_sweep(folder):
    """A finished sweep of four jobs over two keys."""
    jobs = []
    for i in range(4):
        overrides = [f"optimizer.lr={10.0**-i}", f"model={HOSTILE if i == 3 else f'm{i % 2}'}"]
        write_run(folder / str(i), seed=i)
        jobs.append(Job(i, overrides, "finished", 0, 1.0, {"val/loss": i / 4}))
    command = {"command": [], "flags": [], "arguments": [], "configs": ""}
    State.new(folder, command, jobs, 4, [["val/loss", "min"]]).write()
    return folder


@pytest.fixture
def base(tmp_path):
    """Three runs, one with hostile names, and a secret outside them."""
    (tmp_path / "secret.png").write_text("secret")
    for i, name in enumerate(("one", "two", HOSTILE)):
        folder = write_run(
            tmp_path / "outputs" / "day" / name, model=HOSTILE if i == 2 else "mlp", test={"test/acc": 0.5}
        )
        os.utime(folder / ".hydra" / "overrides.yaml", (i, i))
        (folder / "plots").mkdir()
        (folder / "plots" / "loss.png").write_bytes(b"\x89PNG")
        (folder / "run.log").write_text("epoch 1\n\x1b[2J\n")
    return tmp_path / "outputs"


@pytest.fixture
def client(base):
    """A browser that has opened the printed address."""
    found = Client(App(base, "token", 6007))
    opened = found.get("/?token=token", **HOST)
    assert opened.status_code == 303 and opened.headers["Location"] == "/"
    cookie = opened.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite" in cookie
    return found


def ask(client, path):
    answer = client.get(path, **HOST)
    assert answer.status_code == 200 and answer.content_type.startswith("application/json"), answer.text
    return answer.json


def rows(client):
    return ask(client, "/api/runs")["runs"]


PATHS = ["/", "/api/runs", "/api/curves?run=x", "/static/app.js", "/image/x/plots/loss.png", "/sweep/x", "/nothing"]


@pytest.mark.parametrize("path", PATHS)
def test_nothing_is_read_without_the_token(base, client, path):
    stranger = Client(App(base, "token", 6007))
    join = "&" if "?" in path else "?"
    for address in (path, f"{path}{join}token=wrong", f"{path}{join}token=", f"{path}{join}token=\u00fc"):
        assert stranger.get(address, **HOST).status_code == 403
    stranger.set_cookie("dl-runs-6007", "wrong", domain="127.0.0.1")
    assert stranger.get(path, **HOST).status_code == 403
    assert client.get(f"{path}{join}token=wrong", **HOST).status_code == 403


@pytest.mark.parametrize("path", PATHS)
def test_other_hosts_and_methods_are_refused(client, path):
    """Another site can have a name that resolves to 127.0.0.1."""
    assert client.get(path, base_url="http://evil.example:6007").status_code == 403
    assert client.get(path, base_url="http://127.0.0.1:80").status_code == 403
    for method in ("post", "put", "delete", "patch"):
        assert getattr(client, method)(path, **HOST).status_code == 405


@pytest.mark.parametrize("path", PATHS)
def test_every_answer_has_a_policy(client, path):
    headers = client.get(path, **HOST).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "plots/../../../../secret.png", "../../../secret.png", "plots/..%2f..%2f..%2fsecret.png", "plots/link.png",
        "/etc/passwd", "run.log", "plots/loss.svg", "checkpoints/last.ckpt", ".hydra/config.yaml", "plots/",
        "plots/.png", "plots\\..\\loss.png", "plots/%00.png", "linked/secret.png", "plots/pipe.png",
        "plots/" + 300 * "x" + ".png",
    ],
)  # fmt: skip
def test_only_images_of_a_run_are_read(client, base, path):
    (base / "day" / "one" / "plots" / "link.png").symlink_to(base.parent / "secret.png")
    (base / "day" / "one" / "linked").symlink_to(base.parent)
    os.mkfifo(base / "day" / "one" / "plots" / "pipe.png")
    (run,) = [row["id"] for row in rows(client) if row["name"] == "day/one"]
    answer = client.get(f"/image/{run}/{path}", **HOST)
    assert answer.status_code in (404, 308) and b"secret" not in answer.data.replace(b"secret.png", b"")
    assert client.get(f"/image/{run}/plots/loss.png", **HOST).data == b"\x89PNG"


@pytest.mark.parametrize("key", ["../secret", "day/one", "", "0" * 12, "%2e%2e"])
@pytest.mark.parametrize("path", ["/api/curves?run={}", "/api/configs?run={}", "/api/logs?run={}", "/sweep/{}"])
def test_only_listed_runs_are_read(client, path, key):
    assert client.get(path.format(key), **HOST).status_code == 404


def test_rows_equal_those_of_the_list(client, base):
    found = {row["name"]: row for row in rows(client)}
    assert found.keys() == {"day/one", "day/two", f"day/{HOSTILE}"}
    for name, row in found.items():
        listed = facts(base / name)
        assert {key: row[key] for key in ("status", "model", "data", "best", "test", "metrics")} == {
            key: listed[key] for key in ("status", "model", "data", "best", "test", "metrics")
        }


def test_only_changes_are_sent(base, monkeypatch):
    monkeypatch.setattr(catalog, "NOT_NOW", 0.0)
    monkeypatch.setattr(catalog, "ALL_EVERY", 0.0)
    found = Catalog(base)
    before = found.changes(0)
    assert len(before["runs"]) == 3 and not before["more"]
    assert not found.changes(before["version"])["runs"]
    summary = base / "day" / "two" / "summary.json"
    summary.write_text(summary.read_text().replace("finished", "diverged"))
    (changed,) = found.changes(before["version"])["runs"]
    assert (changed["name"], changed["status"]) == ("day/two", "diverged")
    shutil.rmtree(base / "day" / "one")
    found.folders.due = 0.0
    after = found.changes(found.version)
    assert after["total"] == 2 and after["gone"] == [row["id"] for row in before["runs"] if row["name"] == "day/one"]


def test_summaries_are_read_in_chunks_the_newest_first(base, monkeypatch):
    monkeypatch.setattr(catalog, "CHUNK", 2)
    found = Catalog(base)
    first = found.changes(0)
    assert [row["name"] for row in first["runs"]] == [f"day/{HOSTILE}", "day/two"] and first["more"]
    second = found.changes(first["version"])
    assert [row["name"] for row in second["runs"]] == ["day/one"] and not second["more"]


def test_a_run_has_details(client, base):
    keys = "&".join(f"run={row['id']}" for row in rows(client))
    for curves in ask(client, f"/api/curves?{keys}").values():
        assert curves["epochs"]["epoch"] == [1, 2, 3, 4] and curves["epochs"]["val/loss"] == [2, 1, 2 / 3, 0.5]
        assert curves["goal"] == "val/loss" and not curves["steps"]
    assert {text for text in ask(client, f"/api/logs?{keys}").values()} == {"epoch 1\n\\x1b[2J\n"}
    for files in ask(client, f"/api/images?{keys}").values():
        assert [file["path"] for file in files] == ["plots/loss.png"]


def test_a_value_that_is_not_finite_is_still_json(client, base):
    with open(base / "day" / "one" / "metrics.jsonl", "a") as file:
        file.write('{"step": 50, "epoch": 5, "val/loss": NaN}\n')
    (run,) = [row["id"] for row in rows(client) if row["name"] == "day/one"]
    text = client.get(f"/api/curves?run={run}", **HOST).text
    assert json.loads(text, parse_constant=None)[run]["epochs"]["val/loss"][-1] is None and "NaN" not in text


def test_the_page_loads_nothing_from_elsewhere(client):
    """Our files hold no address of another host and no script in HTML, and each named file exists."""
    page = client.get("/", **HOST).text
    names = re.findall(r'(?:src|href)="(/[^"]+)"', page)
    assert len(names) == 2 and all(client.get(name, **HOST).status_code == 200 for name in names)
    assert client.get("/static/plotly.min.js", **HOST).content_length > 10**6
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"https?://|innerHTML|insertAdjacentHTML|document\.write|\beval\(", text), path
    assert not re.search(r"<script>|\son\w+=", page)


def test_a_sweeps_page_may_run_its_script_and_nothing_else(client, base):
    folder = write_sweep(base / "day" / "sweep")
    (found,) = ask(client, "/api/runs")["sweeps"]
    assert found["name"] == "day/sweep" and sum(row["sweep"] == found["id"] for row in rows(client)) == 4
    answer = client.get(f"/sweep/{found['id']}", **HOST)
    assert answer.status_code == 200, answer.text
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox allow-scripts" in policy and "connect-src" not in policy and "default-src 'none'" in policy
    assert HOSTILE not in answer.text and HOSTILE.replace("<", "\\u003c") in answer.text
    before = sorted(path.stat().st_mtime_ns for path in folder.rglob("*"))
    (folder / "sweep.json").write_text("{}")
    damaged = client.get(f"/sweep/{found['id']}", **HOST)
    assert damaged.status_code == 404 and "sweep.json" in damaged.json["error"]
    assert len(before) == len(list(folder.rglob("*")))  # the page is built without writing a report


def test_a_port_in_use(base):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"--port {port}: the port is in use\n  expected a free one; --port 0"):
            next(server.serve(base, port))
    with pytest.raises(UserError, match="--port 70000: expected a number"):
        next(server.serve(base, 70000))
    lines = server.serve(base, 0)
    assert re.match(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{32}$", next(lines))
    lines.close()


def test_missing_folders_and_packages_are_reported(base, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="no such folder"):
        next(server.serve(tmp_path / "nowhere", 0))
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "plotly" else object())
    with pytest.raises(UserError, match="needs plotly, which is not installed\n  expected: .*pip install"):
        next(server.serve(base, 0))
