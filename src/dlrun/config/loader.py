"""How Hydra composes a command's config here: checked before any of it runs, once, and with zip(...)."""

from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.grammar import grammar_functions
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from dlrun.build import check_hydra
from dlrun.errors import UserError
from dlrun.sweep.zips import is_zip

for function in (grammar_functions.choice, grammar_functions.shuffle):
    function.__annotations__["args"] = Any  # null too: Hydra 1.3 checks against a list of types that leaves it out


class Loader(ConfigLoaderImpl):
    """Hydra's own section of a config can name code as well (callbacks, logging): checked before any of it runs.

    A zip(...) is not in Hydra's grammar yet: it is kept for the sweeper. Hydra composes a command's config twice, first
    to learn its mode, which an experiment may set (0.07 s): here once.
    """

    composed: tuple[list[str], DictConfig] | None = None

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        plain_ones = [override for override in overrides if not is_zip(override)]
        zips = [override for override in overrides if is_zip(override)]
        if zips and run_mode == RunMode.RUN:
            raise UserError(f"{zips[0]}: several values for one run\n  expected a sweep: dl-run -m {zips[0]!r}")
        before, self.composed = self.composed, None
        if before and overrides in (before[0], [*before[0], f"hydra.mode={run_mode.name}"]):
            parsed = OverridesParser.create().parse_overrides(plain_ones)
            self.validate_sweep_overrides_legal(parsed, run_mode, from_shell)
            config = before[1]
            config.hydra.mode = run_mode
            config.hydra.overrides.hydra += overrides[len(before[0]) :]
            return config
        config = super().load_configuration(config_name, plain_ones, run_mode, from_shell, validate_sweep_overrides)
        check_hydra(OmegaConf.to_container(config.hydra, resolve=False))
        if zips:
            task = config.hydra.overrides.task
            config.hydra.overrides.task = [o for o in overrides if is_zip(o) or o in task]
        if not validate_sweep_overrides:  # Hydra asks for the mode, and leaves out choices that are still to be made
            is_whole = not OmegaConf.missing_keys(config.hydra.runtime.choices)
            self.composed = (list(overrides), config) if is_whole else None
        return config
