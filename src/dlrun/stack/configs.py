"""The configs of a stack's jobs, made from that of the first job, and the settings of their sweep."""

import sys
from collections.abc import Sequence
from textwrap import indent
from typing import NamedTuple, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from dlrun.config.auto import auto_keys, value_of
from dlrun.config.build import build
from dlrun.config.check import check, check_section
from dlrun.config.flags import config_flags
from dlrun.config.saved import container, portable
from dlrun.overrides import key_of, quoted
from dlrun.sweep.settings import Settings
from dlrun.sweep.state import State


class Config(NamedTuple):
    """A job's config: plain and checked, the keys whose values depend on the data, and the files in .hydra."""

    plain: dict
    chosen: list[str]
    texts: dict[str, str]


def sweep_settings(composed: DictConfig) -> Settings:
    """The sweep's own settings, which the sweep checked when it started."""
    section = container(OmegaConf.masked_copy(composed, ["sweep"]), resolve=True)["sweep"]
    check_section("sweep", section)
    return cast(Settings, build(section))


def with_auto_values(config: Config, values: dict) -> dict[str, str]:
    """The files in .hydra, with the values that the run's config has for `auto`."""
    if not config.chosen:
        return config.texts
    composed = OmegaConf.create(config.texts["config"])
    for key in config.chosen:
        OmegaConf.update(composed, key, value_of(values, key))
    return config.texts | {"config": OmegaConf.to_yaml(composed)}


def job_configs(composed: DictConfig, state: State, lead: int, numbers: Sequence[int]) -> dict[int, Config]:
    """The configs of jobs, from that of one of them: they differ in single keys (sweep/stacks.py)."""
    own = [str(key) for key in composed if key not in ("sweep", "hydra")]
    config = portable(OmegaConf.masked_copy(composed, own))
    names = dict(HydraConfig.get().runtime.choices)
    hydra = container(OmegaConf.create({"hydra": HydraConfig.get()}), resolve=False)
    hydra["hydra"]["overrides"]["task"] = ["OVERRIDES"]
    hydra_text = OmegaConf.to_yaml(hydra)
    flags = config_flags(sys.argv[1:])
    flags_text = OmegaConf.to_yaml(flags) if flags else ""
    base, parser, configs = state.jobs[lead].overrides, OverridesParser.create(), {}
    differing = {key_of(o) for number in numbers for o in state.jobs[number].overrides if o not in base}
    for number in numbers:
        job, folder = state.jobs[number], state.run_folder(state.jobs[number])
        for override in parser.parse_overrides([o for o in job.overrides if key_of(o) in differing]):
            OmegaConf.update(config, override.key_or_group, override.value())
        config.run_dir = str(folder)
        values = container(config, resolve=True)
        chosen = auto_keys(values)
        check(values, names)
        overrides = OmegaConf.to_yaml([*job.overrides, f"run_dir={quoted(folder)}"])
        texts = {
            "config": OmegaConf.to_yaml(config),
            "hydra": hydra_text.replace("    - OVERRIDES\n", indent(overrides, "    ")),
            "overrides": overrides + flags_text,
        }
        configs[number] = Config(values, chosen, texts)
    return configs
