"""The text of --help, with the groups and options, which are listed quickly from the config folders."""

import os
import sys
from pathlib import Path

from dlrun.config.consent import option_folders
from dlrun.config.pairing import CONFIGS
from dlrun.errors import columns, listed

USAGE = """dl-run: deep-learning experiments, composed from YAML and resumed bit for bit

  dl-run [group=option ...] [key=value ...]

  dl-run                                  mlp on digits: seconds, no download
  dl-run model=lenet data=mnist trainer.epochs=10
  dl-run model=resnet18 data=cifar10 optimizer=sgd schedule=cosine
  dl-run -m model=mlp,linear seed=0,1,2   sweep: all combinations, with a table
  dl-run model=mlp data=moons seeds=32    32 seeds at once: mean and band
  dl-run -m sweep=optuna 'optimizer.lr=tag(log,interval(1e-4,1e-1))'
                                          a search with Optuna
  dl-run mode=summary model=resnet18 data=cifar10
                                          layers: shapes, parameters, costs
  dl-run resume=last                      resume the newest run
  dl-run -m sweep.resume=last             resume the newest sweep
  dl-run -m sweep.join=last               help with it, from another machine
  dl-run schema --vscode                  let the editor complete and check YAML
  dl-run new mynets                       write a package of your own
  dl-run trust                            read this folder's dl-run.yaml
  eval "$(dl-run completion bash)"        let bash, zsh or fish complete words

groups and their options (group=option)
{groups}

keys (key=value)
  dl-run --cfg job                          print all keys and values
  dl-run model=resnet18 --cfg job -p model  show those of one section

mode=find_lr, find_batch or time measure a learning rate, a batch size, a step

flags
  -m, --multirun        a sweep over several values: optimizer.lr=0.1,0.01
  -c, --cfg job         show the config, run nothing; with --resolve resolved
  -p, --package NAME    with --cfg: only this section
  -cd, --config-dir DIR more options, from your own folder:
                        DIR/model/mine.yaml is model=mine
  --json                print one line of JSON at the end: folder, status,
                        exit code, metrics; all else on standard error
  -h, --help; --version"""

FIRST = ("data", "model", "trainer", "task", "optimizer", "schedule", "experiment")


def usage(config_dir: str | None = None) -> str:
    """Return the text of --help."""
    width, names = columns(sys.stdout, 110), group_names(config_dir)
    groups = [listed(f"  {name:<11} ", options(name, config_dir), 14, width) for name in names]
    return USAGE.replace("{groups}", "\n".join(groups))


def folders_of(config_dir: str | None) -> list[Path]:
    """Return the folders that hold config groups: the project's, those of plugins, and the user's."""
    return [CONFIGS, *option_folders(), *([Path(config_dir)] if config_dir else [])]


def group_names(config_dir: str | None = None) -> list[str]:
    """List the groups, with those that users learn first at the front."""
    folders = [path for base in folders_of(config_dir) if os.path.isdir(base) for path in base.iterdir()]
    names = {path.name for path in folders if any(path.glob("*.yaml"))} - {"tuned", "hydra"}
    first = [name for name in FIRST if name in names]
    return first + sorted(names - set(first))


def options(group: str, config_dir: str | None = None) -> list[str]:
    """List the options of a group."""
    folders = [base / group for base in folders_of(config_dir)]
    files = [path for folder in folders if os.path.isdir(folder) for path in folder.glob("*.yaml")]  # too long is none
    return sorted({path.stem for path in files})
