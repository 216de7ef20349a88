"""The command `resume=`: which runs it takes, what may change, and that a refusal changes nothing."""

import json
import os
import shlex
import shutil

import pytest
from filelock import FileLock
from omegaconf import OmegaConf
from runs import copy_config, rows

from dlrun.output.checkpoint import load, save


def test_a_finished_run_resumes_with_a_higher_limit(dl_run, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    assert dl_run("resume=run", "trainer.epochs=2")[0] == 0
    assert rows(tmp_path / "run")[-1]["epoch"] == 2


def test_a_resume_of_something_else_than_a_run_is_refused(refused, tmp_path):
    assert "resume=nowhere: no such folder\n  expected a run's folder" in refused("resume=nowhere")
    assert "resume=: no such folder" in refused("resume=", "trainer.epochs=3")
    assert f"resume={tmp_path}: this folder is not a run's" in refused(f"resume={tmp_path}")
    assert "resume=last: there is no run under " in refused("resume=last")
    assert "resume=5: no such folder" in refused("resume=5")


@pytest.mark.thorough(but=["model=lenet", "seed=1", "~experiment"])
@pytest.mark.parametrize("change", ["seed=1", "model=lenet", "trainer.ema=0.5", "+data.x=1", "~experiment", "init=a"])
def test_a_resume_with_another_override_is_refused(refused, finished, change):
    text = refused(f"resume={finished}", change)
    assert text.startswith(f"{change} cannot change in a resumed run: it continues with its own config\n")
    assert "expected only: trainer.device, data_dir, trainer.epochs" in text
    new = shlex.split(text.splitlines()[-1].partition(": dl-run ")[2])
    kept = change.startswith(("init", "model"))
    assert new[-1] == change and (f"init={finished}" in new) == (not kept)


@pytest.mark.parametrize("changes", [(), ("trainer.device=cpu",), ("trainer.epochs=1",), ("trainer.patience=3",)])
def test_a_resume_of_a_finished_run_is_refused(refused, finished, changes):
    text = refused(f"resume={finished}", *changes)
    assert text.startswith(f"resume={finished}: the run in {finished} is finished, with 1 epoch\n")
    assert f"dl-run resume={finished} trainer.epochs=<more>" in text


LIMITS = [("max_steps", 9, 9, 10), ("max_time", 1e-9, 1e-9, 100), ("patience", 1, 1, 9), ("stop_at", 9.0, 8.0, 1e-9)]


@pytest.mark.thorough(but=["max_steps-9-9-10"])
@pytest.mark.parametrize("key, high, reached, higher", LIMITS)
def test_a_resume_needs_a_higher_limit_than_the_one_reached(key, high, reached, higher, dl_run, refused, tmp_path):
    argument, more = f"trainer.{key}=", "less" if key == "stop_at" else "more"
    keys = ["trainer.epochs=3", "trainer.min_delta=9", "trainer.monitor=val/loss"]
    code, _, err = dl_run("run_dir=run", f"{argument}{high}", *keys)
    assert code == 0, err
    for changes in ([], ["trainer.epochs=9", f"{argument}{reached}", "trainer.device=cpu", "trainer.min_delta=8"]):
        text = refused("resume=run", *changes, left=["outputs", "run"])
        assert "is finished, with" in text and f"dl-run resume=run {argument}<{more}>" in text
    assert dl_run("resume=run", f"{argument}{higher}", "trainer.epochs=3")[0] == 0


def test_a_resume_after_the_last_epoch_needs_more_epochs(dl_run, refused, finished):
    steps = json.loads((finished / "summary.json").read_text())["steps"]
    assert dl_run("run_dir=run", "trainer.epochs=1", f"trainer.max_steps={steps}")[0] == 0
    text = refused("resume=run", "trainer.max_steps=null", left=["outputs", "run"])
    assert "dl-run resume=run trainer.epochs=<more>" in text


@pytest.mark.thorough(but=["[]-0"])
@pytest.mark.parametrize(
    "text, code",
    [("[]", 0), ("3", 0), ('{"status": "finished"}', 0), ('{"status": "finished", "epochs": "x", "steps": []}', 0)],
)
def test_a_run_with_an_edited_summary_resumes(text, code, dl_run, finished, tmp_path):
    """Its status decides whether there is anything left to do; a higher limit resumes it in any case."""
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "summary.json").write_text(text)
    assert dl_run("resume=run")[0] == code
    assert dl_run("resume=run", "trainer.epochs=2")[0] == 0


