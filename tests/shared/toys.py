"""Configs composed without the command line, small data, and tasks ready to learn."""

from contextlib import contextmanager
from copy import deepcopy
from functools import cache, partial
from pathlib import Path

import torch
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dlrun.clock import Clock
from dlrun.config.build import build
from dlrun.config.pairing import CONFIGS
from dlrun.config.signatures import signature, spec_names
from dlrun.optim.update import Update
from dlrun.seeds import Reseeder
from dlrun.system.device import Device
from dlrun.tasks.supervised import Supervised
from dlrun.train.assemble import settings_by_kind

CPU = torch.device("cpu")
NAMES = dict(data="digits", model="mlp", task="supervised", optimizer="adam", schedule="constant", trainer="default")
DEVICE = Device(CPU, "fp32", False, "a test")
KEYS = dict(
    loss="auto",
    label_smoothing=0.0,
    class_weights=None,
    metrics=[],
    threshold=0.5,
    l1=0.0,
    l2=0.0,
    penalise=["*"],
    grad_accum_steps=1,
    freeze=[],
    unfreeze=[],
    freeze_from=[],
    lr_multipliers=[],
    resize=[],
    mixup=0.0,
    cutmix=0.0,
    test_flip=False,
    test_shift=0,
)


def options(group: str) -> list[str]:
    return sorted(
        path.relative_to(CONFIGS / group).with_suffix("").as_posix() for path in (CONFIGS / group).rglob("*.yaml")
    )


@cache
def read(path: Path) -> dict:
    """The content of a config file. Do not change it."""
    return OmegaConf.to_container(OmegaConf.load(path), resolve=False)


GROUPS = {path.name for path in CONFIGS.iterdir() if path.is_dir()}


@cache
def chosen(*choices: str) -> tuple[DictConfig, dict]:
    """The config that Hydra composes of these choices, and the options of all groups. Do not change them."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        whole = compose("config", list(choices), return_hydra_config=True)
    return OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"]), dict(whole.hydra.runtime.choices)


def composed(*overrides: str) -> dict:
    """The config of these overrides as plain values."""
    return deepcopy(_composed(*overrides))


@cache
def _composed(*overrides: str) -> dict:
    """A combination of options is composed once (0.08 s); keys are set in a copy."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    choices = [override for override in parsed if override.key_or_group in GROUPS]
    config = deepcopy(chosen(*(override.input_line for override in choices))[0])
    OmegaConf.set_struct(config, True)
    ConfigLoaderImpl._apply_overrides_to_config([each for each in parsed if each not in choices], config)
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def names_of(*overrides: str) -> dict:
    """The options of all groups that these overrides choose."""
    return chosen(*(each for each in overrides if each.partition("=")[0] in GROUPS))[1]


def models(task: str = "supervised") -> list[str]:
    """The models whose config chooses this task."""
    return [name for name in options("model") if {"override /task": task} in read_option("model", name)["defaults"]]


def kinds(names: list[str]) -> list[str]:
    """The smallest model of each builder and task: models that differ in depth learn and resume alike."""
    first: dict[tuple, str] = {}
    for name in sorted(names, key=lambda name: (len(name), name)):
        option = read_option("model", name)
        task = next((entry["override /task"] for entry in option["defaults"] if "override /task" in entry), "")
        net = option["model"]
        first.setdefault((task, str(option.get("task")), net["_target_"], net.get("kind"), net.get("norm")), name)
    return sorted(first.values())


def read_option(group: str, option: str) -> dict:
    return read(CONFIGS / group / f"{option}.yaml")


def takes(model: str) -> list[str]:
    """The names of the specs that a model can learn from."""
    return spec_names(signature(read_option("model", model)["model"]["_target_"]).positional["spec"])


def spec_of(data: str) -> object:
    """The spec in the config of a data set; None if it is found in the data."""
    config = OmegaConf.create({"data": read_option("data", data)})
    if "spec" not in config.data:
        return None
    return build(OmegaConf.to_container(config.data.spec, resolve=True))


def section(group: str, option: str) -> dict:
    """The section of a group when this option is chosen: read from its file, if it neither builds on others nor refers
    to them (test_configs.py compares it with the composed one).
    """
    content = read_option(group, option)
    found = {key: value for key, value in content.get(group, content).items() if key != "defaults"}
    others = [each for each in content.get("defaults", ()) if each != "_self_" and "override /task" not in each]
    return composed(f"{group}={option}")[group] if others or "${" in str(found) else deepcopy(found)


@contextmanager
def seeded(seed: int = 0):
    """A fixed seed inside, the global generator unchanged outside."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def make_update(
    net: nn.Module,
    optimizer: str = "adam",
    schedule: str = "constant",
    ema: float = 0.0,
    groups=None,
    kinds=None,
    **keys,
) -> Update:
    node = section("optimizer", optimizer) | keys
    return Update(
        net,
        optimizer=build(node),
        schedule=build(section("schedule", schedule)),
        clip=(None, None, None),
        ema=ema,
        on_nan="stop",
        precision="fp32",
        groups=groups,
        kinds=settings_by_kind(node) if kinds is None else kinds,
    )


def make_task(net: nn.Module, spec: object, optimizer: str = "adam", *, task: dict | None = None, **keys) -> Supervised:
    """A supervised task as a session makes it. task: keys of the task; further keys are the optimizer's."""
    return Supervised(net, spec, DEVICE, partial(make_update, optimizer=optimizer, **keys), **KEYS | (task or {}))


def learn(task: Supervised, batch: tuple, steps: int) -> list[float]:
    """The losses of `steps` steps on one batch."""
    clock, reseed, losses = Clock(0, 1, steps), Reseeder(CPU), []
    task.net.train()
    with torch.random.fork_rng(devices=[]):
        for _ in range(steps):
            reseed(0, clock.step)
            metrics = task.step(batch, clock)
            losses += [metrics["loss"].item()] if "loss" in metrics else []  # some tasks have no loss in every step
            clock.tick(len(batch[0]))
    return losses


class Batches:
    """Data as a task sees it; the tensors are all of every split."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, spec: object, batch_size: int) -> None:
        self.x, self.y, self.spec, self.batch_size = x, y, spec, batch_size

    def size(self, split: str) -> int:
        return len(self.x)

    def batches(self, split: str, seed: int = 0, epoch: int = 0, first: int = 0):
        yield from list(zip(self.x.split(self.batch_size), self.y.split(self.batch_size), strict=True))[first:]
