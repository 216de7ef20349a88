"""Files from strangers run no code: each row of the table in SECURITY.md is tried, here or in a test named below."""

import gzip
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image as PILImage
from run_files import write_run
from runs import command
from searches import LINE, LOG, settings

from dlrun import cli
from dlrun.config import signatures
from dlrun.data.images.cache import cached
from dlrun.data.table.read import read_table
from dlrun.data.table.text import Format
from dlrun.errors import CheckpointError, DataError, UserError
from dlrun.output.checkpoint import save
from dlrun.output.checkpoints import Checkpoints
from dlrun.output.provenance import ChangesWriter, git_commit
from dlrun.runs import cli as runs_cli
from dlrun.runs.columns import importance_of
from dlrun.runs.ui.catalog import Catalog
from dlrun.runs.watch import Watch
from dlrun.stack.run import load as load_stack
from dlrun.sweep.opening import existing_sweep, new_sweep
from dlrun.sweep.search import Optuna
from dlrun.sweep.stacks import read_verdict, stack_folder
from dlrun.sweep.state import State, load_state
from dlrun.system.python import COMMAND
from dlrun.tracking.follow import follow

ROOT = Path(__file__).parents[1]
CALL = "{_target_: unittest.main.TestProgram, module: evil, exit: false}"  # imports and runs a module


