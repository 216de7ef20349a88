"""--json: one line on standard output, whatever happens; and every command and claim of AGENTS.md."""

import io
import json
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from finished_runs import trained

from dlrun import cli
from dlrun.output.json_line import ENDING, ending, note_error
from dlrun.runs import cli as runs_cli
from dlrun.runs import data_cli

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "AGENTS.md").read_text(encoding="utf-8")
COMMANDS = [line.partition("#")[0].strip() for line in TEXT.split("```")[1].splitlines() if line.strip()]
KEYS = re.findall(
    r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", TEXT.split("Keys of a run:")[1].split("##")[0], re.M))
)
SMALL = ["model.hidden=[4]", "trainer.epochs=1", "trainer.device=cpu", "run_dir=run"]
MAINS = {"dl-run": cli.main, "dl-runs": runs_cli.main, "dl-data": data_cli.main}


@pytest.fixture
def call(monkeypatch, capsys, tmp_path, undrawn):
    """Run a command in this process, without plots; returns exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(*words):
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        capsys.readouterr()
        code = 0
        try:
            MAINS[words[0]]()
        except SystemExit as leave:
            code = leave.code or 0
        return code, *capsys.readouterr()

    return run


def only_line(out: str) -> dict:
    (line,) = out.splitlines()
    return json.loads(line)


def test_a_run_and_its_resumption_print_one_line(call, tmp_path):
    code, out, err = call("dl-run", *SMALL, "--json")
    found = only_line(out)
    assert code == 0 and set(found) == set(KEYS) and "epoch 1/1" in err
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert found["folder"] == str(tmp_path / "run") and found["status"] == "finished" and found["exit_code"] == 0
    assert found["best"] == summary["best"] and found["goal"] == "val/acc" and found["epochs"] == 1
    assert found["metrics"] == {key: summary["test"][key] for key in ("test/loss", "test/acc", "test/top5")}
    code, out, _ = call("dl-run", "--json", "resume=run", "trainer.epochs=2")
    assert code == 0 and only_line(out)["epochs"] == 2
    code, out, err = call("dl-run", "--json", "resume=run")
    found = only_line(out)
    assert code == 2 == found["exit_code"] and found["status"] == "refused" and found["error"] in err


@pytest.mark.parametrize(
    ("mode", "keys"),
    [
        ("find_lr", {"optimizer.lr", "lowest_loss_at"}),
        pytest.param(
            *("find_batch", {"data.batch_size", "largest_measured", "largest_by_memory", "sizes"}),
            marks=pytest.mark.thorough,
        ),
        ("time", {"step_ms", "with_profiler_ms"}),
    ],
)
def test_what_a_mode_finds_is_in_the_line(mode, keys, call):
    code, out, err = call("dl-run", "--json", f"mode={mode}", *SMALL[:-1])
    found = only_line(out)
    assert code == 0 and found["status"] == "finished" and found["metrics"] == {} and set(found["measured"]) == keys
    assert (found["folder"] is None) == (mode != "find_lr") and len(err.splitlines()) > 5
    assert all(each is not None for each in found["measured"].values())


@pytest.mark.parametrize(
    ("words", "message"),
    [(["modle=mlp"], "did you mean 'model'"), (["model=resnet18", "data=moons"], "cannot learn from"), (["-x"], "-x")],
)
def test_a_refusal_prints_one_line(call, tmp_path, words, message):
    code, out, err = call("dl-run", *words, "--json")
    found = only_line(out)
    assert code == 2 and found["folder"] is None and found["status"] == "refused"
    assert message in found["error"] and message in err and not list(tmp_path.iterdir())


def test_a_run_that_diverges_prints_one_line(call):
    code, out, _ = call("dl-run", *SMALL, "optimizer.lr=1e30", "--json")
    found = only_line(out)
    assert code == 1 == found["exit_code"] and found["status"] == "diverged" and "the loss is nan" in found["error"]
    assert found["metrics"] == {} and found["best"] is None


def test_a_bug_is_in_the_line(call, monkeypatch):
    """It was null."""
    from dlrun.train.session import Session

    def bug(*given):
        raise ValueError("a bug\nof ours")

    monkeypatch.setattr(Session, "announce", bug)
    monkeypatch.setattr(sys, "argv", ["dl-run", *SMALL, "--json"])
    out = io.StringIO()
    with redirect_stdout(out), pytest.raises(ValueError, match="a bug"):
        cli.main()
    found = only_line(out.getvalue())
    assert found["status"] == "failed" and found["exit_code"] == 1 and found["error"] == "ValueError: a bug"


def test_a_process_of_a_run_tells_its_launcher_why_it_failed(tmp_path, monkeypatch):
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    monkeypatch.setattr(ENDING, "error", None)
    note_error("late\n  expected earlier")
    failure = ProcessFailure(0, 1, 1, str(file))
    assert failure.message == ENDING.error == "late\n  expected earlier" and failure.timestamp > 1e9


@pytest.mark.slow
def test_a_distributed_run_prints_one_line(tmp_path):
    """A run of two processes, a sweep with a job that fails, and a run that a signal stops."""
    python = [sys.executable, "-c", "from dlrun.__main__ import main; main()"]

    def run(*words):
        done = subprocess.run([*python, "--json", *words], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, only_line(done.stdout)

    code, found = run(*SMALL, "trainer.processes=2")
    assert code == 0 and found["folder"] == str(tmp_path / "run") and found["metrics"]["test/acc"] > 0
    code, found = run("-m", "optimizer.lr=1e-3,1e30", *SMALL[:-1], "output_dir=out")
    assert code == 1 and found["status"] == "failed" and found["jobs"] == {"finished": 1, "diverged": 1}
    assert re.match("job 1: .*the loss is (nan|inf)", found["first_failure"])
    (best,) = found["best"]
    assert (
        best["job"] == 0 and Path(best["folder"], "summary.json").is_file() and "optimizer.lr=0.001" in best["command"]
    )
    process = subprocess.Popen(
        [*python, "--json", *SMALL[:1], "trainer.epochs=1000", "run_dir=long"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not re.match(r"epoch +2/", line := process.stderr.readline()):
        assert line, "it ended before"
    process.terminate()
    out, _ = process.communicate()
    found = only_line(out)
    assert process.returncode == 143 == found["exit_code"] and found["status"] == "stopped" and found["metrics"] == {}


def test_lists_of_runs_and_data_are_json(call, tmp_path):
    folders = [trained(tmp_path / name, ["data=digits", f"model.hidden=[{i}]"]) for i, name in ((4, "a"), (5, "b"))]
    code, out, _ = call("dl-runs", "compare", "--json", *folders)
    found = only_line(out)
    assert code == 0 and found["differences"]["model.hidden"] == ["[4]", "[5]"] and Path(found["image"]).is_file()
    assert [run["run"] for run in found["runs"]] == list(map(str, folders))
    assert all(run["metrics"]["test/acc"] > 0 for run in found["runs"])
    code, out, _ = call("dl-data", "list", "--json")
    assert code == 0 and out.count("\n") == 1
    names = [data["name"] for data in json.loads(out)["data"]]
    assert "mnist" in names and len(names) == len(list((ROOT / "configs" / "data").glob("*.yaml")))


@pytest.mark.thorough
def test_every_command_of_the_page_for_agents_works(call, tmp_path):
    """In the order of the page, so that `last` is the run that it trained. Only the sweep needs processes."""
    from PIL import Image

    for command in COMMANDS:
        words = shlex.split(command)
        if words[1] == "-m" or "seeds=8" in words:
            continue  # test_in_processes
        if "photo.png" in words:
            Image.new("L", (8, 8), 128).save("photo.png")
        if "RUN" in words:
            runs = iter([json.loads(line)["run"] for line in call("dl-runs", "list", "--json")[1].splitlines()] * 2)
            words = [next(runs) if word == "RUN" else word for word in words]
        code, out, err = call(*words)
        if words[1] == "compare":  # a single run cannot be compared
            assert code == 2 and "1 run to compare" in err
        else:
            assert code == 0, (command, err)
        if "--json" in words and code == 0:
            assert all(
                isinstance(json.loads(line), dict) for line in (out.splitlines() if words[1] != "show" else [out])
            )
    (folder,) = (path.parent for path in (tmp_path / "outputs").glob("*/*/summary.json"))  # mode=find_lr has no folder
    named = re.findall(
        r"`([\w./]+\.(?:jsonl?|log|yaml|ckpt|txt))`", TEXT.split("## Files of a run")[1].split("A sweep's")[0]
    )
    assert len(named) >= 6 and all((folder / name).exists() for name in named)


def test_a_run_that_stopped_gives_its_epochs_and_the_best_of_them(tmp_path, monkeypatch):
    """They were null, though the run had trained for many epochs."""
    scores = {"scores": {"val/acc": "max", "val/loss": "min"}, "goal": "val/acc"}
    losses = {1: 3.0, 2: 2.0, 3: 1.0}
    rows = [{"epoch": n, "step": 10 * n, "val/acc": min(n, 2) / 4, "val/loss": losses[n]} for n in losses]
    rows.append({"epoch": 4, "step": 40, "val/acc": None, "val/loss": None})
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    monkeypatch.setattr(ENDING, "folder", tmp_path)
    best = {"epoch": 3, "metric": "val/acc", "value": 0.5}  # of equal ones that with the lower loss
    old = {"status": "finished", "best": {"epoch": 1}, "epochs": 1, "steps": 10, "seconds": 1.0, "stopped_by": "epochs"}
    for summary, steps, seconds in (
        ({"status": "stopped", "steps": 45, "seconds": 9.0}, 45, 9.0),
        (old | {"resumed": {"status": "stopped", "steps": 46, "seconds": 8.0}}, 46, 8.0),
        ({"status": "failed"}, 40, None),
    ):
        (tmp_path / "summary.json").write_text(json.dumps(summary | scores))
        line = ending(143)
        assert (line["epochs"], line["best"], line["steps"], line["seconds"]) == (4, best, steps, seconds)
        assert line["stopped_by"] is None
    (tmp_path / "summary.json").write_text(json.dumps(old | scores))
    assert ending(0)["epochs"] == 1 and ending(0)["best"] == {"epoch": 1}
