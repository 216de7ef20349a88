"""Trackers receive everything of a run once; one that fails, hangs or is missing costs the run nothing."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
from filelock import FileLock
from run_files import write_run
from runs import compose, train

import dlrun
from dlrun.config.check import check_section
from dlrun.config.signatures import signature
from dlrun.errors import ConfigError, UserError
from dlrun.output import tracking
from dlrun.output.tracking import Tracking, require_apart, require_installed
from dlrun.tracking import follow as track
from dlrun.tracking import trackers
from dlrun.tracking.trackers import require_answer

CONFIG = {"output_dir": ".", "seed": 3, "model": {"_target_": "x", "width": 5}, "tracker": {"fake": {}}}
SMALL = ["model.hidden=[4]", "trainer.device=cpu", "trainer.log_every=10", "run_dir=run"]


class Fake:
    """A tracker that records what it receives. breaks: the step at which it fails."""

    def __init__(self, breaks=None, artifacts=False):
        self.artifacts, self.files = artifacts, []
        self.breaks, self.points, self.ends, self.keys = breaks, [], [], []

    def start(self, run, key):
        self.run = run
        self.keys.append(key)
        return key or "the key"

    def log(self, rows):
        for step, metrics in rows:
            if step == self.breaks:
                raise ConnectionError("no network")
            self.points.append((step, metrics))

    def finish(self, results, images, files, step, status):
        self.files.append([path.relative_to(self.run.folder).as_posix() for path in files])
        self.ends.append((results, [path.name for path in images], step, status))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(track, "EVERY", 0.01)
    best = {"metric": "val/loss", "value": 0.5, "epoch": 4}
    folder = write_run(tmp_path / "run", 4, best=best, test={"test/loss": 0.25}, steps=40, id="abc")
    for name in ("tracking", "plots"):
        (folder / name).mkdir()
    (folder / "plots" / "loss.png").write_bytes(b"png")
    return folder


def test_a_tracker_receives_everything_once(run):
    fake = Fake()
    track.follow(run, "fake", fake, CONFIG)
    assert fake.run.id == "abc" and fake.run.config == {"output_dir": ".", "seed": 3, "model.width": 5}
    assert [step for step, _ in fake.points] == [10, 20, 30, 40]
    assert fake.points[3][1]["val/loss"] == 0.5 and fake.points[3][1]["epoch"] == 4
    assert fake.ends == [({"test/loss": 0.25, "best/loss": 0.5, "best/epoch": 4}, ["loss.png"], 40, "finished")]
    track.follow(run, "fake", fake, CONFIG)  # as by a process that waited for the first one
    assert len(fake.points) == 4 and len(fake.ends) == 1


def test_a_resumed_run_sends_no_point_twice(run):
    """Four rows were sent; the checkpoint has two; the resumed run writes the other two again and two more."""
    fake, summary = Fake(), json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"status": "stopped"}))
    track.follow(run, "fake", fake, CONFIG)
    assert fake.ends[-1][1:] == ([], 40, "stopped")
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    more = [json.dumps({"step": step, "epoch": step // 10, "val/loss": 0.1}) + "\n" for step in (50, 60)]
    (run / "metrics.jsonl").write_text("".join(lines + more))
    (run / "summary.json").write_text(json.dumps(summary))
    track.follow(run, "fake", fake, CONFIG)
    assert [step for step, _ in fake.points] == [10, 20, 30, 40, 50, 60] and fake.keys == [None, "the key"]
    assert fake.ends[-1][3] == "finished"


def send(run, fake, rows, status):
    """Let a tracker follow a run whose file has these (step, name) rows."""
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"status": status}))
    lines = [json.dumps({"step": step, "epoch": 1, name: 1.0}) + "\n" for step, name in rows]
    (run / "metrics.jsonl").write_text("".join(lines))
    track.follow(run, "fake", fake, CONFIG)


@pytest.mark.parametrize(("after", "new"), [
    ([10, 20, 30, 40], [40]),  # the row of an epoch that a limit had cut is gone
    ([10, 20, 40, 60], [40, 60]),  # logs less often
    ([10, 20, 22, 24, 26, 28, 30, 32, 34], [32, 34]),  # logs more often: what lies before the last point is not added
])  # fmt: skip
def test_a_resumed_run_that_writes_other_rows_has_each_later_point_once(run, after, new):
    fake = Fake()
    cut = [(10, "step/loss"), (20, "step/loss"), (30, "step/loss"), (30, "val/loss")]
    send(run, fake, cut, "stopped")
    send(run, fake, [*((step, "step/loss") for step in after), (max(after), "val/loss")], "finished")
    assert [step for step, metrics in fake.points if "step/loss" in metrics] == [10, 20, 30, *new]
    assert [step for step, metrics in fake.points if "val/loss" in metrics] == [30, max(after)]


def test_a_key_sends_the_best_checkpoint_too(run):
    """Of a finished run only; a limit may have cut the epoch of the best weights."""
    (run / "checkpoints").mkdir(exist_ok=True)
    for name in ("best", "last"):
        (run / "checkpoints" / f"{name}.ckpt").write_bytes(b"x")
    (run / ".hydra").mkdir(exist_ok=True)
    (run / ".hydra" / "config.yaml").write_text("{}")
    for artifacts in (False, True):
        fake = Fake(artifacts=artifacts)
        track.follow(run, f"fake{artifacts}", fake, CONFIG | {"tracker": {f"fake{artifacts}": {}}})
        files = ["checkpoints/best.ckpt", ".hydra/config.yaml", "summary.json"]
        assert fake.files == [files if artifacts else []]
    (run / "summary.json").write_text(
        json.dumps(json.loads((run / "summary.json").read_text()) | {"status": "stopped"})
    )
    track.follow(run, "fakeTrue", fake, CONFIG | {"tracker": {"fakeTrue": {}}})
    assert fake.files[1:] == [[]]


@pytest.mark.parametrize("name", ["Trackio", "Wandb"])
def test_artifacts_go_to_the_packages_with_their_names(name, tmp_path):
    """Against a double of what the two packages have in common; the slow tests below use the real ones."""
    calls = []

    class Artifact:
        def __init__(self, name, type):
            calls.append((name, type))

        def add_file(self, path, name):
            calls.append((path, name))

    tracker = getattr(trackers, name)(**{key: 0 for key in signature(f"dlrun.tracking.trackers.{name}").keys})
    package = SimpleNamespace(Artifact=Artifact)
    tracker.trackio = tracker.wandb = package
    tracker.artifact = "dl-run-abc"
    tracker.run = MagicMock()
    tracker.finish({}, [], [tmp_path / "best.ckpt"], 4, "finished")
    assert calls == [("dl-run-abc", "model"), (str(tmp_path / "best.ckpt"), "best.ckpt")]
    tracker.run.log_artifact.assert_called_once()
    assert [call[0] for call in tracker.run.method_calls][-1] == "finish"


def test_a_resumed_run_that_names_another_project_is_sent_there_whole(run):
    fake = Fake()
    for project, mode, keys in (("a", "offline", 1), ("a", "online", 1), ("b", "online", 2)):
        config = CONFIG | {"tracker": {"fake": {"project": project, "mode": mode}}}
        track.follow(run, "fake", fake, config)
        assert fake.keys == [None] * keys and len(fake.points) == 4 * keys


def test_after_a_failure_no_point_is_sent_twice(run, monkeypatch):
    monkeypatch.setattr(track, "MOST", 2)
    with pytest.raises(ConnectionError):
        track.follow(run, "fake", Fake(breaks=20), CONFIG)
    fake = Fake()
    track.follow(run, "fake", fake, CONFIG)
    assert [step for step, _ in fake.points] == [30, 40]


def test_only_new_lines_are_read(tmp_path):
    """A long run's file is not read whole each second; a resumed run replaces it."""
    path = tmp_path / "metrics.jsonl"
    lines = track._Lines(path)
    assert lines.read() == []
    path.write_bytes(b"one\ntwo\nthr")
    assert lines.read() == [b"one", b"two"] and lines.read() == []
    with open(path, "ab") as file:
        file.write(b"ee\n")
    assert lines.read() == [b"three"]
    track.write_whole(path, b"one\ntwo\n")
    assert lines.read() == [b"one", b"two"]