class Evil:
    """Makes the folder `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Run the command in this process, where a module `evil` can be imported; it must refuse and import nothing."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # main sets it: restored after the test
    monkeypatch.setattr(signatures, "ALLOWED", frozenset())

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dl-run", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        err = capsys.readouterr().err
        assert ended.value.code == 2 and err.startswith("dl-run: ") and "Traceback" not in err, err
        assert "evil" not in sys.modules and not (tmp_path / "ran").exists() and not (tmp_path / "outputs").exists()
        return err

    return run


# --- Hydra's own section ----------------------------------------------------------------------------------------------

SHELL = "expected variables set in the shell: NAME=value dl-run ..."
KEYS = {
    "hydra.job.env_set={DL_RUN_ALLOW: unittest}": SHELL,
    "+hydra.job.env_set.LD_PRELOAD=/tmp/x.so": SHELL,
    "hydra.job.env_copy=[HOME]": SHELL,
    "hydra/env=mine": SHELL,
    "+hydra.env.x=1": SHELL,
    "hydra.searchpath=[pkg://evil]": "pkg://evil: configs would come from pkg://, which runs code\n  expected a folder",
    "hydra.searchpath=[structured://evil]": "configs would come from structured://",
    "hydra.searchpath=pkg://evil": "configs would come from pkg://",
    f"+hydra.callbacks.x={CALL}": "expected no such key: a config must not run code",
    "hydra/callbacks=mine": "expected no such key: a config must not run code",
    "hydra.launcher={_target_: evil.Launcher}": "hydra.launcher={'_target_': 'evil.Launcher'}",
    f"hydra.sweeper={CALL}": "expected sweep=grid or sweep=optuna",
    f"+hydra.sweeper.params.seed={CALL}": "expected plain values, as on the command line",
    "hydra.sweeper._target_=evil.Sweeper": "expected sweep=grid or sweep=optuna",
    "+hydra.launcher.setup=[touch ran]": "a config must not run commands",
    "+hydra.launcher.partition='a\nb'": "expected one line of text",
    "+hydra.launcher.additional_parameters={export: x}": "additional_parameters.export: expected one of: begin",
    "hydra/sweeper=basic": "expected sweep=grid or sweep=optuna",
    "hydra/job_logging=default": "expected hydra/job_logging=none",
    "+hydra.job_logging.handlers.h={class: logging.FileHandler, filename: ran}": "expected hydra/job_logging=none",
    "hydra/hydra_logging=hydra_debug": "expected hydra/hydra_logging=none",
    # harmless keys that would have no effect are refused, too
    "hydra.run.dir=x": "expected run_dir=FOLDER",
    "hydra.sweep.dir=x": "expected output_dir=FOLDER",
    "hydra.sweep.subdir=x": "expected output_dir=FOLDER",
    "hydra.output_subdir=x": "expected run_dir=FOLDER",
    "hydra/output=mine": "expected run_dir=FOLDER",
    "hydra.job.chdir=true": "expected dl-run to be started in that folder",
    "hydra.job.name=x": "expected run_dir=FOLDER for a run's name",
    "hydra.job.num=3": "dl-run numbers and names the jobs",
    "hydra.job.id=x": "dl-run numbers and names the jobs",
    "hydra.job.config.override_dirname.kv_sep=:": "dl-run numbers and names the jobs",
    "hydra.verbose=true": "run.log has everything",
    "hydra.runtime.cwd=/": "Hydra writes it",
    "+hydra.runtime.choices.data=x": "Hydra writes it",
    "hydra.overrides.task=[x]": "Hydra writes it",
    "hydra/help=default": "expected dl-run --help",
    "hydra.hydra_help.template=x": "expected dl-run --help",
    "+hydra.anything=1": "hydra has no 'anything'",
    "++hydra.serchpath=[x]": "hydra has no 'serchpath'; did you mean 'searchpath'?",
    "~hydra.job": "dl-run does not support this Hydra key",
    "~hydra.mode": "hydra.mode",
}


@pytest.mark.parametrize("key", KEYS)
def test_hydras_keys_on_the_command_line_are_refused(refused, key):
    assert KEYS[key] in refused(key, *(["-m", "seed=0,1"] if len(key) % 2 else []))


FILES = {
    "job: {env_set: {DL_RUN_ALLOW: unittest}}": ("hydra.job.env_set={'DL_RUN_ALLOW': 'unittest'}", SHELL),
    "job: {env_copy: [HOME]}": ("hydra.job.env_copy=['HOME']", SHELL),
    f"callbacks: {{x: {CALL}}}": ("hydra.callbacks={'x': {'_target_': ", "a config must not run code"),
    "launcher: {_target_: evil.Launcher}": (
        "hydra.launcher={",
        "expected one of basic, submitit_local, submitit_slurm",
    ),
    f"sweeper: {{params: {{seed: {CALL}}}}}": ("hydra.sweeper.params={'seed': ", "as on the command line"),
    "sweeper: {params: {seed: '${optimizer}'}}": ("hydra.sweeper.params={'seed': ", "as on the command line"),
    "launcher: {_target_: '${seed}'}": ("hydra.launcher={'_target_': '${seed}'}", "expected one of basic"),
    "sweeper: {_target_: evil.Sweeper}": ("hydra.sweeper={", "expected sweep=grid or sweep=optuna"),
    "searchpath: ['pkg://evil']": ("hydra.searchpath is only supported from the primary config",),
    "run: {dir: ran}": ("hydra.run.dir=ran", "expected run_dir=FOLDER"),
    "sweep: {dir: ran}": ("hydra.sweep.dir=ran", "expected output_dir=FOLDER"),
    "output_subdir: x": ("hydra.output_subdir=x", "expected run_dir=FOLDER"),
    "help: {template: x}": ("hydra.help.template=x", "expected dl-run --help"),
    "hydra_help: {hydra_help: x}": ("hydra.hydra_help.hydra_help=x", "expected dl-run --help"),
    "job: {name: x}": ("hydra.job.name=x", "expected run_dir=FOLDER"),
    "verbose: true": ("hydra.verbose=True", "run.log has everything"),
    "runtime: {output_dir: x}": ("hydra.runtime.output_dir=x", "Hydra writes it"),
    "hydra_logging: {root: {level: INFO}}": ("hydra.hydra_logging.root=", "expected hydra/hydra_logging=none"),
}


@pytest.mark.thorough(
    but=[
        "job: {env_set: {DL_RUN_ALLOW: unittest}}",
        "callbacks: {x: {_target_: unittest.main.TestProgram, module: evil, exit: false}}",
        "launcher: {_target_: evil.Launcher}",
        "sweeper: {_target_: evil.Sweeper}",
        "searchpath: ['pkg://evil']",
        "run: {dir: ran}",
        "help: {template: x}",
        "job: {name: x}",
    ]
)
@pytest.mark.parametrize("text", FILES)
def test_hydras_keys_in_a_file_are_refused(refused, tmp_path, text):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "bad.yaml").write_text(f"# @package _global_\nhydra: {{{text}}}\n")
    err = refused("--config-dir=mine", "experiment=bad", *(["-m", "seed=0,1"] if "param" in text else []))
    assert all(part in err for part in FILES[text]), err


def test_values_for_a_clusters_script_are_single_lines(refused):
    """Also if an interpolation inserts it."""
    given = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=${output_dir}", "output_dir='a\nb'"]
    assert "hydra.launcher.partition='a\\nb': expected one line of text" in refused("-m", "seed=0,1", *given)


def test_a_file_cannot_reach_hydras_section_another_way(refused, tmp_path):
    """By its package, by a group of Hydra's, by its schema, or as the primary config."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    bad = tmp_path / "mine" / "experiment" / "bad.yaml"
    bad.write_text("# @package hydra.job.env_set\nDL_RUN_ALLOW: unittest\n")
    assert SHELL in refused("--config-dir=mine", "experiment=bad")
    bad.write_text("DL_RUN_ALLOW: unittest\n")
    assert SHELL in refused("--config-dir=mine", "+experiment@hydra.job.env_set=bad")
    (tmp_path / "mine" / "hydra").mkdir()
    for name in ("env/default", "output/default", "config"):
        path = tmp_path / "mine" / "hydra" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("# @package hydra.job.env_set\nDL_RUN_ALLOW: unittest\n")
        refused("--config-dir=mine", "--config-name=first")
        path.unlink()
    first = (cli.CONFIGS / "config.yaml").read_text() + "  searchpath: ['pkg://evil']\n"
    (tmp_path / "mine" / "first.yaml").write_text(first)
    assert "pkg://evil" in refused("--config-dir=mine", "--config-name=first")


