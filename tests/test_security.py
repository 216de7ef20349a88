"""Every door by which a file of a stranger's could run code (SECURITY.md): each is tried, and none opens."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from searches import LINE, LOG, settings

from dlrun import cli
from dlrun.config import signatures
from dlrun.errors import UserError
from dlrun.output.provenance import ChangesWriter, git_commit
from dlrun.sweep.opening import existing_sweep, new_sweep
from dlrun.sweep.search import Optuna
from dlrun.sweep.state import State
from dlrun.system.python import COMMAND

CALL = "{_target_: unittest.main.TestProgram, module: evil, exit: false}"  # imports and runs a module


@pytest.fixture
def refused(monkeypatch, capsys, tmp_path):
    """Run the command in this process, where a module `evil` can be imported: it must refuse, and leave no trace."""
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
    # of those that do no harm, none does nothing in silence
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


@pytest.mark.parametrize("text", FILES)
def test_hydras_keys_in_a_file_are_refused(refused, tmp_path, text):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "bad.yaml").write_text(f"# @package _global_\nhydra: {{{text}}}\n")
    err = refused("--config-dir=mine", "experiment=bad", *(["-m", "seed=0,1"] if "param" in text else []))
    assert all(part in err for part in FILES[text]), err


def test_values_for_a_clusters_script_are_single_lines(refused):
    """Also where an interpolation brings it from elsewhere."""
    given = ["hydra/launcher=submitit_slurm", "hydra.launcher.partition=${output_dir}", "output_dir='a\nb'"]
    assert "hydra.launcher.partition='a\\nb': expected one line of text" in refused("-m", "seed=0,1", *given)


def test_a_file_cannot_reach_hydras_section_another_way(refused, tmp_path):
    """By its package, by a group of Hydra's own, by its schema, as the first config of all."""
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
    "--shell-completion": "Expecting one subcommand",
    "--config-name=other": "there is no config 'other'",
    "--info=x": "invalid choice",
}


@pytest.mark.parametrize("flags", FLAGS)
def test_flags_of_hydra_that_run_code_are_refused(refused, flags):
    text = refused(*flags.split())
    assert FLAGS[flags] in text or "after --: expected overrides" in text  # Python 3.14 does not read it as a flag


# --- what a config may name -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "override",
    [
        f"++optimizer={{_target_: torch.optim.SGD, lr: {CALL}}}",
        f"++optimizer={{_target_: torch.optim.SGD, params: [{CALL}]}}",
        f"++data.spec.names=[{CALL}]",
        f"model.hidden=[{CALL}]",
        f"++model={CALL}",
    ],
)
def test_no_object_is_built_where_a_config_expects_values(refused, override):
    text = refused(override)
    assert "no object is built here" in text or "is not allowed here" in text or "has no " in text or "a list" in text


def test_packages_are_allowed_only_by_the_environment_at_the_start(refused, monkeypatch):
    monkeypatch.setenv("DL_RUN_ALLOW", "unittest")  # too late
    assert "is not allowed here" in refused(f"++data.source={CALL}")
    code = "from dlrun.config.signatures import ALLOWED; print(sorted(ALLOWED))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "['unittest']\n"


@pytest.mark.parametrize(
    "text",
    ["!!python/object/apply:os.system ['touch ran']", "${oc.env:HOME}", "${oc.create:{a: 1}}", "${${oc.env:HOME}}"],
)
def test_the_config_of_a_strangers_run_is_data_only(refused, tmp_path, text):
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "hydra.yaml").write_text("hydra: {runtime: {choices: {}}}\n")
    (tmp_path / "run" / ".hydra" / "config.yaml").write_text(f"data_dir: {text!r}\n" if "$" in text else f"x: {text}\n")
    message = refused("resume=run")
    assert "does more than refer to another key" in message or "cannot read the run's config" in message


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

    from dlrun.data.decode import read

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
    monkeypatch.setattr(consent, "said", {"mynets"})
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
    """The folder of a sweep with such facts."""
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


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_search_reads_no_pickle_from_its_history(tmp_path):
    """CMA-ES asks for other points as it learns, keeps none of its state in the journal, and loads none."""
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
    """What the command imported of the trap."""
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
    """It would for the plus that stands for changes: a monitor of files, hooks, filters."""
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
    assert len(git_commit()) == 40 and not Path("ran").exists()