def test_values_that_are_not_finite_are_left_out(run):
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 50, "epoch": 5, "val/loss": null, "train/loss": 1}\n{"step": 60, "epo')
    fake = Fake()
    track.follow(run, "fake", fake, CONFIG)
    assert fake.points[-1] == (50, {"epoch": 5.0, "train/loss": 1.0})


def test_a_tracker_that_fails_costs_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "SAFE", "raise ConnectionError('no network')")
    (line,) = Tracking(tmp_path, {"fake": 20.0}).close()
    assert "tracker=fake failed: ConnectionError: no network\n  the run is not" in line


def test_a_tracker_that_ends_well_costs_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "SAFE", "pass")
    assert Tracking(tmp_path, {"fake": 20.0}).close() == []


def test_trackers_that_hang_cost_a_moment_and_one_line(tmp_path, monkeypatch):
    """Each is waited for as long as its key says; then it goes on, with its full share of the cores."""
    monkeypatch.setattr(tracking, "SAFE", f"{NICE}; import time; time.sleep(100)")
    found = Tracking(tmp_path, {"one": 0.1, "two": 0.0})
    processes = list(found.processes.values())
    try:
        deadline = time.monotonic() + 20
        while [nice_of(each) for each in processes] not in ([19, 19], [None, None]) and time.monotonic() < deadline:
            time.sleep(0.05)
        began = time.monotonic()
        (line,) = found.close()
        assert time.monotonic() - began < 5
        assert line.startswith("tracker=one,two still send and end by themselves; output: ")
        assert [os.waitpid(each.pid, os.WNOHANG)[0] for each in processes] == [0, 0]  # they run
        assert set(map(nice_of, processes)) <= {0, None}
    finally:
        for each in processes:
            os.kill(each.pid, signal.SIGKILL)
            os.waitpid(each.pid, 0)


