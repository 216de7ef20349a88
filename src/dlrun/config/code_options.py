"""Code as an option of a group: optimizer=mynets.optim.lion. Its section has the keys of the function. No torch.

No code is imported: the keys and their defaults are read from the source. Whether a config may name it is for check.py.
"""

from collections.abc import Iterable

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from dlrun.config.check import may_be_chosen
from dlrun.config.named import WORD
from dlrun.config.signatures import signature
from dlrun.config.source import source_of
from dlrun.errors import UserError
from dlrun.overrides import key_of

GROUPS = ("data", "model", "task", "optimizer", "schedule")


def add_code_options(overrides: Iterable[str]) -> None:
    """Make an option of each dotted path that an override chooses, alone or among several for a sweep."""
    for override in overrides:
        group = key_of(override)
        for word in map(str.strip, override.partition("=")[2].split(",")) if group in GROUPS else ():
            if "." in word and WORD.fullmatch(word) and source_of(word.rpartition(".")[0]):
                section = _section(group, word)
                # as in the options of the group model: they choose the task
                node = {"defaults": [{"override /task": "supervised"}, "_self_"], "model": section}
                is_model = group == "model"
                ConfigStore.instance().store(
                    word, node if is_model else section, group, "_global_" if is_model else None
                )


def drop_unset(config: DictConfig) -> None:
    """Remove the keys that have no value: those that are required are then reported, others keep their default."""
    for group in GROUPS:
        section = config.get(group)
        for key in [str(key) for key in section if OmegaConf.is_missing(section, key)] if _is_mapping(section) else ():
            OmegaConf.set_struct(config, False)
            del section[key]
            OmegaConf.set_struct(config, True)


def _is_mapping(section: object) -> bool:
    return isinstance(section, DictConfig) and not section._is_none()


def _section(group: str, word: str) -> dict[str, object]:
    if not may_be_chosen(group, word):  # reading a signature evaluates its annotations
        return {"_target_": word}
    try:
        builder = signature(word)
    except UserError:  # check.py reports it
        return {"_target_": word}
    return {"_target_": word, **{key: builder.defaults.get(key, MISSING) for key in builder.keys}}