FLAGS = {
    "--experimental-rerun=evil.pkl": "which can run any code",
    "--exp=evil.pkl": "which can run any code",
    "-- --experimental-rerun=evil.pkl": "which can run any code",
    "--config-path=pkg://evil": "configs would come from pkg://",
    "--config-path=configs": "expected an absolute path",
    "--config-dir=pkg://evil": "configs would come from pkg://",
    "--hydra-help": "expected dl-run --help",
    "--package model": "expected dl-run --cfg job --package model",
    "--resolve": "expected dl-run --cfg job --resolve",
    "--cfg job -m": "Only one of",
    "-m hydra.mode=RUN": "expected only one of the two",
    "--shell-completion": "--shell-completion is Hydra's",
    "--config-name=other": "there is no config 'other'",
    "--info=x": "invalid choice",
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_of_hydra_that_run_code_are_refused(refused, flags):
    text = refused(*flags.split())
    assert FLAGS[flags] in text or "after --: expected overrides" in text  # Python 3.14 does not read it as a flag


# --- what a config may name -------------------------------------------------------------------------------------------


PLAIN = "no object is built here; expected values without _target_"


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (f"++optimizer={{_target_: torch.optim.SGD, lr: {CALL}}}", PLAIN),
        (f"optimizer.lr={CALL}", PLAIN),
        (f"+optimizer.params=[{CALL}]", "has no 'params'"),
        (f"++data.spec.labels=[{CALL}]", PLAIN),
        (f"model.hidden=[{CALL}]", PLAIN),
        (f"++model={CALL}", "is not allowed here"),
    ],
)
def test_no_object_is_built_where_a_config_expects_values(refused, override, expected):
    assert expected in refused(override)


def test_packages_are_allowed_only_by_the_environment_at_the_start(refused, monkeypatch):
    monkeypatch.setenv("DL_RUN_ALLOW", "unittest")  # too late
    assert "is not allowed here" in refused(f"++data.source={CALL}")
    code = "from dlrun.config.signatures import ALLOWED; print(sorted(ALLOWED))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "['unittest']\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x: !!python/object/apply:os.system ['touch ran']", "cannot read the run's config"),
        ("data_dir: '${oc.env:HOME}'", "does more than refer to another key"),
        ("data_dir: '${oc.create:{a: 1}}'", "does more than refer to another key"),
        ("data_dir: '${${oc.env:HOME}}'", "does more than refer to another key"),
    ],
)
def test_the_config_of_a_strangers_run_is_data_only(refused, tmp_path, text, expected):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {}}}\n")
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text(f"{text}\n")
    assert expected in refused("resume=run")


@pytest.mark.parametrize("text", ["trainer: [1]", "trainer: 5", "data: {root: a, _target_: [x]}", "data: x"])
def test_a_malformed_config_of_a_strangers_run_is_refused(refused, tmp_path, text):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {}}}\n")
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text(f"{text}\n")
    assert "expected" in refused("resume=run", "trainer.epochs=1", "data.root=x")