def test_a_resume_reads_the_run_after_it_is_locked(refused, finished, tmp_path, monkeypatch):
    """Of two processes that resume a run, the second sees what the first has written."""
    shutil.copytree(finished, tmp_path / "run")
    acquire = FileLock.acquire

    def late(self, *args, **keys):
        (tmp_path / "run" / "summary.json").write_text('{"status": "finished", "epochs": 9}')
        return acquire(self, *args, **keys)

    monkeypatch.setattr(FileLock, "acquire", late)
    config = (tmp_path / "run" / ".hydra" / "config.yaml").read_text()
    assert "is finished, with 9 epochs" in refused("resume=run", "trainer.epochs=2", left=["run"])
    assert (tmp_path / "run" / ".hydra" / "config.yaml").read_text() == config


def test_the_settings_of_a_tracker_may_change(dl_run, refused, finished, tmp_path, monkeypatch):
    """Alone, or with the tracker; nothing is started here, but the config that the tracker reads is written."""
    monkeypatch.setattr("dlrun.output.tracking.find_spec", lambda name: True)
    monkeypatch.setattr("dlrun.output.run_folder.RunFolder.start_trackers", lambda *args: None)
    shutil.copytree(finished, tmp_path / "run")
    changes = (
        ["tracker=wandb", "tracker.wandb.mode=online"],
        ["tracker.wandb.project=other", "tracker.wandb.entity=me"],
    )
    for epochs, words in enumerate(changes, 2):
        code, _, err = dl_run("resume=run", *words, f"trainer.epochs={epochs}")
        assert code == 0, err
    (node,) = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml").tracker.values()
    assert (node.mode, node.project, node.entity) == ("online", "other", "me")
    for word, why in (
        ("wandb.moed=a", "Wandb has no 'moed'"),
        ("mlflow.uri=a", "tracker.mlflow={'uri': 'a'}: expected"),
    ):
        assert why in refused("resume=run", f"tracker.{word}", "trainer.epochs=9", left=["run"])


def test_a_new_limit_is_checked(refused, finished):
    assert f"resume={finished}: trainer.epochs=-1: expected an integer >= 1" in refused(
        f"resume={finished}", "trainer.epochs=-1"
    )


def test_a_resume_of_a_folder_with_a_forbidden_target_is_refused(refused, finished, tmp_path):
    copy_config(finished, tmp_path / "run", "dlrun.models.mlp.mlp", "os.system")
    text = refused("resume=run", left=["run"])
    assert text.startswith(
        "resume=run: model._target_='os.system' is not allowed here: expected a function in dlrun.models"
    )


@pytest.mark.parametrize("damage", ["[", "- 1", "data: \0", None])
def test_a_resume_of_a_folder_with_a_damaged_config_is_refused(refused, finished, tmp_path, damage):
    copy_config(finished, tmp_path / "run")
    config = tmp_path / "run" / ".hydra" / ("hydra.yaml" if damage is None else "config.yaml")
    config.unlink() if damage is None else config.write_text(damage)
    assert refused("resume=run", left=["run"]).startswith("resume=run: cannot read the run's config in run/.hydra: ")


