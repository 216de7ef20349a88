"""Hydra's config loader with changes: checks before code runs, code as options, one composition for two, zip(...)."""

import os
from pathlib import Path
from typing import Any, cast

from hydra.conf import HelpConf, HydraHelpConf
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, ListConfig, OmegaConf

from dlrun.config.code_options import CodeRepository, drop_unset
from dlrun.config.consent import option_folders
from dlrun.config.hydra_internals import CachedRepository, LoaderBase, Repository, allow_null_in_choices, compose_faster
from dlrun.config.hydra_section import check_files, check_overrides, check_source, check_values
from dlrun.config.pairing import CONFIGS
from dlrun.config.project import project
from dlrun.config.zips import is_zip
from dlrun.errors import UserError
from dlrun.overrides import key_of
from dlrun.paths import require_working_folder

allow_null_in_choices()
compose_faster()

ALLOW = ("resume.allow=", "resume_allow=")  # resume has a value, so it is no section
# mappings whose keys are the user's own, so that they are set without a +
OPEN = ("data.types.", "data.types=", "task.class_weights.", "task.class_weights=")


class Loader(LoaderBase):
    """Checks the `hydra` section, which can name code (hydra_section.py), before any of it runs.

    zip(...) is not in Hydra's grammar yet and is passed to the sweeper unread. Hydra composes a config twice (0.07 s),
    first to learn the mode, which an experiment may set. Here the first composition is used again, or its error.
    """

    composed: tuple[list[str], DictConfig | Exception] | None = None

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        """Add the folders of options that plugins and a trusted dl-run.yaml bring."""
        refuse_twins([CONFIGS, *option_folders()])
        for folder in option_folders():
            config_search_path.prepend("plugin", f"file://{folder}", anchor="schema")
        super().__init__(config_search_path)
        self.repository = CodeRepository(config_search_path)

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        require_working_folder()
        overrides = [each for o in overrides for each in _meant(o)]
        unzipped = [override for override in overrides if not is_zip(override)]
        zips = [override for override in overrides if is_zip(override)]
        if zips and run_mode == RunMode.RUN:
            raise UserError(f"{zips[0]}: several values for one run\n  expected a sweep: dl-run -m {zips[0]!r}")
        before, self.composed = self.composed, None
        if before and overrides in (before[0], [*before[0], f"hydra.mode={run_mode.name}"]):
            parsed = OverridesParser.create().parse_overrides(unzipped)
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
            if isinstance(config := before[1], Exception):
                raise config
            config.hydra.mode = run_mode
            config.hydra.overrides.hydra += overrides[len(before[0]) :]
            return config
        try:
            config = super().load_configuration(config_name, unzipped, run_mode, from_shell, validate_sweep_overrides)
            drop_unset(config)
            check_values(_plain(config.hydra))
        except Exception as error:
            self.composed = None if validate_sweep_overrides else (list(overrides), error)
            raise
        self._set_defaults(config, {key_of(override) for override in overrides})
        if zips:
            task = config.hydra.overrides.task
            config.hydra.overrides.task = [o for o in overrides if is_zip(o) or o in task]
        if not validate_sweep_overrides:  # Hydra's first composition, which lacks choices that are not yet made
            is_whole = not OmegaConf.missing_keys(config.hydra.runtime.choices)
            self.composed = (list(overrides), config) if is_whole else None
        return config

    @staticmethod
    def _set_defaults(config: DictConfig, typed: set[str]) -> None:
        """Set the folders that a trusted dl-run.yaml names, unless the command line or the environment does."""
        named = {"data_dir"} if "DL_RUN_DATA_DIR" in os.environ else set()
        for key in {"data_dir", "output_dir"} & project().keys() - typed - named:
            config[key] = project()[key]

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachedRepository
    ) -> None:
        """Check overrides and search paths in Hydra's first step, which would import a package named as a path."""
        hydras = [override for override in parsed_overrides if override.is_hydra_override()]
        check_overrides([(each.key_or_group, each.value(), each.input_line or "") for each in hydras])
        paths = [path for each in hydras if each.key_or_group == "hydra.searchpath" for path in _listed(each.value())]
        primary = repo.load_config(config_path=config_name) if config_name else None
        if primary is not None and OmegaConf.is_dict(primary.config):
            paths += _listed(OmegaConf.select(primary.config, "hydra.searchpath"))
        for path in paths:
            check_source(path)
        super()._process_config_searchpath(config_name, parsed_overrides, repo)

    def _compose_config_from_defaults_list(self, defaults: list[ResultDefault], repo: Repository) -> DictConfig:
        """Check the config as the files compose it, before Hydra adds overrides and runtime values."""
        config = super()._compose_config_from_defaults_list(defaults, repo)
        texts = {
            name: _plain(OmegaConf.merge(schema, default.config))
            for name, schema in (("help", HelpConf), ("hydra_help", HydraHelpConf))
            if (default := repo.load_config(f"hydra/{name}/default"))
        }
        check_files(_plain(config.hydra), texts)
        return config


def _meant(override: str) -> list[str]:
    """Return the overrides that Hydra needs for what the user wrote: a list replaces a section, keys may be new."""
    if override.startswith(OPEN):
        return [f"++{override}"]
    if override.startswith(ALLOW[0]):
        return [override.replace(*ALLOW)]
    return ["~data.augment", f"+{override}"] if override.startswith("data.augment=[") else [override]


def refuse_twins(folders: list[Path]) -> None:
    """Raise UserError if two config folders have an option of the same name: one would hide the other."""
    seen: dict[str, Path] = {}
    for folder in folders if len(folders) > 1 else ():
        for path in sorted(folder.glob("*/*.yaml")):
            name = f"{path.parent.name}={path.stem}"
            if name in seen:
                raise UserError(
                    f"{name} is there twice: {seen[name]} and {path}\n  expected one: rename or uninstall the other"
                )
            seen[name] = path


def _plain(section: DictConfig | ListConfig) -> dict[str, Any]:
    return cast("dict[str, Any]", OmegaConf.to_container(section, resolve=False))


def _listed(paths: object) -> list:
    return list(paths) if isinstance(paths, list | ListConfig) else [paths] if paths else []