@pytest.mark.parametrize("name", ["run.log", "metrics.jsonl", ".lock", ".hydra"])
def test_a_strangers_run_folder_cannot_redirect_writes(refused, tmp_path, name):
    for folder in ("run", "other"):
        (tmp_path / folder / ".hydra").mkdir(parents=True)
    for file in ("hydra.yaml", "config.yaml"):
        (tmp_path / "run" / ".hydra" / file).write_text("hydra: {runtime: {choices: {}}}\n")
    if name == ".hydra":
        (tmp_path / "run" / ".hydra").rename(tmp_path / "other" / ".hydra")
    (tmp_path / "run" / name).symlink_to(tmp_path / "other" / name)
    assert f"run/{name} is a link to {tmp_path}/other/{name}" in refused("resume=run")
    assert {path.name for path in (tmp_path / "other").iterdir()} == {".hydra"}


def test_postscript_named_as_an_image_is_not_run(tmp_path):
    """Pillow would hand a PostScript file to Ghostscript, whatever its name."""
    from PIL import Image

    from dlrun.data.images.decode import read

    Image.new("RGB", (8, 8)).save(tmp_path / "x.eps")
    (tmp_path / "x.eps").rename(tmp_path / "x.png")
    assert "cannot identify image file" in read(tmp_path / "x.png", (3, 8, 8), "cover")


@pytest.mark.parametrize("package", ["dlrun.models", "mynets"])
def test_a_path_in_a_target_leads_out_of_no_package(refused, tmp_path, monkeypatch, package):
    """The types of a target's arguments are evaluated, so its file must be in its package."""
    from dlrun.config import consent
    from dlrun.config.signatures import signature

    (tmp_path / "mynets").mkdir()
    (tmp_path / "mynets" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(consent, "allowed", {"mynets"})
    (tmp_path / "evil.py").write_text("def f(spec, *, root: open('ran', 'w')): ...\n")
    for path in (f"{tmp_path}/evil", "/proc/self/cwd/evil"):
        with pytest.raises(UserError, match="there is no module"):
            signature(f"{package}.{path}.f")
    assert "_target_" in refused(f"++model={{_target_: '{package}./proc/self/cwd/evil.f'}}")
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {}}}\n")
    target = f"{{root: x, _target_: '{package}./proc/self/cwd/evil.f'}}"
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text(f"data: {target}\n")
    refused("resume=run", "data.root=y")


# --- sweeps -----------------------------------------------------------------------------------------------------------


def stored(folder: Path, **facts: object) -> Path:
    """The folder of a sweep with these facts."""
    (folder / "sweep").mkdir()
    command = {"command": ["seed=0,1"], "flags": [], "arguments": ["seed=0,1"], "configs": ""} | facts
    State.new(folder / "sweep", command, [], 2, []).save()
    return folder / "sweep"


STORED = {
    "env": ({"command": ["hydra.job.env_set={DL_RUN_ALLOW: unittest}", "seed=0,1"]}, SHELL),
    "searchpath": ({"command": ["hydra.searchpath=[pkg://evil]", "seed=0,1"]}, "configs would come from pkg://"),
    "target": ({"command": [f"+optimizer.lr={CALL}", "seed=0,1"]}, ""),
    "pickle": ({"flags": ["--experimental-rerun=evil.pkl"]}, "is not an argument of dl-run"),
    "flag": ({"command": ["--experimental-rerun=evil.pkl", "seed=0,1"]}, "is not an argument of dl-run"),
    "dashes": ({"command": ["--", "--experimental-rerun=evil.pkl"]}, "is not an argument of dl-run"),
    "package": ({"flags": ["--config-path=pkg://evil"]}, "configs would come from pkg://"),
    "redis": (
        {"command": ["sweep=optuna", "sweep.storage='redis://localhost'", "seed=0,1"]},
        "redis:// could run code",
    ),
}


@pytest.mark.parametrize("key", ["sweep.resume", "sweep.join"])
@pytest.mark.parametrize("kind", STORED)
def test_the_command_in_a_sweeps_folder_is_checked(refused, tmp_path, kind, key):
    facts, text = STORED[kind]
    (stored(tmp_path, **facts) / "base.json").write_text("{}")
    assert text in refused("-m", f"{key}=sweep")