NICE = "import os; from dlrun.system.cpus import copy_nice; os.nice(19); copy_nice()"


def nice_of(process):
    """The nice value of its scheduling group; None on a system without such groups."""
    try:
        return int(Path(f"/proc/{process.pid}/autogroup").read_text().split()[-1])
    except OSError:
        return None


def test_a_server_that_does_not_answer_is_one_warning(tmp_path, monkeypatch):
    """The server is looked for first, without the package, which tries for minutes. Any answer counts."""
    monkeypatch.setenv("no_proxy", "*")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    folder = write_run(tmp_path / "run", 1)
    uri = f"http://127.0.0.1:{port}"
    node = {**TARGETS["mlflow"], "uri": uri}
    for name, content in (("config", {**CONFIG, "tracker": {"mlflow": node}}), ("hydra", HYDRA)):
        (folder / ".hydra").mkdir(exist_ok=True)
        (folder / ".hydra" / f"{name}.yaml").write_text(json.dumps(content))
    (line,) = Tracking(folder, {"mlflow": 60.0}).close()
    assert line.startswith(f"tracker=mlflow failed: ConnectionError: {uri} does not answer: [Errno")

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(401)

        def log_message(self, *args): ...

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        require_answer(f"http://127.0.0.1:{server.server_port}")
        thread.join()
    require_answer("sqlite:///mlflow.db")


HYDRA = {"hydra": {"runtime": {"choices": {"model": "mlp"}}}}


