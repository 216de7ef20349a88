"""Nothing on the way to --help, completion or a config error imports torch or another heavy package."""

import json
import subprocess
import sys
from pathlib import Path

# Runs each case of argv[1] in this process, in argv[2]; prints exit codes and the heavy packages imported by then.
PROBE = """
import importlib, io, json, os, sys
heavy = {"torch", "numpy", "polars", "sklearn", "matplotlib", "tensorboard", "PIL", "pooch", "tqdm", "requests"}
heavy |= {*sys.argv[3:]}
out, found = sys.stdout, {}
os.chdir(sys.argv[2])
for case, (module, arguments) in json.loads(sys.argv[1]).items():
    sys.argv, sys.stdout, sys.stderr = ["command", *arguments], io.StringIO(), io.StringIO()
    code = 0
    try:
        importlib.import_module(f"dlrun.{module}").main()
    except SystemExit as end:
        code = end.code or 0
    found[case] = code, sorted(heavy & sys.modules.keys())
print(json.dumps(found), file=out)
"""
COMMANDS = {"dl-runs": "runs.cli", "dl-data": "runs.data_cli"}

QUICK = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "config": (["--cfg", "job", "model=resnet18", "data=cifar10"], 0),
    "completion": (["completion", "bash", "--words", "dl-run model=", ""], 0),
    "completion of a key": (["completion", "zsh", "--words", "data=digits", "trainer.dev"], 0),
    "script for completion": (["completion", "fish"], 0),
    "completion of a shell": (["completion", "tcsh"], 2),
    "Hydra's completion": (["-sc", "install=bash"], 2),
    "schema's flag": (["schema", "-x"], 2),
    "schema of no folder": (["schema", "--config-dir", "nowhere"], 2),
    "flag": (["-x"], 2),
    "syntax": (["foo"], 2),
    "option": (["model=resnet"], 2),
    "key": (["trainer.epoch=3"], 2),
    "added key": (["+trainer.epoch=3"], 2),
    "deleted group": (["~model"], 2),
    "value": (["optimizer.lr=abc"], 2),
    "target": (["optimizer._target_=torch.load"], 2),
    "torch's own target": (["optimizer._target_=torch.optim.Adam", "+optimizer.nothing=1"], 2),
    "pairing": (["model=resnet18", "data=moons"], 2),
    "interpolation": (["trainer.epochs=${x}"], 2),
    "resume": (["resume=nowhere"], 2),
}
QUICK_RUNS = {
    "runs help": (["dl-runs", "--help"], 0),
    "runs evaluate help": (["dl-runs", "evaluate", "--help"], 0),
    "runs predict help": (["dl-runs", "predict", "--help"], 0),
    "runs list": (["dl-runs", "list", "--output-dir", "RUNS"], 0),
    "runs list sorted": (["dl-runs", "list", "model=m*", "--sort", "best", "--json", "--output-dir", "RUNS"], 0),
    "runs show": (["dl-runs", "show", "last", "--output-dir", "RUNS"], 0),
    "runs show config": (["dl-runs", "show", "RUNS/day/a", "--config"], 0),
    "runs watch": (["dl-runs", "watch", "--output-dir", "RUNS"], 0),
    "runs ui": (["dl-runs", "ui", "--output-dir", "nowhere"], 2),
    "runs completion": (["dl-runs", "completion", "bash", "--words", "show", ""], 0),
    "runs format": (["dl-runs", "export", "RUNS/day/a", "--format", "tflite"], 2),
    "runs unfinished": (["dl-runs", "evaluate", "RUNS/day/a"], 2),
    "data help": (["dl-data", "--help"], 0),
    "data list": (["dl-data", "list"], 0),
    "data name": (["dl-data", "check", "mnits"], 2),
    "data drawing": (["dl-data", "draw", "mnits"], 2),
}


def test_dl_run_imports_no_torch_for_help_and_errors(tmp_path):
    assert_light({case: ("cli", *given) for case, given in QUICK.items()}, tmp_path)


def test_dl_runs_and_dl_data_import_no_torch_for_lists_and_errors(tmp_path):
    runs, here = tmp_path / "runs", tmp_path / "here"
    (runs / "day" / "a" / ".hydra").mkdir(parents=True)
    here.mkdir()
    for name, text in {".hydra/overrides": "[]", ".hydra/config": "seed: 0"}.items():
        (runs / "day" / "a" / f"{name}.yaml").write_text(text)
    (runs / "day" / "a" / "summary.json").write_text('{"status": "stopped", "model": "mlp", "best": {"value": 0.5}}')
    cases = {}
    for case, ((command, *arguments), code) in QUICK_RUNS.items():
        cases[case] = COMMANDS[command], [argument.replace("RUNS", str(runs)) for argument in arguments], code
    assert_light(cases, here)


def test_help_and_subcommands_do_without_hydra(tmp_path):
    wanted = {"help": ["--help"], "schema": ["schema"], "completion": ["completion", "fish"], "new": ["new", "-h"]}
    assert_light({case: ("cli", words, 0) for case, words in wanted.items()}, tmp_path, heavy={"hydra", "omegaconf"})


def assert_light(cases, folder, heavy=()):
    """Run all cases in one new process: each ends with its code, and none imports a heavy package."""
    given = json.dumps({case: (module, arguments) for case, (module, arguments, _) in cases.items()})
    done = subprocess.run(
        [sys.executable, "-c", PROBE, given, str(folder), *heavy],
        env={"PATH": "", "HOME": str(folder), **python_path()},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert found == {case: [code, []] for case, (_, _, code) in cases.items()}
    assert not list(folder.iterdir())


def python_path() -> dict[str, str]:
    return {"PYTHONPATH": str(Path(__file__).parent.parent / "src")}