def test_the_command_in_a_database_is_checked(refused, tmp_path):
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/x.db", study_name="x")
    facts = {"started": "2", "cwd": "/", "configs": "", "command": [], "flags": [], "arguments": [], "total": 2}
    for name, value, text in (
        ("flags", ["--experimental-rerun=evil.pkl"], "is not an argument of dl-run"),
        ("command", ["hydra.job.env_set={A: b}"], SHELL),
        ("command", [1], "the study there is damaged"),
        ("cwd", 3, "the study there is damaged: cwd: unexpected type int"),
    ):
        study.set_user_attr("dl-run", facts | {name: value})
        assert text in refused("-m", f"sweep.join=sqlite:///{tmp_path}/x.db")


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost/0",
        "mysql://u:secret@h/x?read_default_file=evil.cnf",
        "evil+x://h",
        "mysql://h/x?plugin_dir=x",
    ],
)
def test_databases_that_could_run_code_are_refused(url):
    with pytest.raises(UserError, match="could run code\n  expected one of sqlite, postgresql, mysql") as error:
        Optuna(settings(storage=url), [LOG], 3)
    assert "secret" not in str(error.value)


def test_a_search_reads_no_pickle_from_its_history(tmp_path):
    """CMA-ES adapts its points, stores no state in the journal, and loads none."""
    chosen, files = settings(trials=20, sampler="cmaes", goal="x", direction="min"), {"multirun.yaml": "", "base": {}}
    command, points = {"command": [], "flags": [], "arguments": [], "configs": ""}, []

    def run(state: State, num: int) -> None:
        plan = Optuna(chosen, [LOG, LINE], 3)
        plan.open(state)
        for _ in range(num):
            job = plan.more(state)
            points.append(float(job.overrides[1].partition("=")[2]))
            job.status, job.values = "finished", {"x": (points[-1] - 0.4) ** 2}
            plan.tell(job, tmp_path)

    with new_sweep(tmp_path, chosen, command, [], files) as state:
        run(state, 14)
        state.save()
    assert abs(sum(points[-6:]) / 6 - 0.4) < abs(sum(points[:6]) / 6 - 0.4), "it has learned"
    journal = state.folder / "optuna.journal"
    lines = journal.read_text().splitlines()
    assert "cma:generation" in journal.read_text() and "cma:optimizer" not in journal.read_text()
    evil = {"system_attr": {"cma:optimizer:0": pickle.dumps(Evil(tmp_path / "ran")).hex()}}
    for i in [i for i, line in enumerate(lines) if "cma:generation" in line][::-1]:
        lines.insert(i, json.dumps(json.loads(lines[i]) | evil))
    journal.write_text("\n".join(lines) + "\n")
    with existing_sweep(state.folder, chosen, lambda state, how: None) as state:
        run(state, 2)
    assert not (tmp_path / "ran").exists()