def test_a_run_finishes_without_its_tracker(tmp_path, monkeypatch, capsys):
    """The process of the tracker fails at once: the run prints one line, finishes and has its files."""
    monkeypatch.setattr(tracking, "SAFE", "raise SystemExit('the server is down')")
    config, names = compose("data=digits", "model.hidden=[4]", "trainer.epochs=2", "trainer.device=cpu")
    train(tmp_path, (config | {"tracker": {"mlflow": {}}}, names))
    out = capsys.readouterr().out
    assert out.count("tracker=mlflow failed: the server is down") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) >= 2


def test_wrong_settings_of_trackers_are_refused():
    with pytest.raises(ConfigError, match="tracker.wandb.mode=ofline: expected one of offline, online"):
        check_section("tracker", {"wandb": {**TARGETS["wandb"], "mode": "ofline"}})
    with pytest.raises(ConfigError, match="tracker.mlflow.url: Mlflow has no 'url'; did you mean 'uri'"):
        check_section("tracker", {"mlflow": {**TARGETS["mlflow"], "url": "x"}})
    with pytest.raises(ConfigError, match="tracker.a._target_='os.system' is not allowed here"):
        check_section("tracker", {"a": {"_target_": "os.system"}})
    with pytest.raises(ConfigError, match="tracker=yes: expected none, wandb, or several"):
        check_section("tracker", "yes")
    check_section("tracker", {})


def test_a_run_s_folder_is_apart_from_that_of_wandb(tmp_path, monkeypatch):
    """W&B's links in it kept the run from being resumed."""
    monkeypatch.chdir(tmp_path)
    for folder in ("o/wandb", "o", "o/../o/wandb/", ".", str(tmp_path / "o")):
        with pytest.raises(UserError, match="with tracker=wandb: W&B writes into .*/o/wandb, which is"):
            require_apart(["mlflow", "wandb"], folder, "o")
        require_apart(["mlflow"], folder, "o")
    for folder in ("o/wandb/run", "o/run", "wandb", None):
        require_apart(["wandb"], folder, "o")
    monkeypatch.setattr("dlrun.output.tracking.find_spec", lambda name: True)
    with pytest.raises(UserError, match="run_dir=outputs/wandb with tracker=wandb"):
        dlrun.train("data=moons", "tracker=wandb", "run_dir=outputs/wandb")


@pytest.mark.parametrize("name", ["trackio", "wandb", "mlflow"])
def test_configs_state_every_key_and_go_together(name):
    config, _ = compose(f"tracker=[{name}]", "data=digits")
    assert list(config["tracker"]) == [name]
    node = config["tracker"][name]
    assert node.keys() - {"_target_"} == signature(node["_target_"]).keys.keys()
    both, _ = compose("tracker=[mlflow,trackio]", "data=digits")
    assert set(both["tracker"]) == {"mlflow", "trackio"} and not compose("data=digits")[0].get("tracker")


TARGETS = {
    "wandb": {
        "_target_": "dlrun.tracking.trackers.Wandb",
        "project": "p",
        "entity": None,
        "mode": "offline",
        "artifacts": False,
        "wait_seconds": 2,
    },
    "mlflow": {
        "_target_": "dlrun.tracking.trackers.Mlflow",
        "experiment": "e",
        "uri": None,
        "artifacts": False,
        "wait_seconds": 2,
    },
}


def test_a_missing_package_is_reported_before_anything_runs(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="tracker=wandb: wandb is not installed\n  expected: pip install x.wandb."):
        require_installed(["wandb"], "pip install x[{}]".format)