def content(folder):
    """All files of a folder with their content."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def edit(name, old, new):
    return lambda run: (run / name).write_text((run / name).read_text().replace(old, new))


def flip(*names):
    def spoil(run):
        for name in names:
            path = run / "checkpoints" / f"{name}.ckpt"
            path.write_bytes(path.read_bytes()[:-1] + b"!")

    return spoil


def link(run):
    (run / "run.log").rename(run.parent / "elsewhere")
    (run / "run.log").symlink_to(run.parent / "elsewhere")


def pipe(name):
    def make(run):
        (run / name).unlink(missing_ok=True)
        os.mkfifo(run / name)

    return make


def taken(run):
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "checkpoints" / "last.ckpt").mkdir()


def another_runs(run):
    for name in ("last", "previous"):
        path = run / "checkpoints" / f"{name}.ckpt"
        if path.exists():
            save(path, {k: v for k, v in load(path).items() if k not in ("format", "version")} | {"run": "another"})


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


CHAIN = "x0: lol\n" + "".join(f"x{i}: '{reference * 9}'\n" for i in range(1, 9) for reference in [f"${{x{i - 1}}}"])


REFUSED = {
    "no metrics": (lambda run: (run / "metrics.jsonl").unlink(), "metrics.jsonl is damaged"),
    "half the metrics": (lambda run: (run / "metrics.jsonl").write_bytes(b'{"step": 1'), "metrics.jsonl is damaged"),
    "a text for a step": (edit("metrics.jsonl", '"step": ', '"step": "x", "y": '), "metrics.jsonl is damaged"),
    "deep metrics": (lambda run: (run / "metrics.jsonl").write_text("[" * 90_000 + "\n"), "metrics.jsonl is damaged"),
    "damaged checkpoints": (flip("last"), "no checkpoint of this run can be read"),
    "another run's checkpoints": (another_runs, "belongs to another run"),
    "a folder for a checkpoint": (taken, "last.ckpt is a folder"),
    "another net": (edit(".hydra/config.yaml", "- 256", "- 255"), "does not fit the config in"),
    "a link": (link, "run.log is a link to"),
    "a pipe for metrics": (pipe("metrics.jsonl"), "metrics.jsonl is a pipe or a device"),
    "a pipe for a checkpoint": (pipe("checkpoints/last.ckpt"), "last.ckpt is a pipe or a device"),
    "a pipe for the choices": (pipe(".hydra/hydra.yaml"), "hydra.yaml is a pipe or a device"),
    "a bomb": (lambda run: (run / ".hydra" / "config.yaml").write_text(BOMB), "*a repeats another value"),
    "a bomb of references": (
        lambda run: (run / ".hydra" / "config.yaml").write_text(CHAIN),
        "more than 100,000 values",
    ),
    "deep lists": (
        lambda run: (run / ".hydra" / "config.yaml").write_text("x: " + "[" * 60 + "]" * 60),
        "lists or mappings nested more than 50 deep",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_resume_that_is_refused_changes_nothing(case, refused, finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    spoil, said = REFUSED[case]
    spoil(tmp_path / "run")
    before = content(tmp_path / "run")
    left = ["elsewhere", "run"] if case == "a link" else ["run"]
    assert said in refused("resume=run", "trainer.epochs=2", left=left)
    assert content(tmp_path / "run") == before


def test_a_resume_on_other_data_changes_nothing(refused, finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    before = content(tmp_path / "run")
    monkeypatch.setattr("dlrun.train.state.is_same_data", lambda state, data_state: False)
    assert "the data has changed" in refused("resume=run", "trainer.epochs=2", left=["run"])
    assert content(tmp_path / "run") == before


def test_a_resume_of_a_run_in_use_is_refused(refused, finished):

    with FileLock(finished / ".lock"):
        text = refused(f"resume={finished}", "trainer.epochs=2")
    assert text.startswith(f"{finished} is in use: another process is training this run\n  wait for it, or stop it")


def test_a_run_resumes_only_with_its_number_of_processes(refused, finished, monkeypatch):
    monkeypatch.setattr("dlrun.system.launch.follow_launcher", lambda: None)
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    text = refused(f"resume={finished}", "trainer.epochs=99")
    assert "torchrun started 2 processes, but the run had one\n  expected the number that it was started with" in text


def test_resume_last_chooses_the_run_that_was_started_last(dl_run, finished, tmp_path):
    for number, name in enumerate(["b", "a"]):
        folder = copy_config(finished, tmp_path / "outputs" / "2026-01-01" / name, "dlrun.models.mlp.mlp", f"no.{name}")
        os.utime(folder / ".hydra" / "overrides.yaml", (number, number))
    assert "outputs/2026-01-01/a: model=no.a is code of the package 'no'" in dl_run("resume=last")[2]
    assert dl_run("run_dir=elsewhere", "trainer.epochs=1")[0] == 0  # outside output_dir
    assert f"resume={tmp_path / 'elsewhere'}: the run in " in dl_run("resume=last")[2]
    shutil.rmtree(tmp_path / "elsewhere")
    assert "outputs/2026-01-01/a: model=no.a is code of the package 'no'" in dl_run("resume=last")[2]
