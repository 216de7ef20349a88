"""All that dl-run uses of the private parts of Hydra and OmegaConf, with what each gains.

See tests/config/test_hydra_internals.py. hydra-core 1.3 has no setting for any of them.
"""

import argparse
import sys
from typing import Any

import omegaconf._utils as omegaconf_utils
import yaml
from hydra._internal import defaults_list
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, ConfigRepository, IConfigRepository
from hydra._internal.grammar import grammar_functions
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath

LoaderBase = ConfigLoaderImpl  # what config/loader.py changes: one composition instead of two saves 0.07 s
Repository = IConfigRepository  # the files that a loader reads
CachedRepository = CachingConfigRepository  # and has read
RepositoryBase = ConfigRepository  # what config/code_options.py changes: code is an option by its dotted path

_map = defaults_list._create_interpolation_map
own_yaml_loader = omegaconf_utils.get_yaml_loader


def use_loader(loader: type[ConfigLoaderImpl]) -> None:
    """Let `hydra.main` compose with another loader, which checks a config before code runs."""
    import hydra._internal.hydra

    hydra._internal.hydra.ConfigLoaderImpl = loader  # type: ignore[misc]  # Hydra has no setting for it
    sys.modules["hydra.main"].get_args_parser = args_parser  # type: ignore[attr-defined]  # nor for this


def search_path(folder: str) -> ConfigSearchPath:
    """The search path that `hydra.main` makes, for programs: `hydra.compose` would set Hydra's globals."""
    return create_config_search_path(folder)


def args_parser() -> argparse.ArgumentParser:
    """Hydra's parser. Python 3.14 checks help texts at once, and Hydra 1.3 has one that is made when it is printed."""
    container: Any = argparse._ActionsContainer
    if not hasattr(container, "_check_help"):
        return get_args_parser()
    check, container._check_help = container._check_help, lambda self, action: None
    try:
        return get_args_parser()
    finally:
        container._check_help = check


def allow_null_in_choices() -> None:
    """Accept choice(null,1): Hydra lists the types of its arguments and leaves out null."""
    for function in (grammar_functions.choice, grammar_functions.shuffle):
        function.__annotations__["args"] = Any


def compose_faster() -> None:
    """Take a third of the time to compose a config.

    Hydra maps the choices for each file, though only files with a choice such as `tuned: ${model}` need it. OmegaConf
    parses YAML by libyaml, if PyYAML has it, with its own rules for values and keys given twice.
    """
    defaults_list._create_interpolation_map = _map_if_needed  # type: ignore[assignment]  # Hydra has no setting for it
    if not yaml.__with_libyaml__:
        return
    rules: Any = own_yaml_loader()

    class LibyamlLoader(yaml.cyaml.CParser, rules):
        def __init__(self, stream: Any) -> None:
            yaml.cyaml.CParser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    omegaconf_utils.get_yaml_loader = lambda: LibyamlLoader


def _map_if_needed(overrides: Any, defaults: list, self_added: bool) -> Any:
    return _map(overrides, defaults, self_added) if any(each.is_interpolation() for each in defaults) else None