def call(folder, *words, code=0):
    """dl-run in a process of its own, as users call it."""
    command = [sys.executable, "-c", "from dlrun.__main__ import main; main()", *words]
    env = os.environ | {"TRACKIO_DIR": str(folder / "trackio"), "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done.stdout


def settled(folder, name):
    """Wait until the tracker has released the run: on a busy machine it may outlive it."""
    with FileLock(folder / "run" / "tracking" / f"{name}.lock", timeout=600):
        time.sleep(0.1)
    assert json.loads((folder / "run" / "tracking" / f"{name}.json").read_text())["ended"]
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def train_and_resume(folder, name):
    """Two epochs, then two more: the rows of metrics.jsonl."""
    pytest.importorskip(name, reason=f"{name} is not installed") if find_spec(name) is None else None
    call(folder, f"tracker={name}", *SMALL, "trainer.epochs=2")
    settled(folder, name)
    call(folder, "resume=run", "trainer.epochs=4", f"tracker.{name}.artifacts=true")
    return settled(folder, name)


@pytest.mark.slow
def test_mlflow_receives_a_run(tmp_path):
    """The tables of MLflow's database."""
    rows = train_and_resume(tmp_path, "mlflow")
    with sqlite3.connect(tmp_path / "outputs" / "mlflow.db") as database:
        ((key, status, name),) = database.execute("select run_uuid, status, name from runs").fetchall()
        points = database.execute("select step, value from metrics where key = 'val/loss' order by step").fetchall()
        params = dict(database.execute("select key, value from params").fetchall())
        keys = {each for (each,) in database.execute("select distinct key from metrics")}
    assert status == "FINISHED" and name == "run" and params["model.hidden"] == "[4]"
    assert points == [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row] and len(points) == 4
    assert {"test/acc", "best/acc", "step/loss", "lr"} <= keys
    kept = tmp_path / "outputs" / "mlflow" / key / "artifacts"
    assert list(kept.glob("plots/*.png"))
    assert (kept / "run" / "best.ckpt").read_bytes() == (tmp_path / "run" / "checkpoints" / "best.ckpt").read_bytes()
    assert {path.name for path in (kept / "run").iterdir()} == {"best.ckpt", "config.yaml", "summary.json"}


@pytest.mark.slow
def test_wandb_receives_a_run_offline(tmp_path):
    """The records of the files that `wandb sync` uploads."""
    rows = train_and_resume(tmp_path, "wandb")
    from wandb.proto import wandb_internal_pb2

    points, config, summary = [], {}, {}
    for path in sorted((tmp_path / "outputs" / "wandb").glob("offline-run-*/*.wandb")):
        for raw in records(path.read_bytes()):
            record = wandb_internal_pb2.Record.FromString(raw)
            values = {
                item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item
            }
            points += [(values["_step"], values["val/loss"])] if "val/loss" in values else []
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
            summary |= {name_of(item): item.value_json for item in record.summary.update}
    assert points == [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row] and len(points) == 4
    assert config["model.hidden"] == [4] and "test/acc" in summary
    assert list((tmp_path / "outputs" / "wandb").glob("*/files/media/images/plots/*.png"))


def name_of(item):
    return item.key or ".".join(item.nested_key)


def records(content):
    """The records of LevelDB's log format: blocks of 32 KB; a record may be split; parts have headers of 7 bytes."""
    at, parts = 7, b""  # the header of the file
    while at + 7 <= len(content):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        size, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        if kind == 0:
            at += left
            continue
        parts += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


@pytest.mark.slow
def test_trackio_receives_a_run(tmp_path):
    """Its database."""
    rows = train_and_resume(tmp_path, "trackio")
    (path,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(path) as database:
        found = [(step, json.loads(text)) for step, text in database.execute("select step, metrics from metrics")]
    points = sorted((step, values["val/loss"]) for step, values in found if "val/loss" in values)
    assert points == [(row["step"], row["val/loss"]) for row in rows if "val/loss" in row] and len(points) == 4
    assert any("test/acc" in values for _, values in found) and any("plots/loss" in values for _, values in found)


@pytest.mark.slow
def test_an_unreachable_server_is_reported(tmp_path):
    if find_spec("mlflow") is None:
        pytest.skip("mlflow is not installed")
    out = call(tmp_path, "tracker=mlflow", "tracker.mlflow.uri=http://127.0.0.1:9", *SMALL, "trainer.epochs=1")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "finished" and out.count("tracker=mlflow failed: ConnectionError: http") == 1