def test_a_cluster_reads_no_result_from_before_it_started(tmp_path):
    """submitit reads results as pickles, from a folder that has its job's number."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    from dlrun.sweep.cluster import Cluster

    launcher = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.LocalLauncher"}
    folders = {Cluster(launcher | {"submitit_folder": "x"}, tmp_path).executor.folder for _ in range(2)}
    assert len(folders) == 2 and all(tmp_path / "submitit" in Path(folder).parents for folder in folders)


# --- the working folder -----------------------------------------------------------------------------------------------


@pytest.fixture
def trap(tmp_path):
    """A folder with modules that leave a trace when they are imported, named as those that dl-run and Python import."""
    (tmp_path / "trap" / "hydra_plugins").mkdir(parents=True)
    names = "numpy torch signal multiprocessing logging hydra yaml argparse PIL json sitecustomize usercustomize"
    for name in ("hydra_plugins/evil", *names.split()):
        (tmp_path / "trap" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} ')\n")
    (tmp_path / "trap" / "evil.pth").write_text("import numpy\n")
    return tmp_path / "trap"


def left(trap: Path, command: list[str]) -> str:
    """The modules of the trap that the command imported."""
    env = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run([sys.executable, *command], cwd=trap, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return (trap.parent / "ran").read_text() if (trap.parent / "ran").exists() else ""


@pytest.mark.parametrize("start", [["-m", "dlrun"], COMMAND])
def test_modules_in_the_working_folder_are_not_imported(trap, start):
    assert left(trap, [*start, "--cfg", "job"]) == ""


RUNS = {
    "run": ["model=linear", "data=moons", "trainer.epochs=1"],
    "processes": ["model=linear", "data=moons", "trainer.epochs=1", "trainer.processes=2"],
    "sweep": ["-m", "model=linear", "data=moons", "trainer.epochs=1", "seed=0,1", "sweep.jobs=2"],
    "cluster": ["-m", "hydra/launcher=submitit_local", "model=linear", "data=moons", "trainer.epochs=1", "seed=0,1"],
    "a3c": ["model=a3c", "trainer.epochs=1", "task.workers=2", "trainer.max_steps=4"],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", RUNS)
def test_processes_import_nothing_from_the_working_folder(trap, kind):
    assert left(trap, [*COMMAND, *RUNS[kind]]) == ""


def test_git_runs_nothing_from_a_strangers_repository(tmp_path, monkeypatch):
    """Plain git would run monitors, hooks and filters to find changes."""
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("a")
    Path(".gitattributes").write_text("* filter=evil\n")

    def git(*words: str) -> None:
        subprocess.run(["git", *words], check=True, capture_output=True)

    git("init", "-q")
    git("add", "-A")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x")
    Path("text").write_text("b")
    os.utime("text", (1, 1))
    assert git_commit().endswith("+")
    hook = Path(".git/hooks/post-index-change")
    hook.parent.mkdir(exist_ok=True)
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    hook.chmod(0o755)
    git("config", "core.fsmonitor", f"touch {tmp_path}/ran; false")
    os.utime("text", (2, 2))
    assert git_commit().endswith("+") and not Path("ran").exists()
    for name in ("diff.external", "diff.evil.textconv", "diff.evil.command", "core.pager", "pager.diff"):
        git("config", name, f"touch {tmp_path}/ran; cat")
    Path(".git/info").mkdir(exist_ok=True)
    Path(".git/info/attributes").write_text("* diff=evil\n")
    changes = ChangesWriter(tmp_path)
    changes.run()
    assert "\n+b" in (tmp_path / "changes.patch").read_text() and not Path("ran").exists()
    git("config", "filter.evil.clean", f"touch {tmp_path}/ran; cat")
    os.utime("text", (3, 3))
    assert git_commit().endswith("?") and not Path("ran").exists()
    git("config", "--unset", "filter.evil.clean")
    git("config", "extensions.worktreeConfig", "true")  # a second file of settings
    git("config", "--worktree", "filter.evil.clean", f"touch {tmp_path}/ran; cat")
    os.utime("text", (4, 4))
    assert git_commit().endswith("?") and not Path("ran").exists()


# --- files that are read ----------------------------------------------------------------------------------------------


def hostile(trace: Path) -> np.ndarray:
    """An array whose element runs code when it is unpickled."""
    return np.array([Evil(trace)], object)


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.parquet", "x.csv.gz"])
def test_a_pickle_named_as_a_table_is_refused(name, tmp_path):
    content = pickle.dumps(Evil(tmp_path / "ran"))
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    with pytest.raises(DataError, match="it holds zero bytes\n  expected a CSV or TSV file"):
        read_table(tmp_path / name, Format())
    assert not (tmp_path / "ran").exists()


def test_pickles_in_a_table_stay_bytes(tmp_path):
    content = pickle.dumps(Evil(tmp_path / "ran"))
    pl.DataFrame({"a": [content, content], "y": [1, 2]}).write_parquet(tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet", Format())[0]["a"].to_list() == [content, content]
    assert not (tmp_path / "ran").exists()


def test_a_cache_of_images_with_objects_is_refused(tmp_path):
    (tmp_path / "photos").mkdir()
    PILImage.new("L", (8, 8)).save(tmp_path / "photos" / "a.png")
    arguments = tmp_path / "photos", ["a.png"], ((1, 8, 8), "cover", 10**6), tmp_path
    np.save(cached(*arguments).path, hostile(tmp_path / "ran"), allow_pickle=True)
    with pytest.raises(DataError, match="damaged"):
        cached(*arguments)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", ["pickle", "[]", '{"worse_by": {"age": {"mean": "__import__(\'os\')"}}}'])
def test_importances_that_are_not_numbers_are_ignored(content, tmp_path):
    found = pickle.dumps(Evil(tmp_path / "ran")) if content == "pickle" else content.encode()
    (tmp_path / "importance.json").write_bytes(found)
    assert importance_of(tmp_path) == {} and not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content", ["pickle", "[]", "{}", '{"steps": {"val/loss": "all"}, "key": null, "ended": [], "place": {}}']
)
def test_the_position_of_a_tracker_is_data(content, tmp_path):
    """The process of the tracker fails, which costs the run one line."""
    folder = write_run(tmp_path / "run", 2)
    (folder / "tracking").mkdir()
    found = pickle.dumps(Evil(tmp_path / "ran")) if content == "pickle" else content.encode()
    (folder / "tracking" / "fake.json").write_bytes(found)
    with pytest.raises((ValueError, TypeError)):
        follow(folder, "fake", None, {"output_dir": ".", "seed": 3, "tracker": {"fake": {}}})
    assert not (tmp_path / "ran").exists()


def test_the_stacks_of_a_strangers_sweep_are_data(tmp_path):
    """A verdict that is none is ignored; checkpoints with code or of other jobs, and links, are refused."""
    sweep = stored(tmp_path)
    state, folder = load_state(sweep), sweep / "stacks" / "0"
    folder.mkdir(parents=True)
    for content in (pickle.dumps(Evil(tmp_path / "ran")), b"[]", b'{"gain": "os", "why": null, "is_too_large": 0}'):
        (sweep / "stacks" / "0.json").write_bytes(content)
        assert read_verdict(sweep, 0) is None
    save(folder / "last.ckpt", {"jobs": {"0": Evil(tmp_path / "ran")}, "run": state.facts["id"]})
    with pytest.raises(CheckpointError, match="was not written by dl-run and is not loaded"):
        load_stack(Checkpoints(folder), state)
    save(folder / "last.ckpt", {"jobs": {"7": {}}, "run": state.facts["id"]})
    with pytest.raises(CheckpointError, match="is not of this sweep"):
        load_stack(Checkpoints(folder), state)
    assert not (tmp_path / "ran").exists()
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of the folder"):
        stack_folder(sweep, 0)


# written for people and for programs that serve a model
WRITTEN_ONLY = ("encoding.json", "path.csv", "environment.txt", "changes.patch")


def test_files_for_people_are_never_read(dl_run, finished, tmp_path, monkeypatch, capsys):
    """Every file that a resumed run, its report and its evaluation open for reading is recorded."""
    opened: list[str] | None = []

    def record(event: str, arguments: tuple) -> None:
        if event == "open" and opened is not None and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            opened.append(os.path.basename(str(arguments[0])))

    shutil.copytree(finished, tmp_path / "run")
    for name in WRITTEN_ONLY:
        (tmp_path / "run" / name).write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    dl_runs = command(monkeypatch, capsys, runs_cli.main, "dl-runs")
    sys.addaudithook(record)
    try:
        for verb in ("show", "evaluate", "report"):
            assert dl_runs(verb, "run")[0] == 0, verb
        assert dl_run("resume=run", "trainer.epochs=2")[0] == 0
        read = set(opened)
    finally:
        opened = None  # an audit hook cannot be removed
    assert {"summary.json", "metrics.jsonl", "config.yaml"} <= read, "the record works"
    assert not read & set(WRITTEN_ONLY) and not (tmp_path / "ran").exists()


# --- pipes ------------------------------------------------------------------------------------------------------------

PIPES = [
    ".lock", "summary.json", "metrics.jsonl", "run.log", ".hydra/config.yaml", ".hydra/overrides.yaml", "sweep.json",
    "base.json", "plots/loss.png", "plots/classes.txt", "environment.txt", "logs/0.log",
]  # fmt: skip


def late(number, frame):
    pytest.fail("it waits for a writer")


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_in_a_strangers_run_stops_no_view(name, tmp_path, monkeypatch, capsys):
    """Whoever opens a pipe waits for its writer, which may never come. Only the config decides what a folder is."""
    shown = 2 if name == ".hydra/config.yaml" else 0
    folder = write_run(tmp_path / "outputs" / "2026-01-01" / "one", status="running")
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    dl_runs = command(monkeypatch, capsys, runs_cli.main, "dl-runs")
    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    try:
        assert dl_runs("list", "--output-dir", tmp_path / "outputs")[0] == 0
        assert dl_runs("show", folder)[0] == shown
        assert dl_runs("report", folder)[0] == 2  # it is not finished
        view = Watch("", lambda: [folder])
        view.read()
        assert view.lines(80, 24)
        assert "finished" not in str(Catalog(tmp_path / "outputs").changes(0))
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# --- the table in SECURITY.md -----------------------------------------------------------------------------------------

TRIED = {  # by the beginning of its first cell: the tests of a row
    "YAML of `--config-dir`": [
        "test_security::hydras_keys_in_a_file_are_refused",
        "test_security::a_file_cannot_reach_hydras_section_another_way",
        "test_signatures::a_target_outside_the_allow_list_is_refused",
    ],
    "a run's `.hydra/*.yaml`": [
        "test_security::the_config_of_a_strangers_run_is_data_only",
        "test_saved::the_config_of_a_strangers_run_does_not_read_the_environment",
    ],
    "a sweep's `sweep.json`": [
        "test_security::the_command_in_a_sweeps_folder_is_checked",
        "test_security::the_command_in_a_database_is_checked",
    ],
    "a sweep's `stacks/*.json`": ["test_security::the_stacks_of_a_strangers_sweep_are_data"],
    "`optuna.journal`": [
        "test_security::a_search_reads_no_pickle_from_its_history",
        "test_security::databases_that_could_run_code_are_refused",
    ],
    "`*.ckpt`": [
        "test_checkpoint::a_checkpoint_cannot_run_code",
        "test_state::an_edited_checkpoint_with_a_valid_hash_is_refused",
        "test_weights::files_without_weights_are_refused",
    ],
    "`metrics.jsonl`": [
        "test_security::importances_that_are_not_numbers_are_ignored",
        "test_run_folder::a_damaged_line_of_metrics_is_reported",
        "test_dl_runs::damaged_runs_are_reported",
        "test_terminal::no_run_folder_can_control_the_terminal",
    ],
    "tables (`data.file`": [
        "test_security::a_pickle_named_as_a_table_is_refused",
        "test_security::pickles_in_a_table_stay_bytes",
    ],
    "`encoding.json`": ["test_security::files_for_people_are_never_read"],
    "`dl-run.yaml`": ["test_own::a_file_in_the_working_folder_is_ignored_until_it_is_trusted"],
    "`*.dist-info/entry_points.txt`": [
        "test_own::an_installed_plugin_adds_options_and_allowed_code",
        "test_own::the_working_folder_registers_nothing",
    ],
    "`tracking/*.json`": ["test_security::the_position_of_a_tracker_is_data"],
    "IDX, CIFAR records": [
        "test_security::a_cache_of_images_with_objects_is_refused",
        "test_text::a_cache_with_objects_is_refused",
        "test_readers::damaged_idx_files_are_refused",
    ],
    "`.npz`, `.npy`": ["test_arrays::files_that_hold_no_arrays_are_refused"],
    "CIFAR in Python's form": [
        "test_readers::a_hostile_pickle_runs_nothing",
        "test_readers::a_pickle_cannot_ask_for_uninitialised_memory",
        "test_text::bad_keras_files_are_named",
    ],
    "images": ["test_security::postscript_named_as_an_image_is_not_run"],
    "archives": [
        "test_sources::unsafe_archives_leave_nothing",
        "test_sources::zips_with_links_and_truncated_archives_are_refused",
    ],
    "the working folder": [
        "test_security::modules_in_the_working_folder_are_not_imported",
        "test_security::git_runs_nothing_from_a_strangers_repository",
    ],
}


def test_every_row_of_the_table_names_its_tests():
    table = (ROOT / "SECURITY.md").read_text(encoding="utf-8").partition("| file | read by")[2].partition("\n\n")[0]
    rows = [line[2:] for line in table.splitlines()[2:]]
    assert len(rows) == len(TRIED) and all(row.startswith(start) for row, start in zip(rows, TRIED, strict=True))
    texts = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}
    named = [test.split("::") for tests in TRIED.values() for test in tests]
    missing = [f"{file}::{name}" for file, name in named if f"\ndef test_{name}(" not in texts.get(file, "")]
    assert not missing
