"""Compose a config from words as the command line does, for programs. It leaves sys.argv and Hydra's globals alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from hydra import version
from hydra.core.plugins import Plugins
from hydra.core.utils import setup_globals
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from packaging.version import Version
from yaml import YAMLError

from dlrun.config.explain import explain
from dlrun.config.hydra_internals import search_path
from dlrun.config.loader import Loader
from dlrun.config.pairing import CONFIGS
from dlrun.errors import UserError


def compose(words: Sequence[str], config_dir: str | Path | None = None) -> tuple[DictConfig, DictConfig]:
    """Return the config that overrides such as model=lenet compose, and Hydra's section.

    config_dir: a folder with more options. Raises UserError if they cannot be composed.
    """
    if config_dir is not None and not Path(config_dir).is_dir():
        raise UserError(f"config_dir={config_dir}: no such folder\n  expected a folder with config groups")
    before: object = version.getbase()
    version.setbase("1.3")
    try:
        Plugins.instance()
        setup_globals()
        paths = search_path(str(CONFIGS))
        if config_dir is not None:
            paths.prepend("command-line", f"file://{Path(config_dir).absolute()}", anchor="schema")
        whole = Loader(paths).load_configuration("config", list(words), RunMode.RUN)
        hydra = whole.hydra
        names = [str(key) for key in whole if key != "hydra"]
        return OmegaConf.masked_copy(whole, names), cast(DictConfig, hydra)
    except (HydraException, OmegaConfBaseException, YAMLError, ValueError, RecursionError) as error:
        text = None if config_dir is None else str(config_dir)
        raise UserError(explain(error, list(words), text)) from None
    finally:
        if isinstance(before, Version):  # else nobody has set it
            version.setbase(str(before))
