"""Code as an option of a group: optimizer=mynets.optim.lion. Its section has the keys of the function. No torch.

No code is imported: the keys and their defaults are read from the source. Whether a config may name it is for check.py.
"""

from hydra.core.default_element import ConfigDefault, GroupDefault
from hydra.plugins.config_source import ConfigResult
from omegaconf import MISSING, DictConfig, OmegaConf

from dlrun.config.check import CODE, is_path, may_be_chosen
from dlrun.config.hydra_internals import RepositoryBase
from dlrun.config.pairing import group_options
from dlrun.config.signatures import signature
from dlrun.config.source import source_of
from dlrun.errors import UserError


class CodeRepository(RepositoryBase):
    """Finds code by its dotted path wherever an option is chosen: on the command line or in a list of defaults."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        group, _, word = config_path.partition("/")
        found = super().load_config(config_path)  # a file may have such a name
        if found or not is_path(group, word) or not source_of(word.rpartition(".")[0]):
            return found
        section = _section(group, word)
        if group != "model":
            return ConfigResult("code", word, OmegaConf.create(section), {"package": None}, [])
        # as in the options of the group model: they choose the task
        task = GroupDefault(group="/task", value="supervised", override=True)
        node = OmegaConf.create({"model": section})
        return ConfigResult("code", word, node, {"package": "_global_"}, [task, ConfigDefault(path="_self_")])


def drop_unset(config: DictConfig) -> None:
    """Remove the keys that have no value: those that are required are then reported, others keep their default."""
    for group in CODE:
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
    bases = _of_bases(group, builder.bases) if builder.bases else {}
    inherited = {key: value for key, value in bases.items() if key in builder.inherited}
    defaults = {**bases, **builder.defaults, **inherited}
    return {"_target_": word, **{key: defaults.get(key, MISSING) for key in builder.keys}}


def _of_bases(group: str, bases: tuple[str, ...]) -> dict[str, object]:
    """Return the values that the options of the group give the keys of the nearest base class that some of them build.

    If several build it, such as the data sets of images, the values on which all agree.
    """
    sections = [node for _, node in group_options(group)]
    for base in bases:
        first, *others = [node for node in sections if node["_target_"] == base] or [{}]
        if first:
            return {key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)}
    return {}
